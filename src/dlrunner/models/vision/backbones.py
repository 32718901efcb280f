"""Backbones by name, and weights for them from a file: read, compared with the net, and loaded."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from dlrunner.errors import ConfigError, DataError, did_you_mean
from dlrunner.files.paths import user_path
from dlrunner.models.vision.backbone import Backbone
from dlrunner.models.vision.efficientnet_lite import SCALES, EfficientNetLite
from dlrunner.models.vision.mobilenet import MobileNetV2, Variant
from dlrunner.models.vision.resnet import RESNETS
from dlrunner.models.vision.squeezenet import SqueezeNet

BACKBONES: Mapping[str, Callable[..., Backbone]] = {
    **RESNETS,
    "squeezenet1_1": SqueezeNet,
    "mobilenet_v2": MobileNetV2,
    **{name: partial(EfficientNetLite, *scales) for name, scales in SCALES.items()},
}
"""Names as torchvision and timm have them, and what makes the nets; mobilenet_v2 alone takes a variant."""

TIMM = "timm/"
"""Before the name of one of timm's models."""

CLASSIFIERS = ("fc.", "_fc.", "classifier.", "head.")
"""How the names of a published net's last layer begin."""

MOST_STATISTICS_GAP = 0.7
"""A larger `statistics_gap` indicates the wrong variant of a net, or inputs that are not normalised.

It lies between everything harmless that was measured (0.46 at most) and gross faults (0.99 at least).
"""


def make_backbone(name: str, variant: Variant = "torchvision") -> Backbone:
    """Return a net with new weights.

    Args:
        name: one of `BACKBONES`, or timm/NAME for one of timm's models.
        variant: of mobilenet_v2; the others have one.

    Raises:
        ConfigError: there is no such backbone, or timm is needed and not installed.
    """
    if name.startswith(TIMM):
        return TimmBackbone(name)
    if name not in BACKBONES:
        raise ConfigError(
            f"{name} is not a backbone; {did_you_mean(name, BACKBONES)} (timm/NAME: one of timm's models)"
        )
    if name != "mobilenet_v2":
        backbone = BACKBONES[name]()
        backbone.name = name
        return backbone
    backbone = MobileNetV2(variant)
    backbone.name = f"{name} with {variant}'s variant"
    return backbone


