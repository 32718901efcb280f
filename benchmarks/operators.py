"""The operators of a piece of work, recorded as torch dispatches them, and what each costs this machine at least.

Matrix products and convolutions are timed alone, at the very shapes, strides and dtypes of the work. Every other
operator is charged the time that this machine needs to copy as many bytes as the operator must read and write. What is
not charged: Python, autograd, drawing random numbers, transcendental functions, and views.
"""

from __future__ import annotations

import bisect
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

RECURRENT = ("mkldnn_rnn_layer", "mkldnn_rnn_layer_backward")
MATRIX = ("mm", "addmm")
PRODUCTS = (*MATRIX, "bmm", "baddbmm", "convolution", "convolution_backward", *RECURRENT)
"""Names of operators that multiply matrices."""
PARTS = ("products", "optimizer", "embeddings", "other operators", "launches")
WRITES = ("zero_", "fill_", "copy_", "bernoulli_", "uniform_", "normal_", "random_")
"""In-place operators that do not read what they overwrite."""
LEAST_SECONDS, MOST_CALLS = 0.01, 200
SIZES = [1 << exponent for exponent in range(8, 28)]
"""Bytes moved by the copies that are timed."""


@dataclass(frozen=True)
class Layout:
    """What a tensor is like; its values do not matter."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype

    @staticmethod
    def of(tensor: Tensor) -> Layout:
        """Return the layout of a tensor."""
        strides = tuple(tensor.stride()) if tensor.layout == torch.strided else ()
        return Layout(tuple(tensor.shape), strides, tensor.dtype)

    @property
    def num_bytes(self) -> int:
        """Bytes of the distinct elements: those of an expanded dimension count once."""
        strides = self.strides or (1,) * len(self.shape)
        return math.prod(n for n, s in zip(self.shape, strides, strict=True) if s) * self.dtype.itemsize

    def make(self) -> Tensor:
        """Return a tensor of this layout."""
        if not self.strides:  # of oneDNN's own
            return torch.zeros(self.shape, dtype=self.dtype).to_mkldnn()
        size = 1 + sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
        memory = torch.zeros(max(size, 0), dtype=self.dtype)  # normal values, since denormal ones are slow
        return (memory.normal_() if self.dtype.is_floating_point else memory).as_strided(self.shape, self.strides)


@dataclass(frozen=True)
class Operator:
    """An operator with the layouts of its arguments and results."""

    function: Any
    arguments: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...]
    results: tuple[Layout, ...]

    @property
    def name(self) -> str:
        """Its name without the namespace and the overload."""
        return str(self.function._schema.name).partition("::")[2]

    @property
    def is_view(self) -> bool:
        """Whether its result shares the memory of an argument, which it does not change: no kernel runs."""
        returned = [each.alias_info for each in self.function._schema.returns]
        return any(each is not None and not each.is_write for each in returned)

    @property
    def part(self) -> str:
        """Which part of the ceiling it belongs to."""
        name = self.name.lstrip("_")
        if name in PRODUCTS:
            return "products"
        if name.startswith(("fused_", "foreach_")):
            return "optimizer"
        return "embeddings" if name.startswith("embedding") else "other operators"

    @cached_property
    def num_bytes(self) -> int:
        """Bytes that it must read and write."""
        name, written = self.name, 0
        arguments = dict(zip([each.name for each in self.function._schema.arguments], self.arguments, strict=False))
        arguments |= dict(self.keywords)
        results = sum(each.num_bytes for each in self.results)
        if name in ("embedding", "index", "index_select", "gather"):  # of the table only the chosen rows are read
            table = next(iter(arguments))
            return 2 * results + _bytes_of([v for k, v in arguments.items() if k != table])
        for each in self.function._schema.arguments:
            if each.alias_info is not None and each.alias_info.is_write and each.name not in ("grads", "out"):
                factor = 0 if name in WRITES else 1  # read too
                written += factor * _bytes_of(arguments.get(each.name))
        changed = any(each.alias_info is not None for each in self.function._schema.returns)
        return _bytes_of(list(arguments.values())) + written + (0 if changed else results)

    def products(self) -> list[tuple[int, list[Callable[[], Any]]]]:
        """Return the products that it consists of: how many, and functions of which each computes one.

        Of a recurrent layer these are the inputs of all steps at once, and for each step the state: what the gates do
        to the results costs nothing.
        """
        if self.name in MATRIX:
            left, right = self.arguments[-2:] if self.name == "mm" else self.arguments[1:3]
            return [(1, [self.caller(), *_ways(left.shape[0], right.shape[0], right.shape[1], left.dtype)[1:]])]
        if self.name not in RECURRENT:
            return [(1, [self.caller()])]
        (steps, batch, width), dtype = self.arguments[0].shape, self.arguments[0].dtype
        gates, hidden = self.arguments[2].shape
        shapes = [(1, steps * batch, width, gates), (steps, batch, hidden, gates)]
        if self.name.endswith("backward"):
            of_weights = [(1, gates, steps * batch, width), (1, gates, steps * batch, hidden)]
            shapes = [(1, steps * batch, gates, width), (steps, batch, gates, hidden), *of_weights]
        return [(count, _ways(rows, inner, columns, dtype)) for count, rows, inner, columns in shapes]

    def caller(self) -> Callable[[], Any]:
        """Return a function that calls it with new tensors of the same layouts."""
        arguments, keywords = (_map_layouts(each, Layout.make) for each in (self.arguments, dict(self.keywords)))
        return lambda: self.function(*arguments, **keywords)


def _ways(rows: int, inner: int, columns: int, dtype: torch.dtype) -> list[Callable[[], Any]]:
    """Return functions that compute a product: torch's, and, if there is one, oneDNN's.

    In float32 torch always calls MKL, which on a processor of AMD is half as fast.
    """
    left, right = torch.randn(rows, inner).to(dtype), torch.randn(inner, columns).to(dtype)
    ways: list[Callable[[], Any]] = [partial(torch.mm, left, right)]
    if torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        weights = right.t().contiguous()
        ways.append(partial(torch.ops.mkldnn._linear_pointwise, left, weights, None, "none", [], ""))
    return ways


def _map_layouts(value: Any, function: Callable[[Layout], Any]) -> Any:
    return tree_map(lambda each: function(each) if isinstance(each, Layout) else each, value)


def _bytes_of(value: Any) -> int:
    if isinstance(value, Layout):
        return value.num_bytes
    return sum(map(_bytes_of, value)) if isinstance(value, list | tuple) else 0


def _frozen(value: Any) -> Any:
    """Return arguments in a form that can be a key, tensors as layouts."""
    if isinstance(value, Tensor):
        return Layout.of(value)
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def _without_number(value: Any) -> Any:
    return None if isinstance(value, float) else value


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators that are dispatched while it is entered, those of the backward pass included.

    Not in inference mode, which dispatches some operators as a whole, before autocast.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: Counter[Operator] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the operator and count it."""
        keywords = kwargs or {}
        results = func(*args, **keywords)
        made = results if isinstance(results, list | tuple) else [results]
        layouts = tuple(Layout.of(each) for each in made if isinstance(each, Tensor))
        found = Operator(func, _frozen(args), tuple((k, _frozen(v)) for k, v in keywords.items()), layouts)
        if found.part != "products":  # which are called again, with the same numbers; others differ by learning rate
            given, named = tree_map(_without_number, (found.arguments, found.keywords))
            found = Operator(func, given, named, layouts)
        self.counts[found] += 1
        return results


