"""Speed and memory against other libraries: `make bench`."""
