"""Reports: a run, a sweep or the claims in one HTML file that needs nothing else."""
