"""Batches of texts: one long stream in columns, or whole texts of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dlrunner.data.core.batching import batch_sizes, epoch_order
from dlrunner.system.transfer import to_device
from dlrunner.task import Batch

PAD = 1
"""The word that stands where there is none."""


def stream_of(codes: NDArray[np.int32], ends: NDArray[np.int64], rows: NDArray[np.int64], end: int) -> Tensor:
    """Return documents one after the other, each followed by the mark of its end, int32 [words].

    >>> stream_of(np.array([5, 6, 7], dtype=np.int32), np.array([2, 3]), np.array([1, 0]), end=2)
    tensor([7, 2, 5, 6, 2], dtype=torch.int32)
    """
    lengths = np.diff(ends, prepend=0)[rows]
    stops = np.cumsum(lengths + 1)
    stream = np.full(int(stops[-1]), end, dtype=np.int32)
    starts = ends[rows] - lengths
    # Where each word of the stream stands in `codes`: its place in the stream, moved by its document's distance.
    moved = np.repeat(starts - (stops - lengths - 1), lengths)
    places = np.delete(np.arange(len(stream)), stops - 1)
    stream[places] = codes[places + moved]
    return torch.from_numpy(stream)


def piece_lengths(num_steps: int, bptt: int, vary: bool, seed: int, epoch: int) -> list[int]:
    """Return the lengths of the pieces that steps are cut into.

    Varied, they are drawn from a normal distribution around bptt (around half of it one time in twenty) with
    deviation 5, at least 5: as in AWD-LSTM's code and the lesson's library. So an epoch's pieces begin elsewhere
    than those of the one before.
    """
    random = np.random.default_rng([seed, epoch])
    lengths: list[int] = []
    left = num_steps
    while left > 0:
        centre = bptt if not vary or random.random() < 0.95 else bptt / 2
        length = max(5, int(random.normal(centre, 5))) if vary else bptt
        lengths.append(min(length, left))
        left -= length
    return lengths


class StreamLoader:
    """A stream in columns, read in parallel in pieces: every word but the first is predicted from those before.

    A column's last target is the first word of the next column. Where the stream does not fill the last columns,
    there is nothing to tell at their ends: -1 in the second input, and a third one says where the others stand in it.

    Args:
        stream: words, int32 [words].
        num_columns: texts that are read in parallel.
        lengths: of the pieces (see `piece_lengths`); they add up to `num_steps(stream, num_columns)`.
        full: the learning rate is scaled by length / full; None leaves it.
        start: the first piece that is yielded.
    """

    def __init__(
        self, stream: Tensor, num_columns: int, lengths: Sequence[int], full: int | None = None, start: int = 0
    ) -> None:
        self.stream, self.num_columns, self.lengths, self.full, self.start = stream, num_columns, lengths, full, start

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[Batch]:
        steps = num_steps(self.stream, self.num_columns)
        padded = self.stream.new_full((steps * self.num_columns + 1,), -1)
        padded[: len(self.stream)] = self.stream
        following = padded[1:].view(self.num_columns, steps).t().contiguous()
        words = padded[:-1].view(self.num_columns, steps).t().clamp(min=0).contiguous()
        place = sum(self.lengths[: self.start])
        for length in self.lengths[self.start :]:
            piece = following[place : place + length]
            inputs: tuple[Tensor, ...] = (words[place : place + length], piece)
            targets = piece.reshape(-1)
            if (known := self._known(place, length, steps)) is not None:
                places = to_device(known, piece.device)
                inputs, targets = (*inputs, places), targets[places]
            yield Batch(inputs, targets, 1.0 if self.full is None else length / self.full)
            place += length

    def _known(self, place: int, length: int, steps: int) -> Tensor | None:
        """Return where the next words of a piece are known, as places in it; None: everywhere.

        It is computed on the CPU: to ask the stream for it, a GPU would have to be waited for.
        """
        column, step = torch.arange(self.num_columns), torch.arange(place, place + length)
        if (self.num_columns - 1) * steps + place + length < len(self.stream):
            return None
        return (column * steps + step[:, None] + 1 < len(self.stream)).flatten().nonzero().flatten()


def num_steps(stream: Tensor, num_columns: int) -> int:
    """Return the steps in which a stream is read in so many columns.

    >>> num_steps(torch.arange(11), 5), num_steps(torch.arange(12), 5)
    (2, 3)
    """
    return -(-(len(stream) - 1) // num_columns)


def places_in_stream(length: int, num_columns: int) -> NDArray[np.int64]:
    """Return which word but the first each output for a stream in columns belongs to, in the order of the batches.

    >>> places_in_stream(8, 3)
    array([0, 3, 6, 1, 4, 2, 5])
    """
    steps = -(-(length - 1) // num_columns)
    places = np.arange(steps * num_columns).reshape(num_columns, steps).T.reshape(-1)
    return places[places < length - 1]


def similar_lengths(lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Return batches of training texts of similar length, in an order that is a function of (seed, epoch).

    A random order is cut into parts of fifty batches; each part is sorted by length and cut into batches (see
    `batch_sizes`), and the batches are shuffled.
    """
    order = epoch_order(len(lengths), seed, epoch).numpy()
    batches: list[NDArray[np.int64]] = []
    for part in np.array_split(order, max(1, -(-len(order) // (50 * batch_size)))):
        by_length = part[np.argsort(-lengths[part], kind="stable")]
        batches += np.split(by_length, np.cumsum(batch_sizes(len(part), batch_size))[:-1])
    shuffled = epoch_order(len(batches), seed + 1, epoch).tolist()
    return [batches[place] for place in shuffled]


class TextLoader:
    """Whole texts in batches, padded at their ends.

    Args:
        codes: words of all documents, int32 on the device.
        ends: where each document ends in `codes`.
        targets: of all documents, on the device.
        batches: the documents of each batch.
        start: the first batch that is yielded.
    """

    def __init__(
        self,
        codes: Tensor,
        ends: NDArray[np.int64],
        targets: Tensor,
        batches: Sequence[NDArray[np.int64]],
        start: int = 0,
    ) -> None:
        self.codes, self.ends, self.targets, self.batches, self.start = codes, ends, targets, batches, start

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        batches = self.batches[self.start :]
        if not batches:
            return
        lengths, device = np.diff(self.ends, prepend=0), self.codes.device
        rows = np.concatenate(batches)
        numbers = to_device(torch.from_numpy(np.stack([rows, self.ends[rows] - lengths[rows], lengths[rows]])), device)
        for batch, (row, starts, counts) in zip(
            batches, torch.split(numbers, [len(each) for each in batches], 1), strict=True
        ):
            yield padded(self.codes, starts, counts, max(1, int(lengths[batch].max())), self.targets[row])


def padded(codes: Tensor, starts: Tensor, lengths: Tensor, steps: int, targets: Tensor) -> Batch:
    """Return texts as a batch of words [batch, steps] and lengths [batch]; a text without words is one PAD.

    Args:
        codes: where the texts stand.
        starts, lengths: of each text in `codes`, on its device.
        steps: the largest length, at least 1.
        targets: of each text.
    """
    places = torch.arange(steps, device=codes.device)
    inside = places < lengths[:, None]
    places = starts[:, None] + places
    words = codes[places.clamp(max=max(0, len(codes) - 1))] if len(codes) else places.int()
    return Batch((words.masked_fill(~inside, PAD), lengths.clamp(min=1)), targets)
