"""Compiles the templates of a run's report, once for all jobs of a sweep, which are forked afterwards."""

from dlrunner.reporting.html.page import environment

TEMPLATES = ("run.html.j2", "page.html.j2", "parts.html.j2")

for _name in TEMPLATES:
    environment().get_template(_name)
