"""A user's own texts."""
