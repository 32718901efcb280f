"""Published results, and whether runs reach them."""
