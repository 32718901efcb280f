"""Reading, caching, batching and synthetic data; knows no task."""
