"""What a classifier of pictures looks at.

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


def grad_cam(models: Sequence[Model], picture: Tensor, answer: int, size: int) -> NDArray[np.float32]:
    """Return what speaks for a class, by place: the backbone's last maps, weighed by the gradients of the class' score.

    heat = relu(Σ_k mean(∂score/∂map_k) · map_k), over its maximum; of several models the mean.

    Args:
        models: in evaluation mode.
        picture: normalised, [1, 3, height, width].
        answer: the code of the class; of two classes 0 speaks against the logit.
        size: pixels of a side of what is returned.
    """
    heats = []
    for model in models:
        assert isinstance(model, ImageClassifier)
        model.eval()
        device = next(model.parameters()).device
        with torch.no_grad():
            maps = model.maps(picture.to(device)).float()
        with torch.enable_grad():
            maps = maps.clone().requires_grad_()
            scores: Any = model(model.pooled(maps))
            score = scores[0, answer] if scores.ndim == 2 else (scores[0] if answer else -scores[0])
            (slopes,) = torch.autograd.grad(score, maps)
        heat = F.relu((slopes.mean(dim=(2, 3), keepdim=True) * maps.detach()).sum(dim=1, keepdim=True))
        heats.append(heat / heat.max().clamp_min(1e-12))
    mean = torch.stack(heats).mean(dim=0).cpu()
    found = F.interpolate(mean, (size, size), mode="bilinear", align_corners=False)[0, 0]
    values: NDArray[np.float32] = found.clamp(0, 1).numpy()
    return values
