"""What a finished run has trained: its models, its answers in Python, and files for others."""
