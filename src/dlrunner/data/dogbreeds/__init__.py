"""Kaggle's dog breeds."""
