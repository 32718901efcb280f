"""The sample shop, which is generated on this machine."""

from __future__ import annotations

from dlrunner.data.core.source import Release

RELEASES = (
    Release(
        name="sample-sales",
        title="Daily sales of eight stores, for trying a forecast",
        layouts=("sales.csv", "next.csv", "truth.csv"),
        archives=("sample-sales",),
        terms="generated",
        home="generated on this machine, the same everywhere",
        generator="dlrunner.data.sample_sales.synthetic.write_sample_sales",
    ),
)
