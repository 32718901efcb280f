"""Tasks, one module each."""
