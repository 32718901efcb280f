"""The release of the Large Movie Review Dataset."""

from __future__ import annotations

from dlrunner.data.core.source import Release

LAYOUT = "train/pos/0_9.txt"
HOME = "https://ai.stanford.edu/~amaas/data/sentiment/"

RELEASES = (
    Release(
        name="imdb",
        title="Large Movie Review Dataset v1.0 (IMDB)",
        layouts=(LAYOUT,),
        archives=("aclImdb_v1", "aclImdb"),
        terms="cite Maas et al., Learning Word Vectors for Sentiment Analysis, ACL 2011",
        home=HOME,
        url=f"{HOME}aclImdb_v1.tar.gz",
        sha256="c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
        suffix=".tar.gz",
    ),
)
