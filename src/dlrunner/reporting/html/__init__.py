"""Reports: a run, a sweep or claims as one self-contained HTML file."""