class TimmBackbone(Backbone):
    """One of timm's convolutional nets, https://github.com/huggingface/pytorch-image-models.

    Args:
        name: timm/ and the name that timm knows.
    """

    def __init__(self, name: str) -> None:
        try:
            import timm  # type: ignore[import-not-found,unused-ignore]
        except ImportError:
            raise ConfigError(f"{name} needs the package timm, which is not installed: pip install timm") from None
        known = name.removeprefix(TIMM)
        if not timm.is_model(known):
            raise ConfigError(f"timm has no model {known}; see timm.list_models()")
        model: Any = timm.create_model(known, pretrained=False, num_classes=0, global_pool="")
        super().__init__(model.num_features)
        self.name = name
        self.model: nn.Module = model

    def forward(self, images: Tensor) -> Tensor:
        """Return the last feature maps.

        Raises:
            ConfigError: they are none, as with transformers, whose outputs are tokens or have their channels last.
        """
        features: Any = self.model.forward_features
        maps: Tensor = features(images)
        if maps.ndim != 4 or maps.shape[1] != self.num_features:
            wanted = f"[{len(images)}, {self.num_features}, h, w]"
            raise ConfigError(
                f"{self.name} gives {list(maps.shape)} instead of feature maps {wanted}: choose a convolutional net"
            )
        return maps

    def pyramid(self, images: Tensor) -> Sequence[Tensor]:
        """Return the feature maps that timm gives at each resolution.

        Raises:
            ConfigError: this model gives none.
        """
        intermediates: Any = getattr(self.model, "forward_intermediates", None)
        if intermediates is None:
            raise ConfigError(f"{self.name} gives no feature maps at several resolutions: choose another backbone")
        maps: list[Tensor] = []
        for each in intermediates(images, intermediates_only=True):
            if maps and maps[-1].shape[2:] == each.shape[2:]:
                maps.pop()
            maps.append(each)
        return maps

    def stages(self) -> Sequence[nn.Module]:
        """Return the model's children that have parameters, or those of its only such child (DenseNet)."""
        parts = [self.model]
        while len(parts) == 1 and list(parts[0].children()):
            parts = [child for child in parts[0].children() if list(child.parameters())]
        return parts

    def net(self) -> nn.Module:
        """Return timm's own module."""
        return self.model


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the weights in a file: a state dict of torch's, alone or in a checkpoint, or a safetensors file.

    Raises:
        ConfigError: there is no such file.
        DataError: it is damaged, or holds something else.
    """
    path = user_path(path)
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    found = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    for wrapper in ("state_dict", "model"):
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    weights = dict(found) if isinstance(found, Mapping) else {}
    weights = {str(name): weight for name, weight in weights.items() if isinstance(weight, Tensor)}
    if not weights:
        raise DataError(
            f"{path} holds no weights: a state dict is needed, as torch.save(net.state_dict(), FILE) writes it"
        )
    # What torch.nn.DataParallel puts before every name.
    prefix = "module." if all(name.startswith("module.") for name in weights) else ""
    return {name.removeprefix(prefix): weight for name, weight in weights.items()}


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError:
        raise DataError(
            f"{path} holds more than weights: it is damaged, or a whole net was saved instead of net.state_dict()"
        ) from None
    except Exception:  # torch raises a dozen kinds for files that are not its own
        raise DataError(f"{path} holds no weights: it is damaged, or another kind of file") from None


def _read_safetensors(path: Path) -> Any:
    try:
        return load_file(path)
    except Exception:  # safetensors has an error of its own
        raise DataError(f"{path} holds no weights: it is damaged, or another kind of file") from None


def fits(backbone: Backbone, weights: Mapping[str, Tensor]) -> bool:
    """Return whether a file has all weights of a net, in their shapes."""
    found = _shapes(weights)
    return all(found.get(name) == shape for name, shape in _shapes(backbone.net().state_dict()).items())


def check_fit(backbone: Backbone, weights: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a file that does not have all weights of a net, in their shapes.

    Args:
        backbone: the net; it may be on the `meta` device.
        weights: as `read_weights` returns them.
        path: where they come from, for messages.

    Raises:
        ConfigError: some of the net's weights are missing or have another shape.
    """
    needed = _shapes(backbone.net().state_dict())
    missing = [name for name in needed if name not in weights]
    reshaped = [name for name in needed if name in weights and weights[name].shape != needed[name]]
    if missing or reshaped:
        wrong = [f"{len(missing)} are missing ({_first(missing)})"] if missing else []
        wrong += [f"{len(reshaped)} have another shape ({_first(reshaped)})"] if reshaped else []
        raise ConfigError(
            f"{path} does not fit {backbone.name}: of the net's {len(needed)} weights {' and '.join(wrong)}; "
            f"{_nearest_architecture(weights, backbone.name)}"
        )


def load(backbone: Backbone, weights: Mapping[str, Tensor], path: Path) -> list[str]:
    """Copy weights into a net, and return notes about those that were skipped.

    MobileNetV2's two variants are distinguished by their names: in gluon's the first block keeps its 1x1 expansion,
    so that its parts are numbered 0 to 3, in torchvision's 0 to 2. Activations and strides leave no trace in names:
    a file whose names were changed to the other variant's fits without an error, and only `statistics_gap` detects
    it.

    Args:
        backbone: its parameters and statistics are overwritten.
        weights: as `read_weights` returns them.
        path: where they come from, for messages.

    Raises:
        ConfigError: some of the net's weights are missing or have another shape.
    """
    check_fit(backbone, weights, path)
    own = backbone.net().state_dict()
    taken = {name: weight for name, weight in weights.items() if name in own and weight.shape == own[name].shape}
    backbone.net().load_state_dict(taken, strict=False)
    surplus = [name for name in _shapes(weights) if name not in own]
    classifier = [name for name in surplus if name.startswith(CLASSIFIERS)]
    others = [name for name in surplus if name not in classifier]
    notes = [f"{path}: its classifier ({_first(classifier)}) is skipped; the head is new"] if classifier else []
    if others:
        notes.append(f"{path}: {len(others)} weights that {backbone.name} does not have ({_first(others)}) are skipped")
    return notes


