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

from dlrunner.system.precision import autocast_dtype, without_autocast

CPU_ELEMENTS = 8 * 2**20
"""Logits at a time: 32 MB in float32 stay near the cores."""
GPU_ELEMENTS = 128 * 2**20
"""Half a gigabyte: large enough to fill the device."""


def mean_loss(states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, factors: Tensor | None = None) -> Tensor:
    """Return the mean cross entropy of softmax(states · weightᵀ + bias), a number that can be differentiated.

    Args:
        states: [tokens, size].
        weight: [words, size].
        bias: [words].
        targets: the target words, [tokens], int64.
        factors: of the tokens' losses, [tokens], constants; None: 1.

    >>> states, weight = torch.randn(5, 3, dtype=torch.float64), torch.randn(7, 3, dtype=torch.float64)
    >>> bias, targets = torch.randn(7, dtype=torch.float64), torch.tensor([0, 1, 2, 6, 6])
    >>> expected = torch.nn.functional.cross_entropy(states @ weight.T + bias, targets)
    >>> torch.allclose(mean_loss(states, weight, bias, targets), expected)
    True
    """
    dtype = autocast_dtype(states.device) or weight.dtype
    with without_autocast(states.device):
        if not torch.is_grad_enabled():
            losses = token_losses(states, weight, bias, targets)
            return (losses if factors is None else losses * factors).mean()
        loss: Tensor
        loss, _ = _MeanLoss.apply(states, weight, bias, targets, dtype, factors, None, None)  # type: ignore[no-untyped-call]
        return loss


def mixed_loss(states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, gate: Tensor, rest: Tensor) -> Tensor:
    """Return the mean of -log(gate · p + rest), p being the softmax's probability of the target.

    Args:
        states, weight, bias, targets: as in `mean_loss`.
        gate: logarithm of the softmax's weight in a mixture, [tokens].
        rest: logarithm of the target's probability by the rest of the mixture, times the weight of that, [tokens].
    """
    return mixed_loss_and_part(states, weight, bias, targets, gate, rest)[0]


def mixed_loss_and_part(
    states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, gate: Tensor, rest: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the same, and gate · p / (gate · p + rest), [tokens], which cannot be differentiated.

    That part of the softmax's gradient is the mixture's.
    """
    dtype = autocast_dtype(states.device) or weight.dtype
    with without_autocast(states.device):
        loss, part = _MeanLoss.apply(states, weight, bias, targets, dtype, None, gate, rest)  # type: ignore[no-untyped-call]
        return loss, part


def token_losses(states: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
    """Return the cross entropy of each token, float32 or float64 of shape [tokens]; it keeps no gradient."""
    dtype = autocast_dtype(states.device) or weight.dtype
    with without_autocast(states.device), torch.no_grad():
        states, weight, bias = states.to(dtype), weight.to(dtype), bias.to(dtype)
        losses = []
        for part, right in _parts(len(weight), states, targets):
            logits = torch.addmm(bias, part, weight.t())
            logits = logits if dtype == torch.float64 else logits.float()
            losses.append(torch.logsumexp(logits, dim=1) - logits.gather(1, right[:, None]).squeeze(1))
        return torch.cat(losses) if losses else states.new_zeros(0, dtype=torch.float32)


class _MeanLoss(torch.autograd.Function):
    """Loss and gradients in one pass: with e = exp(logits - max) and s its sum, the gradient of the states is
    e · weight / s - weight[target], so the probabilities e / s themselves are never written.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor,
        targets: Tensor,
        dtype: torch.dtype,
        factors: Tensor | None,
        gate: Tensor | None,
        rest: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        narrow_states, narrow, narrow_bias = states.to(dtype), weight.to(dtype), bias.to(dtype)
        total = torch.zeros((), dtype=torch.float64 if dtype == torch.float64 else torch.float32, device=states.device)
        d_weight, d_bias = torch.zeros_like(weight), torch.zeros_like(bias)
        d_states, parts = [], [total.new_zeros(0, 1)]
        of_tokens = [each[:, None] for each in (factors, gate, rest) if each is not None]
        for part, right, *given in _parts(len(weight), narrow_states, targets, *of_tokens):
            logits = torch.addmm(narrow_bias, part, narrow.t())
            highest = logits.amax(dim=1, keepdim=True)
            target_logits = logits.gather(1, right[:, None]) - highest
            exps = logits.sub_(highest).exp_()
            sums = exps.sum(dim=1, keepdim=True, dtype=total.dtype)
            losses = sums.log() - target_logits
            if rest is None:
                factor = given[0] if given else torch.ones_like(losses)
                total += (factor * losses).sum()
            else:
                logs = torch.logaddexp(given[0] - losses, given[1])
                factor = (given[0] - losses - logs).exp()
                total -= logs.sum()
            parts.append(factor)
            scale = factor / sums
            if dtype == torch.float16:  # is subnormal below 6e-5: 1 / 35,000 and its products lose most digits
                d_states.append(((exps @ narrow) * scale - narrow[right] * factor).to(states.dtype))
                d_weight += _lifted_product(exps, part * scale)
                d_bias += _lifted_product(exps, scale).squeeze(1)
                continue
            scale = scale.to(dtype)
            d_states.append(((exps @ narrow) * scale - narrow[right] * factor.to(dtype)).to(states.dtype))
            d_weight += exps.t() @ (part * scale)
            d_bias += (exps.t() @ scale).squeeze(1)
        factor = torch.cat(parts)
        d_weight.index_add_(0, targets, -narrow_states.to(weight.dtype) * factor.to(weight.dtype))
        d_bias.index_add_(0, targets, -factor.squeeze(1).to(bias.dtype))
        ctx.save_for_backward(torch.cat(d_states), d_weight, d_bias, factor)
        ctx.mixed = rest is not None
        count = ctx.count = max(1, len(targets))  # the last columns of a stream may have come to their end
        part = factor.squeeze(1)
        ctx.mark_non_differentiable(part)
        return total / count, part

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        d_states, d_weight, d_bias, factor = ctx.saved_tensors
        scale = grads[0] / ctx.count
        gradients = d_states * scale, d_weight * scale, d_bias * scale
        if not ctx.mixed:
            return *gradients, None, None, None, None, None
        d_gate = -factor.squeeze(1) * scale
        return *gradients, None, None, None, d_gate, -scale - d_gate


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


def _parts(num_words: int, states: Tensor, *of_tokens: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield as many tokens at a time as keep the logits small; of sixteens products are up to twice as fast."""
    size = (CPU_ELEMENTS if states.device.type == "cpu" else GPU_ELEMENTS) // num_words
    size = max(1, size // 16 * 16 or size)
    yield from zip(*(torch.split(each, size) for each in (states, *of_tokens)), strict=True)
