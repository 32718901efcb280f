"""Comparison of runs: groups, statistics, importance of settings, differences."""
