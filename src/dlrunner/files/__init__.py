"""Atomic writes, locks, temporary files, and safe reading of untrusted files."""