@dataclass
class Machine:
    """What this machine needs for operators, with one thread or all of them, whichever is faster."""

    threads: int
    clock: Callable[[], float] = time.perf_counter
    copies: list[float] = field(default_factory=list)
    """Seconds of a copy for each of `SIZES`."""

    def measure(self) -> None:
        """Time copies of all sizes."""
        self.copies = []
        for size in SIZES:
            source = torch.ones(size // 8)
            self.copies.append(self.seconds(partial(torch.empty_like(source).copy_, source)))

    def seconds(self, call: Callable[[], Any]) -> float:
        """Return the median seconds of a call, with the better number of threads."""
        before = torch.get_num_threads()
        found: list[float] = []
        for count in {1, self.threads}:
            torch.set_num_threads(count)
            found.append(_median_of(call, self.clock))
        torch.set_num_threads(before)
        return min(found)

    def seconds_to_move(self, num_bytes: int) -> float:
        """Return the seconds of a copy that reads and writes so many bytes, between those that were timed."""
        place = bisect.bisect_left(SIZES, num_bytes)
        if place == 0:
            return self.copies[0]
        if place == len(SIZES):
            return self.copies[-1] * (num_bytes / SIZES[-1])
        low, high = SIZES[place - 1], SIZES[place]
        weight = (num_bytes - low) / (high - low)
        return self.copies[place - 1] * (1 - weight) + self.copies[place] * weight

    @property
    def launch(self) -> float:
        """Seconds of the smallest copy."""
        return self.copies[0]


def _median_of(call: Callable[[], Any], clock: Callable[[], float]) -> float:
    with torch.no_grad():
        call()
        seconds: list[float] = []
        while len(seconds) < 3 or (sum(seconds) < LEAST_SECONDS and len(seconds) < MOST_CALLS):
            started = clock()
            call()
            seconds.append(clock() - started)
    return statistics.median(seconds)


def ceiling(counts: Mapping[Operator, int], machine: Machine) -> dict[str, float]:
    """Return the least seconds that this machine needs for operators, by part."""
    found: dict[str, float] = dict.fromkeys(PARTS, 0.0)
    for operator, count in counts.items():
        if operator.is_view:
            continue
        if operator.part == "products":
            for number, ways in operator.products():
                found["products"] += count * number * min(map(machine.seconds, ways))
        else:
            moved = machine.seconds_to_move(operator.num_bytes)
            found["launches"] += count * machine.launch
            found[operator.part] += count * max(0.0, moved - machine.launch)
    return found
