"""The files with which an export is served in a container."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from dlrunner._version import __version__

SERVERS = ("fastapi", "python-multipart", "uvicorn")
WHEEL = "dlrunner-{version}-py3-none-any.whl"
DOCKERFILE = """\
# Put the wheel of dlrunner {version} into this folder (in its repository: python -m build --wheel --outdir FOLDER):
#   docker build --tag model . && docker run --rm --publish 127.0.0.1:8000:8000 model
# --build-arg PIP_EXTRA_INDEX_URL=… names the index of PyTorch's packages without CUDA, which are much smaller.
FROM python:{python}-slim
ARG PIP_EXTRA_INDEX_URL
WORKDIR /model
COPY requirements.txt {wheel} ./
RUN pip install --no-cache-dir --requirement requirements.txt
COPY . .
USER 65534:65534
ENV DLRUNNER_CACHE=/tmp/dlrunner MPLCONFIGDIR=/tmp/matplotlib
EXPOSE 8000
CMD {command}
"""


def container_files(recorded: Any, plugins: Sequence[str]) -> dict[str, str]:
    """Return the Dockerfile, and the packages of the run at its versions.

    dlrunner is installed from its wheel, never by its name from an index.

    Args:
        recorded: versions of the packages that the run used; its folder may be from elsewhere, so that lines which are
            none are left out.
        plugins: modules of the user, which have to be added to the image.
    """
    entries = recorded.items() if isinstance(recorded, dict) else ()
    versions = {name: number for name, number in entries if _is_plain(name) and _is_plain(number)}
    own, python = versions.get("dlrunner", __version__), versions.get("python", "3.11")
    packages = {name: number for name, number in versions.items() if name not in ("dlrunner", "python")}
    packages |= {name: number for name in SERVERS if (number := _installed(name))}
    wheel = WHEEL.format(version=own)
    # A local version, such as 2.13.0+cpu, is in no public index.
    pins = [f"{name}=={number.partition('+')[0]}" for name, number in sorted(packages.items())]
    missing = [name for name in SERVERS if name not in packages]
    words = ["python", "-m", "dlrunner", "serve", "/model", "--host", "0.0.0.0"]
    words += ["--plugins", *plugins] * bool(plugins)
    short = ".".join(python.split(".")[:2])
    dockerfile = DOCKERFILE.format(version=own, python=short, wheel=wheel, command=json.dumps(words))
    return {"Dockerfile": dockerfile, "requirements.txt": "\n".join([*pins, *missing, f"./{wheel}"]) + "\n"}


def _is_plain(text: Any) -> bool:
    """Return whether a text can only be the name or the version of a package.

    >>> [_is_plain(each) for each in ("hydra-core", "2.13.0+cpu", "3.11\\nRUN x", "--index-url", None)]
    [True, True, False, False, False]
    """
    return isinstance(text, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,60}", text) is not None


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
