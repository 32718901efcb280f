"""Runs beside each other: what differs, whether it is real, which setting mattered."""