def _shapes(weights: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Return the shapes of all that counts: early files of torch's have no `num_batches_tracked`."""
    return {name: weight.shape for name, weight in weights.items() if not name.endswith("num_batches_tracked")}


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _nearest_architecture(weights: Mapping[str, Tensor], name: str) -> str:
    """Return the known architecture with most names and shapes in common with the weights."""
    found = {item for item in _shapes(weights).items() if not item[0].startswith(CLASSIFIERS)}
    overlaps: dict[str, float] = {}
    with torch.device("meta"):
        for known in (*(make_backbone(each) for each in BACKBONES), make_backbone("mobilenet_v2", "gluon")):
            shapes = set(_shapes(known.state_dict()).items())
            overlaps[known.name] = len(shapes & found) / len(shapes | found)
    nearest = max(overlaps, key=lambda each: overlaps[each])
    if overlaps[nearest] < 0.5:
        return f"the file matches none of the known backbones ({', '.join(sorted(BACKBONES))})"
    if nearest == name:
        return f"the file resembles {nearest}, incomplete or altered"
    backbone, _, variant = nearest.partition(" with ")
    settings = f"model.backbone={backbone}" + (
        f" model.variant={variant.removesuffix(chr(39) + 's variant')}" if variant else ""
    )
    return f"the file matches {nearest}: {settings}"


def statistics_gap(backbone: nn.Module, images: Tensor) -> float | None:
    """Return how far a batch's statistics lie from those that the net's batch norms have kept; None without any.

    A variant that is not the weights' own loads without an error, but what comes to its layers is not what came in
    training. The gap is the median over layers of the mean over channels of |batch mean - running mean| in running
    standard deviations; the median, as a few layers differ with what the images show. Infinite where a mean is no
    number.

    Measured with the MobileNetV2 of the ONNX model zoo (gluon's variant) and 64 images of dogs, 224 x 224:

    =====================================================  ==================
    the right variant, three draws                           0.11, 0.11, 0.12
    8 images; 1 image                                   0.13; 0.18
    grey; enlarged from 64 x 64                             0.15; 0.19
    images of 160, 128, 96, 64 pixels                     0.14, 0.17, 0.23, 0.33
    handwritten digits, 224 and 64 pixels                   0.41, 0.46
    values from 0 to 1, not normalised                      0.21
    uniform noise                                           0.52
    values from 0 to 255                                    9.6
    a stride of 2 four blocks early                         0.13
    ReLU6 instead of ReLU                                   0.12
    names changed to torchvision's, and its variant          0.99
    =====================================================  ==================

    It detects gross faults. It does not detect a moved stride, though one costs 16 to 20 points of accuracy (nearest
    centroids of ten breeds): smaller images raise the gap as much. ReLU6 does little harm there: 3 values in
    100,000 exceed 6.

    Args:
        backbone: left as it is, in its mode too.
        images: [N, 3, H, W], normalised, on the net's device; 64 of the size it was trained with, or so.
    """
    norms = [each for each in backbone.modules() if isinstance(each, nn.BatchNorm2d) and each.running_mean is not None]
    gaps: list[Tensor] = []

    def measure(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        means = inputs[0].float().mean(dim=(0, 2, 3))
        gaps.append(((means - norm.running_mean).abs() / (norm.running_var + norm.eps).sqrt()).mean())

    modes = [(module, module.training) for module in backbone.modules()]
    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    try:
        with torch.no_grad():
            backbone.eval()(images)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    return float(torch.stack(gaps).nan_to_num(nan=torch.inf, posinf=torch.inf).median()) if gaps else None
