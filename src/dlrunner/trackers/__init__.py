"""Trackers: one module for each program; its library is imported when a run begins, in the tracker's own process."""
