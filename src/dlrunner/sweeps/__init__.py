"""Sweeps: their folder, their jobs, hyperparameter search, and the engines that start jobs."""
