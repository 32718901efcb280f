"""The folder of one run: writing, reading, checkpoints, and the digest of the code behind it."""
