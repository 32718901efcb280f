"""Users' tables: one reader for training and prediction, in any file format."""
