"""Analysis of a trained tabular model on its validation rows: errors, importance and effect of columns, embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from dlrunner.data.core.input_columns import ROW
from dlrunner.data.core.regression import Regression
from dlrunner.files.atomic import atomic_file
from dlrunner.files.spreadsheet import as_csv
from dlrunner.metrics import Metric, leave_undefined
from dlrunner.model import Model, forward_pass
from dlrunner.models.packed_nets import PackedLayers
from dlrunner.models.tabular import EmbeddingNet
from dlrunner.plot import Plot
from dlrunner.prediction_table import with_distinct_names
from dlrunner.reporting.plots import regression, tabular
from dlrunner.task import Split
from dlrunner.tasks.classification import class_plots
from dlrunner.tasks.tabular.partial_dependence import DependenceTask, PartialDependence

PRODUCTS = 3 * 10**10
"""Multiplications of all passes for a plot: about a second. Large models are evaluated on fewer rows."""
FEWEST_SHUFFLED_ROWS, MOST_SHUFFLED_ROWS = 200, 2000
"""Validation rows for permutation importance."""
REPEATS = 3
MAX_CATEGORIES = 31
FEWEST_ROWS = 10
"""Of a category whose error is drawn: the error of fewer is mostly chance."""
ROUNDING = 1e-9
"""A change of the metric by less than this fraction of it is none."""
LEAST_IMPORTANCE = 0.01
"""A column matters from this fraction of the importance of the first one on."""
MOST_WORST, MOST_OWN = 50, 5
"""Rows with the largest errors that are shown, and columns that are shown with them."""
MOST_PANELS = 6
"""Columns whose partial dependence is drawn."""


class TableTask(DependenceTask, Protocol):
    """The part of a tabular task that the analysis uses."""

    correction: float
    error_by: list[str] | None
    embeddings: list[str] | None

    def tensors(self, split: Split) -> tuple[list[Tensor], Tensor]:
        """Return inputs and targets of a split, on the device."""
        ...

    def metrics(self) -> Mapping[str, Metric]:
        """Return fresh metrics; the first is the monitored one."""
        ...

    def date_of(self, column: str) -> str | None:
        """Return the column of dates that a column is a part of."""
        ...


class TableAnalysis:
    """Plots and tables of a finished run.

    Args:
        task: the task with its table.
        models: the trained models; importance and embeddings use the first one.
        outputs: of the validation rows, [rows] or [rows, outputs].
    """

    def __init__(self, task: TableTask, models: Sequence[Model], outputs: Tensor) -> None:
        self.task, self.models, self.outputs = task, models, outputs.detach().float().cpu()
        self.inputs, targets = task.tensors("valid")
        self.targets = targets.cpu()
        self.values = task.table.values[task.table.valid]
        self.metric, metric = next(iter(task.metrics().items()))
        self.higher_is_better = metric.higher_is_better

    def draw(self, folder: Path) -> list[Plot]:
        """Draw all plots that apply to this target and model."""
        drawn = self._predictions_plots(folder)
        if groups := self.groups:
            overall = self._error(self.outputs, self.targets)
            name = f"1 - {self.metric}" if self.higher_is_better else self.metric
            drawn.append(tabular.error_by(groups, folder, metric=name, overall=overall, fewest=FEWEST_ROWS))
        names, increases, stds = self.importance()
        matter = important(names, increases, stds)
        worst = self.worst(matter[:MOST_OWN])
        if worst is not None:
            with atomic_file(folder.parent / "largest_errors.csv", sync=False) as file:
                file.write(as_csv(worst)[0])
            drawn.append(tabular.largest_errors(worst.head(15), folder))
        rows = (self.rows_of_passes(REPEATS * len(names), MOST_SHUFFLED_ROWS), len(self.targets))
        base = self.task.preparation.base
        drawn.append(tabular.importance(names, increases, stds, folder, metric=self.metric, rows=rows, base=base))
        best = [names[int(np.argmax(increases))]] if np.max(increases, initial=0.0) > 0 else []
        most = [name for name in matter or best if name != base][:MOST_PANELS]
        if most and (self.task.target.classes or isinstance(self.task.target, Regression)):
            drawn.append(PartialDependence(self).draw(most, folder))
        if tables := self.embeddings(matter):
            drawn.append(tabular.embeddings(tables, folder))
        return drawn

    def worst(self, own: Sequence[str] = ()) -> pd.DataFrame | None:
        """Return the validation rows with the largest errors; relative errors if all targets are positive.

        Args:
            own: columns to show besides the id.
        """
        task, target = self.task, self.task.target
        if not (target.has_one_class or isinstance(target, Regression)):
            return None
        context = [*(task.table.ids.columns if task.table.ids is not None else [])]
        chosen = [*(self.task.error_by or ()), *own] or [name for name, *_ in self.groups]
        chosen = [task.date_of(name) or name for name in chosen]  # the date as it is in the file, not its parts
        context += [name for name in dict.fromkeys(chosen) if name in task.table.frame and name not in context]
        if isinstance(target, Regression):
            predicted = task.decode(self.outputs).numpy()
            relative = bool((self.values > 0).all())
            errors = predicted / self.values - 1 if relative else predicted - self.values
            shown = {"truth": self.values, "prediction": predicted, "relative error" if relative else "error": errors}
        else:
            probs = _probabilities(self.outputs)
            labels = np.array(target.classes, dtype=object)
            predicted = probs.argmax(axis=1)
            rows = np.arange(len(predicted))
            errors = np.where(predicted != self.values, probs[rows, predicted], 0.0)
            shown = {"truth": labels[self.values.astype(int)], "prediction": labels[predicted], "error": errors}
        order = np.argsort(-np.abs(errors), kind="stable")[:MOST_WORST]
        order = order[np.abs(errors[order]) > 0]
        errors_of = pd.DataFrame({name: values[order] for name, values in shown.items()})
        return with_distinct_names(pd.concat([self._context(context, order), errors_of], axis=1))

    def importance(self) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
        """Return the permutation importance of the columns: names, mean and std of the increase of the error.

        Source: Breiman, Random forests, 2001, https://doi.org/10.1023/A:1010933404324.
        """
        random = np.random.default_rng(0)
        inputs_of_columns = self.inputs_of_columns()
        count = self.rows_of_passes(REPEATS * len(inputs_of_columns), MOST_SHUFFLED_ROWS)
        rows = torch.from_numpy(np.sort(random.choice(len(self.targets), count, replace=False)))
        codes, numbers = (each[rows.to(each.device)] for each in self.inputs)
        targets = self.targets[rows]
        base = self._error(self.predict(codes, numbers), targets)
        names, increases = [], []
        for name, columns_of in inputs_of_columns.items():
            differences = []
            for _ in range(REPEATS):
                order = torch.from_numpy(random.permutation(len(rows))).to(codes.device)
                shuffled = [codes, numbers]
                for which, columns in columns_of:
                    shuffled[which] = shuffled[which].clone()
                    shuffled[which][:, columns] = shuffled[which][order][:, columns]
                differences.append(self._error(self.predict(*shuffled), targets) - base)
            names.append(name)
            increases.append(differences)
        array = np.array(increases, dtype=np.float64)
        array[np.abs(array) <= ROUNDING * abs(base)] = 0.0
        return names, array.mean(axis=1), array.std(axis=1)

    def inputs_of_columns(self) -> dict[str, list[tuple[int, list[int]]]]:
        """Return where each column of the table is among the inputs: in codes (0) or numbers (1), and which.

        The base of the outputs is one of them.
        """
        preparation = self.task.preparation
        found = {name: [(0, [index])] for index, name in enumerate(preparation.categories)}
        for index, name in enumerate(preparation.means):
            flags = [len(preparation.means) + preparation.flagged.index(name)] if name in preparation.flagged else []
            found.setdefault(name, []).append((1, [index, *flags]))
        if preparation.base is not None:
            found[preparation.base] = [(1, [len(preparation.continuous)])]
        return found

    def rows_of_passes(self, passes: int, most: int) -> int:
        """Return the number of validation rows that so many passes through the model can afford, at most `most`."""
        affordable = PRODUCTS // max(1, passes * products_of_a_row(self.models[0]))
        return min(len(self.targets), most, max(FEWEST_SHUFFLED_ROWS, affordable))

    def embeddings(self, matter: Sequence[str]) -> list[tuple[str, list[str], NDArray[np.float64]]]:
        """Return names, categories and vectors of the columns to plot, without missing and unseen values.

        Args:
            matter: the important columns, from which those to plot are chosen unless the task names them.
        """
        model = self.models[0]
        if not isinstance(model, EmbeddingNet):
            return []
        categories = self.task.preparation.categories
        selected = self.task.embeddings
        if selected is None:
            selected = [n for n in matter if n in categories and 4 <= len(categories[n]) <= 60][:4]
        return [
            (
                name,
                [self.task.category_name(name, category) for category in categories[name]],
                _array(model.embeddings.of(name))[1:],
            )
            for name in selected
            if name in categories and len(categories[name]) > 1
        ]

    def _predictions_plots(self, folder: Path) -> list[Plot]:
        target = self.task.target
        if not isinstance(target, Regression):
            return class_plots(target, self.values, self.outputs, folder)
        predicted, name = self.task.decode(self.outputs).numpy(), target.names[0]
        log = target.transform == "log"
        drawn = [
            regression.predictions(self.values, predicted, folder, name=name, log=log),
            regression.residuals(self.values, predicted, folder, name=name),
        ]
        if target.quantiles:
            quantiles = (target.decode_quantiles(self.outputs) * self.task.correction).numpy()
            drawn.append(regression.intervals(self.values, quantiles, target.quantiles, folder, name=name))
        return drawn

    @cached_property
    def groups(self) -> list[tuple[str, list[str], NDArray[np.float64], NDArray[np.int64]]]:
        """The error by category of some columns, with the row counts."""
        table = self.task.table
        named = self.task.error_by
        groups = []
        for name in table.roles.categorical if named is None else named:
            if name not in table.frame.columns:
                continue
            column = self.column(name)
            if named is None and not 2 <= column.nunique() <= MAX_CATEGORIES:
                continue
            codes, categories = pd.factorize(column, sort=True)
            rows = [np.flatnonzero(codes == code) for code in range(len(categories))]
            errors = np.array([self._error(self.outputs[each], self.targets[each], True) for each in rows])
            labels = [self.task.category_name(name, category) for category in categories]
            groups.append((name, labels, errors, np.array([len(each) for each in rows])))
        if named is None:
            groups = [group for group in groups if (group[3] >= FEWEST_ROWS).sum() > 1] or groups
            groups = sorted(groups, key=lambda group: -_weighted_std(group[2], group[3]))[:3]
        return groups

    def column(self, name: str) -> pd.Series[Any]:
        """Return a column of the validation rows; one at a time, since a copy of all may not fit in memory."""
        table = self.task.table
        column: pd.Series[Any] = table.frame[name][table.valid].reset_index(drop=True)
        if isinstance(column.dtype, pd.CategoricalDtype):
            return column.astype(column.dtype.categories.dtype)
        return column

    def _context(self, names: Sequence[str], rows: NDArray[np.int64]) -> pd.DataFrame:
        """Return columns of some of the validation rows."""
        table = self.task.table
        ids = pd.DataFrame() if table.ids is None else table.ids
        if not names:
            numbers = table.rows.only(table.valid).numbers(int(table.valid.sum()))
            return pd.DataFrame({ROW: [numbers[row] for row in rows]})
        rows = np.flatnonzero(table.valid)[rows]
        columns = {
            name: (ids if name in ids else table.frame)[name].iloc[rows].reset_index(drop=True) for name in names
        }
        found = pd.DataFrame(columns)
        for name in found:
            if pd.api.types.is_datetime64_any_dtype(found[name]):
                has_times = bool((found[name] != found[name].dt.normalize()).any())
                found[name] = found[name].dt.strftime("%Y-%m-%d %H:%M" if has_times else "%Y-%m-%d")
            elif name in table.roles.categorical:
                found[name] = [
                    None if pd.isna(each) else self.task.category_name(str(name), each) for each in found[name]
                ]
        return found

    def _error(self, outputs: Tensor, targets: Tensor, is_group: bool = False) -> float:
        """Return the monitored metric as an error, lower is better; NaN for a group of rows that does not define it."""
        metric = self.task.metrics()[self.metric]
        if is_group:
            leave_undefined(metric)
        metric.update(outputs, targets)
        return 1 - metric.compute() if self.higher_is_better else metric.compute()

    @torch.inference_mode()
    def predict(self, codes: Tensor, numbers: Tensor) -> Tensor:
        """Return the outputs of the first model for inputs, on the CPU."""
        return forward_pass(self.models[0].eval(), codes, numbers).outputs.float().cpu()


def important(names: Sequence[str], increases: NDArray[np.float64], stds: NDArray[np.float64]) -> list[str]:
    """Return the columns whose shuffling makes predictions clearly worse, the most important first.

    >>> important(["a", "b", "c", "d"], np.array([0.1, 2.0, 0.01, -1.0]), np.array([0.01, 0.3, 0.02, 0.1]))
    ['b', 'a']
    """
    least = LEAST_IMPORTANCE * np.max(increases, initial=0.0)
    order = np.argsort(-increases, kind="stable")
    return [names[i] for i in order if increases[i] > max(least, 2 * stds[i])]


def products_of_a_row(model: Model) -> int:
    """Return about how many multiplications one row takes: each weight once, without embeddings, which are selected.

    A count and not a time, so that the same rows are chosen on every machine.
    """
    packed = {id(each.weight): len(each.signs) for each in model.modules() if isinstance(each, PackedLayers)}
    selected = {id(each.weight) for each in model.modules() if isinstance(each, nn.Embedding)}
    return sum(w.numel() * packed.get(id(w), 1) for w in model.parameters() if id(w) not in selected)


def _probabilities(outputs: Tensor) -> NDArray[np.float64]:
    """Return probabilities of shape [rows, classes], also for two classes."""
    if outputs.ndim == 1:
        probability = outputs.double().sigmoid()
        return _array(torch.stack([1 - probability, probability], dim=1))
    return _array(outputs.double().softmax(dim=1))


def _array(tensor: Tensor) -> NDArray[Any]:
    return np.asarray(tensor.detach().float().cpu().numpy(), dtype=np.float64)


def _weighted_std(errors: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    """Return the standard deviation of the errors by category that are known, weighted by row counts."""
    known = np.isfinite(errors)
    if not known.any():
        return 0.0
    errors, counts = errors[known], counts[known]
    mean = np.average(errors, weights=counts)
    return float(np.sqrt(np.average((errors - mean) ** 2, weights=counts)))
