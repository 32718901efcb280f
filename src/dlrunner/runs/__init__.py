"""The folder of one run: written, read, compared with what it was made of."""
