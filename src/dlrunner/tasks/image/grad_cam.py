"""Grad-CAM: heat maps of the image regions that a class score depends on.

Source: Selvaraju et al., Grad-CAM, 2017, https://arxiv.org/abs/1610.02391
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.model import Model
from dlrunner.models.image import ImageClassifier


def grad_cam(models: Sequence[Model], image: Tensor, answer: int, size: int) -> NDArray[np.float32]:
    """Return the heat map of a class: the backbone's last feature maps, weighted by the gradients of the class score.

    heat = relu(Σ_k mean(∂score/∂map_k) · map_k), divided by its maximum; the mean over several models.

    Args:
        models: in evaluation mode.
        image: normalised, [1, 3, height, width].
        answer: the index of the class; for a single logit, 0 explains its negative.
        size: side of the heat map in pixels.
    """
    heats = []
    for model in models:
        assert isinstance(model, ImageClassifier)
        model.eval()
        device = next(model.parameters()).device
        with torch.no_grad():
            maps = model.maps(image.to(device)).float()
        with torch.enable_grad():
            maps = maps.clone().requires_grad_()
            scores: Any = model(model.pooled(maps))
            score = scores[0, answer] if scores.ndim == 2 else (scores[0] if answer else -scores[0])
            (gradients,) = torch.autograd.grad(score, maps)
        heat = F.relu((gradients.mean(dim=(2, 3), keepdim=True) * maps.detach()).sum(dim=1, keepdim=True))
        heats.append(heat / heat.max().clamp_min(1e-12))
    mean = torch.stack(heats).mean(dim=0).cpu()
    found = F.interpolate(mean, (size, size), mode="bilinear", align_corners=False)[0, 0]
    values: NDArray[np.float32] = found.clamp(0, 1).numpy()
    return values
