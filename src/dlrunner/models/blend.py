"""Nets of different columns and sizes, trained at once, whose predictions are averaged.

Nets of one kind make much the same errors; nets that see different columns do not, and their mean gains more.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Annotated, Any, ClassVar

import torch
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from torch import Tensor, nn

from dlrunner.errors import ConfigError, did_you_mean
from dlrunner.model import Model
from dlrunner.models.tabular import EmbeddingNet
from dlrunner.models.tabular_layers import OutputRange, TabularDims
from dlrunner.ranges import Text

OWN = {"exclude": list[Text], "base": bool}
"""Settings of a net in addition to those of `EmbeddingNet`."""


class Blend(Model):
    """Several nets on the same batches, each with its own loss; in evaluation mode the mean of their outputs.

    Args:
        dims: sizes from the data.
        nets: settings of each `EmbeddingNet`; `exclude` has patterns of columns that it does not get (`history_*`), and
            with `base: false` its outputs are not added to the base of `data.history`.
        y_range: of the nets whose outputs have no base, unless they have one of their own (see `EmbeddingNet`).
    """

    group_names: ClassVar[tuple[str, ...]] = ("embeddings", "layers")

    def __init__(
        self,
        dims: TabularDims,
        *,
        nets: Annotated[list[dict[str, Any]], Field(min_length=2)],
        y_range: OutputRange | None = None,
    ) -> None:
        super().__init__()
        assert dims.target is not None
        self.target = dims.target
        self.nets = nn.ModuleList()
        for index, settings in enumerate(nets):
            exclude, has_base = settings.get("exclude", []), dims.has_base and settings.get("base", True)
            if settings.get("base") is False and not dims.has_base:
                raise ConfigError(f"model.nets[{index}].base: there is no base to leave out (data.history.base)")
            columns = [*dims.cardinalities, *dims.continuous]
            for pattern in exclude:
                if not any(fnmatchcase(name, pattern) for name in columns):
                    raise ConfigError(f"model.nets[{index}].exclude: no column is called {pattern}")
            categories, numbers = (
                [place for place, name in enumerate(names) if not any(fnmatchcase(name, each) for each in exclude)]
                for names in (dims.cardinalities, dims.continuous)
            )
            if not categories and not numbers:
                raise ConfigError(f"model.nets[{index}].exclude: {', '.join(exclude)} leaves no column")
            own = _of_columns(dims, categories, numbers, has_base)
            if has_base:
                numbers = [*numbers, dims.num_continuous]
            self.register_buffer(f"categories{index}", torch.tensor(categories, dtype=torch.int64), persistent=False)
            self.register_buffer(f"numbers{index}", torch.tensor(numbers, dtype=torch.int64), persistent=False)
            usual = {"y_range": None if has_base else y_range}
            given = {name: settings[name] for name in settings if name not in OWN}
            self.nets.append(EmbeddingNet(own, **{**usual, **given}))

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """The settings of each net are those of `EmbeddingNet`."""
        signature = inspect.signature(EmbeddingNet).parameters
        hints = {**typing.get_type_hints(EmbeddingNet.__init__, include_extras=True), **OWN}
        known = [*(name for name in signature if name != "dims"), *OWN]
        for index, net in enumerate(settings["nets"]):
            for name, value in net.items():
                place = f"model.nets[{index}].{name}"
                if name not in known:
                    raise ValueError(f"{place}: unknown setting; {did_you_mean(name, known)}")
                try:
                    TypeAdapter(hints[name], config=ConfigDict(strict=True)).validate_python(value)
                except ValidationError as error:
                    message = error.errors()[0]["msg"].removeprefix("Input should be ").replace("a valid ", "a ")
                    raise ValueError(f"{place}: must be {message}, not {value!r}") from None
            if net.get("num_nets", 1) not in (1, "auto"):
                raise ValueError(f"model.nets[{index}].num_nets: must be 1: each net of a blend is one")
            defaults = {name: parameter.default for name, parameter in signature.items() if name != "dims"}
            EmbeddingNet.check({**defaults, **net})

    def forward(self, codes: Tensor, numbers: Tensor) -> Tensor:
        """Return the nets' outputs, [nets, rows] or [nets, rows, outputs]; in evaluation mode their average.

        Args:
            codes: categories, shape [rows, categorical columns].
            numbers: standardised, shape [rows, continuous columns], and the base (see `TabularDims`).
        """
        outputs = [
            net(
                codes.index_select(1, self.get_buffer(f"categories{index}")),
                numbers.index_select(1, self.get_buffer(f"numbers{index}")),
            )
            for index, net in enumerate(self.nets)
        ]
        return torch.stack(outputs) if self.training else self.target.average(outputs)

    def layer_groups(self) -> Sequence[nn.Module]:
        """Embeddings of all nets, then their layers."""
        groups = [typing.cast(EmbeddingNet, net).layer_groups() for net in self.nets]
        return [nn.ModuleList(each) for each in zip(*groups, strict=True)]


def _of_columns(dims: TabularDims, categories: Sequence[int], numbers: Sequence[int], has_base: bool) -> TabularDims:
    """Return the sizes of some columns."""
    cardinalities = list(dims.cardinalities.items())
    return replace(
        dims,
        cardinalities=dict(cardinalities[place] for place in categories),
        num_continuous=len(numbers),
        continuous=[dims.continuous[place] for place in numbers],
        quantiles=[dims.quantiles[place] for place in numbers] if dims.quantiles else (),
        has_base=has_base,
    )
