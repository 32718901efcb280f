"""Reading, caching, batching and stand-ins; knows no task."""
