"""Files and folders that are written whole, locked, and read without trust."""
