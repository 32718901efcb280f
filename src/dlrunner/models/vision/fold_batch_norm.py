"""Batch norm folded into the convolution before it: the same function of a frozen net, in less time."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.fx import GraphModule, symbolic_trace
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norm(net: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode whose batch norms are part of the convolutions before them.

    A net that torch.fx cannot trace (its forward depends on its inputs) is copied as it is.
    """
    whole = copy.deepcopy(net).eval()
    try:
        graph = symbolic_trace(whole)
    except Exception:  # tracing fails in as many ways as a forward can be written
        return whole
    modules = dict(graph.named_modules())
    for node in list(graph.graph.nodes):
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d):
            continue
        before = node.args[0]
        convolution = modules.get(str(before.target)) if before.op == "call_module" else None
        if not isinstance(convolution, nn.Conv2d) or len(before.users) > 1:
            continue
        _replace(graph, str(before.target), fuse_conv_bn_eval(convolution, norm))
        node.replace_all_uses_with(before)
        graph.graph.erase_node(node)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph.to(memory_format=_format_of(net))  # type: ignore[call-overload,no-any-return]


def _replace(graph: GraphModule, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(graph.get_submodule(parent), last, module)


def _format_of(net: nn.Module) -> torch.memory_format:
    """Return the memory format of a net's convolutions."""
    weights = [each.weight for each in net.modules() if isinstance(each, nn.Conv2d) and each.weight.shape[1] > 1]
    wide = next((weight for weight in weights if weight.shape[2] > 1), None)
    is_last = wide is not None and wide.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if is_last else torch.contiguous_format
