"""Ratings of items by users: MovieLens and a user's own."""
