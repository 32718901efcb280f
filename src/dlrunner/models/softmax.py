"""The loss of a softmax over many words, without keeping the probabilities of all words for all tokens.

For 4,480 tokens and 35,000 words the logits alone take 630 MB in float32, and torch's cross entropy writes them
three times. Here a part of the tokens is dealt with at a time, forwards and backwards at once, so that only the
gradients are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from dlrunner.system.precision import autocast_dtype, without_autocast

CPU_ELEMENTS = 8 * 2**20
"""Logits at a time: 32 MB in float32 stay near the cores."""
GPU_ELEMENTS = 128 * 2**20
"""Half a gigabyte: large enough to fill the device."""
KEPT_ELEMENTS = 32 * 2**20
"""Logits that may be kept for the gradients of single tokens."""


def mean_loss(states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross entropy of softmax(states · weightᵀ + bias), a number that can be differentiated.

    Args:
        states: [tokens, size].
        weight: [words, size].
        bias: [words].
        targets: the target words, [tokens], int64.

    >>> states, weight = torch.randn(5, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    >>> bias, targets = torch.randn(7, dtype=torch.float64), torch.tensor([0, 1, 2, 6, 6])
    >>> expected = torch.nn.functional.cross_entropy(states @ weight.T + bias, targets)
    >>> torch.allclose(mean_loss(states, weight, bias, targets), expected)
    True
    """
    dtype = autocast_dtype(states.device) or weight.dtype
    with without_autocast(states.device):
        if not torch.is_grad_enabled():
            return token_losses(states, weight, bias, targets).mean()
        loss: Tensor = _MeanLoss.apply(states, weight, bias, targets, dtype)  # type: ignore[no-untyped-call]
        return loss


def token_losses(states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Return the cross entropy of each token, float32 or float64 of shape [tokens].

    Where gradients are enabled, the logits are kept if they are few, else computed once more for the gradients, and
    float16, which would lose most of them, is not used.
    """
    dtype = autocast_dtype(states.device) or weight.dtype
    if dtype == torch.float16 and torch.is_grad_enabled():
        dtype = weight.dtype
    again = torch.is_grad_enabled() and len(states) * len(weight) > KEPT_ELEMENTS
    with without_autocast(states.device):
        states, weight, bias = states.to(dtype), weight.to(dtype), bias.to(dtype)
        losses = [
            checkpoint(_losses, part, weight, bias, right, use_reentrant=False, preserve_rng_state=False)
            if again
            else _losses(part, weight, bias, right)
            for part, right in _parts(states, targets, len(weight))
        ]
        return torch.cat(losses) if losses else states.new_zeros(0, dtype=torch.float32)


def _losses(states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    logits = torch.addmm(bias, states, weight.t())
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return torch.logsumexp(logits, dim=1) - logits.gather(1, targets[:, None]).squeeze(1)


class _MeanLoss(torch.autograd.Function):
    """Loss and gradients in one pass: with e = exp(logits - max) and s its sum, the gradient of the states is
    e · weight / s - weight[target], so the probabilities e / s themselves are never written.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, dtype: torch.dtype) -> Tensor:
        narrow_states, narrow, narrow_bias = states.to(dtype), weight.to(dtype), bias.to(dtype)
        total = torch.zeros((), dtype=torch.float64 if dtype == torch.float64 else torch.float32, device=states.device)
        d_weight, d_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        d_states = []
        for part, right in _parts(narrow_states, targets, len(weight)):
            logits = torch.addmm(narrow_bias, part, narrow.t())
            highest = logits.amax(dim=1, keepdim=True)
            target_logits = logits.gather(1, right[:, None]) - highest
            exps = logits.sub_(highest).exp_()
            sums = exps.sum(dim=1, keepdim=True, dtype=total.dtype)
            total += (sums.log() - target_logits).sum()
            if dtype == torch.float16:  # is subnormal below 6e-5: 1 / 35,000 and its products lose most digits
                scale = 1 / sums
                d_states.append(((exps @ narrow) * scale - narrow[right]).to(states.dtype))
                d_weight += _lifted_product(exps, part * scale)
                d_bias += _lifted_product(exps, scale).squeeze(1)
                continue
            scale = (1 / sums).to(dtype)
            d_states.append(((exps @ narrow) * scale - narrow[right]).to(states.dtype))
            scaled = part * scale
            d_weight += exps.t() @ scaled
            d_bias += (exps.t() @ scale).squeeze(1)
        d_weight.index_add_(0, targets, -narrow_states.to(weight.dtype))
        d_bias.index_add_(0, targets, torch.full_like(targets, -1, dtype=bias.dtype))
        ctx.save_for_backward(torch.cat(d_states), d_weight, d_bias)
        count = ctx.count = max(1, len(targets))  # the last columns of a stream may have come to their end
        return total / count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_states, d_weight, d_bias = ctx.saved_tensors
        scale = grads[0] / ctx.count
        return d_states * scale, d_weight * scale, d_bias * scale, None, None


def _lifted_product(exps: Tensor, values: Tensor) -> Tensor:
    """Return expsᵀ · values, float32, of float16 factors: values are lifted by a power of two before they are rounded.

    It is the largest one with which no sum can overflow, for no exponential is greater than 1.

    Args:
        exps: [tokens, words], float16.
        values: [tokens, size], float32.
    """
    bound = values.abs().sum(dim=0).amax().clamp_min(1e-30)
    lift = (2**15 / bound).log2().floor().exp2()
    return (exps.t() @ (values * lift).to(exps.dtype)).float().div_(lift)


def _parts(states: Tensor, targets: Tensor, num_words: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield as many tokens at a time as keep the logits small; of sixteens products are up to twice as fast."""
    size = (CPU_ELEMENTS if states.device.type == "cpu" else GPU_ELEMENTS) // num_words
    size = max(1, size // 16 * 16 or size)
    yield from zip(torch.split(states, size), torch.split(targets, size), strict=True)
