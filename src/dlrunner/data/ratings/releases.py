"""The releases of MovieLens."""

from __future__ import annotations

from dlrunner.data.core.source import Release

TERMS = (
    "MovieLens, GroupLens Research: for research, not for commercial use without permission; redistribution under "
    "the same terms; acknowledge it (Harper and Konstan, 2015, https://doi.org/10.1145/2827872)"
)
HOME = "https://grouplens.org/datasets/movielens/"

RELEASES = (
    Release(
        name="ml-latest-small-2016-10",
        title="MovieLens ml-latest-small of October 2016 (the release behind the published numbers)",
        layouts=("ratings.csv", "movies.csv"),
        archives=("ml-latest-small-2016-10", "ml-latest-small"),
        terms=TERMS,
        home=HOME,
        sha256_of_layout="821795331fd974bbe7a8416f2a7eec2b548a485dedb47a073580b0a9a8a0a8d2",
    ),
    Release(
        name="ml-latest-small-2018-09",
        title="MovieLens ml-latest-small of September 2018 (the one that GroupLens serves)",
        layouts=("ratings.csv", "movies.csv"),
        archives=("ml-latest-small-2018-09", "ml-latest-small"),
        terms=TERMS,
        home=HOME,
        url="https://files.grouplens.org/datasets/movielens/ml-latest-small.zip",
        sha256="696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
        sha256_of_layout="aa289ca83157595d0df6aea1be6a4ded676ddc4385472e8313a8ed9805352646",
    ),
    Release(
        name="ml-100k",
        title="MovieLens 100K",
        layouts=("u.data", "u.item"),
        archives=("ml-100k",),
        terms=TERMS,
        home=HOME,
        url="https://files.grouplens.org/datasets/movielens/ml-100k.zip",
        sha256="50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
        sha256_of_layout="06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
    ),
    Release(
        name="ml-1m",
        title="MovieLens 1M",
        layouts=("ratings.dat", "movies.dat"),
        archives=("ml-1m",),
        terms=TERMS,
        home=HOME,
        url="https://files.grouplens.org/datasets/movielens/ml-1m.zip",
        sha256="a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
        sha256_of_layout="506d64ca44484487c11dc2d9a28de5c54948213e6b96285e298afe28d6ea4e0f",
    ),
    Release(
        name="ml-10m",
        title="MovieLens 10M",
        layouts=("ratings.dat", "movies.dat"),
        archives=("ml-10m", "ml-10M100K"),
        terms=TERMS,
        home=HOME,
        url="https://files.grouplens.org/datasets/movielens/ml-10m.zip",
        sha256="813c411ccb6122564edfe752e7f80c4dcc5aa25fa94c93622f6877a7ba252862",
    ),
    Release(
        name="ml-32m",
        title="MovieLens 32M",
        layouts=("ratings.csv", "movies.csv"),
        archives=("ml-32m",),
        terms=TERMS,
        home=HOME,
        url="https://files.grouplens.org/datasets/movielens/ml-32m.zip",
        sha256="e4a68655d7386b8f95f2f2424b2ff975dfdd15ffd59e0d864a14dca43e99d6ee",
        sha256_of_layout="91159850e41ee59c86231165a688709647e2726cab2e7ba9faf04001bd5261ee",
    ),
)
