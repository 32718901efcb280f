"""Progress, tables and comparisons in the terminal."""
