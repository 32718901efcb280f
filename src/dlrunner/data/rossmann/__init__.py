"""Rossmann Store Sales."""
