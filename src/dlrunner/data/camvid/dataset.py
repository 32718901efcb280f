"""CamVid: 701 frames of road scenes, 480 x 360 pixels, with masks of 11 classes.

Source: Brostow et al., Semantic object classes in video, 2009; split and masks of Badrinarayanan et al., SegNet, 2017,
https://arxiv.org/abs/1511.00561.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field

from dlrunner.data.camvid.releases import MASKS_SHA256, RELEASES
from dlrunner.data.core.source import find
from dlrunner.data.segmentation.dataset import SegmentationData, Side
from dlrunner.data.segmentation.files import MaskedImages
from dlrunner.errors import DataError
from dlrunner.ranges import Count, Text
from dlrunner.task import DataIdentity


class CamVidData(SegmentationData):
    """367 training, 101 validation and 233 test frames, in folders images/{train,val,test} and masks/{train,val,test}.

    Args:
        data_dir: where camvid.zip or a folder camvid/ is searched for.
        path: the archive or the folder itself.
        sample, sample_valid, sample_test: number of random images of each part; by default all.
        size: height and width to which images and masks are scaled.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        path: Text | None = None,
        sample: Count | None = None,
        sample_valid: Count | None = None,
        sample_test: Count | None = None,
        size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)] = [360, 480],  # noqa: B006
    ) -> None:
        super().__init__(
            data_dir,
            path=path or RELEASES[0].archives[0],
            sample=sample,
            sample_valid=sample_valid,
            sample_test=sample_test,
            size=size,
        )
        self.data_dir, self.is_searched_for = data_dir, path is None

    @cached_property
    def _found(self) -> tuple[MaskedImages, float | None]:
        """The files, of the data folder where no path is given."""
        if self.is_searched_for:
            found = find(self.data_dir, RELEASES)
            if found is None:
                raise DataError(
                    f"{RELEASES[0].title}: there is no camvid.zip or camvid/ in {self.data_dir}; docs/segmentation.md "
                    f"says how to make it of {RELEASES[0].home}"
                )
            self.path = found[1].path
        return super()._found

    def identity(self) -> DataIdentity:
        """Return the identity of the images; they are CamVid's where all masks are the publisher's files."""
        own = super().identity()
        files, _ = self._found
        if files.place.digest_of(files.masks, "masks") != MASKS_SHA256:
            return own
        return replace(own, name="CamVid", release=RELEASES[0].name, terms=RELEASES[0].terms)
