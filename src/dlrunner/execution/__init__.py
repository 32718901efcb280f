"""Doing one run: prepare, train, evaluate, publish."""
