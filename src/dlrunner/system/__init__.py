"""The machine that a run finds: what its devices can do, and how they are set."""
