"""The U-Net: a class for each pixel, of images of any size, on each of the backbones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import SGD

from dlrunner.errors import ConfigError
from dlrunner.models.unet import SegmentationDims, UNet, UpBlock
from dlrunner.models.vision.backbones import BACKBONES, make_backbone


def small(**settings: Any) -> UNet:
    torch.manual_seed(0)
    return UNet(SegmentationDims(3), Path("data"), **{"backbone": "squeezenet1_1", "channels": 32, **settings})


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2", "squeezenet1_1"])
def test_every_pixel_of_images_of_any_size_gets_scores(name: str) -> None:
    model = small(backbone=name).eval()
    for size in ((64, 64), (32, 32), (50, 67)):
        assert model(torch.randn(2, 3, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_the_last_maps_of_the_pyramid_are_those_of_the_backbone(name: str) -> None:
    torch.manual_seed(0)
    backbone = make_backbone(name).eval()
    with torch.inference_mode():
        images = torch.randn(1, 3, 64, 64)
        pyramid = backbone.pyramid(images)
        assert torch.equal(pyramid[-1], backbone(images))
    sides = [maps.shape[2] for maps in pyramid]
    assert sides == sorted(set(sides), reverse=True)
    assert len(sides) >= 4


@pytest.mark.parametrize("stride", [2, 4])
def test_scores_of_some_pixels_suffice_for_all_of_any_size(stride: int) -> None:
    model = small(backbone="mobilenet_v2", score_stride=stride).eval()
    for size in ((64, 64), (50, 67)):
        assert model(torch.randn(2, 3, *size)).shape == (2, 3, *size)
    parameters = [sum(each.numel() for each in made.parameters()) for made in (model, small(backbone="mobilenet_v2"))]
    assert parameters[0] < parameters[1]


def test_scores_between_those_of_each_fourth_pixel_are_interpolated() -> None:
    with torch.no_grad():
        scores = small(score_stride=4).eval()(torch.randn(1, 3, 64, 64))
    # The first two are those of the places 1.5 and 5.5.
    torch.testing.assert_close(scores[..., 2] + scores[..., 5], scores[..., 3] + scores[..., 4])
    assert (scores[..., 2] - scores[..., 3]).abs().max() > 1e-3


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_the_layer_groups_are_all_parameters_once_and_a_frozen_encoder_stays(stride: int) -> None:
    model = small(backbone="resnet18", score_stride=stride)
    groups = model.layer_groups()
    assert len(groups) == len(model.group_names)
    ids = [id(parameter) for group in groups for parameter in group.parameters()]
    assert sorted(ids) == sorted(id(parameter) for parameter in model.parameters())
    encoder = {id(parameter) for parameter in model.encoder.parameters()}
    assert encoder == {id(parameter) for group in groups[:2] for parameter in group.parameters()}


def test_the_encoder_takes_trained_weights_and_refuses_others(here: Path) -> None:
    other = make_backbone("squeezenet1_1")
    torch.save(other.state_dict(), here / "w.pth")
    model = small(weights="w.pth")
    assert model.load_pretrained() == []
    for one, two in zip(model.encoder.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    assert UNet.files({"weights": "w.pth"}, Path("data")) == [Path("w.pth")]
    with pytest.raises(ConfigError, match=r"does not fit resnet18.*model.backbone=squeezenet1_1"):
        small(backbone="resnet18", weights="w.pth").load_pretrained()
    assert "randomly initialised" in small().load_pretrained()[0]


def test_upsampling_starts_as_that_of_the_nearest_neighbour() -> None:
    """Without it, the four pixels that one becomes differ at first: a chequered pattern."""
    torch.manual_seed(0)
    block = UpBlock(8, 3, 5)
    larger = torch.nn.functional.pixel_shuffle(block.expand(torch.randn(1, 8, 4, 4)), 2)
    assert torch.equal(larger[..., ::2, ::2], larger[..., 1::2, 1::2])
    assert torch.equal(larger[..., ::2, ::2], larger[..., ::2, 1::2])


def test_it_learns_a_image_by_heart() -> None:
    model = small().train()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    targets = (images[:, 0] > 0).long() + (images[:, 1] > 0).long()
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(model(images), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss.item() < 0.25  # it was 1.1; without the image itself in the last block noise cannot be learned


def test_batch_norm_of_the_encoder_keeps_its_statistics_if_asked() -> None:
    for freeze, same in ((True, True), (False, False)):
        model = small(backbone="resnet18", freeze_norm=freeze).train()
        before = model.encoder.state_dict()["bn1.running_mean"].clone()
        model(torch.randn(2, 3, 32, 32))
        assert torch.equal(before, model.encoder.state_dict()["bn1.running_mean"]) is same


def test_an_image_and_its_mirror_image_get_mirrored_scores_if_flips_are_averaged() -> None:
    plain, averaged = small(), small(average_flips=True)
    images = torch.randn(2, 3, 40, 48)
    with torch.no_grad():
        scores, mirrored = averaged.eval()(images), averaged(images.flip(-1)).flip(-1)
        torch.testing.assert_close(scores, mirrored)
        views = [plain.eval()(images), plain(images.flip(-1)).flip(-1)]
        assert not torch.allclose(views[0], views[1], atol=1e-3)
        torch.testing.assert_close(scores, torch.stack(views).log_softmax(dim=2).mean(dim=0))
        # Training takes images as they come: the loader flips some of them.
        torch.testing.assert_close(averaged.train()(images), plain.train()(images))
