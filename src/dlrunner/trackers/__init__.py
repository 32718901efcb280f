"""Trackers, one module per program; its library is imported when a run starts, in the tracker's own process."""
