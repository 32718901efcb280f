"""Reports: terminal output, plots, HTML pages, model cards."""
