"""Code shared by tasks."""
