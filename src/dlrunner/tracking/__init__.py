"""Trackers, each in its own process, separate from the run."""
