"""Requests that arrive together are predicted together; those that wait are limited in number."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pandas as pd

Predict = Callable[[Sequence[pd.DataFrame]], list[pd.DataFrame]]


class FullQueueError(Exception):
    """As many requests are waiting as may."""


@dataclass(frozen=True)
class _Waiting:
    rows: pd.DataFrame
    answer: asyncio.Future[pd.DataFrame] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Batcher:
    """Predicts requests in one thread: those that wait when it becomes free, and those of the next moment, at once.

    Args:
        predict: returns the answer to each of several requests.
        max_rows: of the requests that are predicted at once, beyond the first.
        max_waiting: requests.
        wait: seconds to wait for further requests.
    """

    def __init__(self, predict: Predict, max_rows: int, max_waiting: int, wait: float) -> None:
        self._predict, self._max_rows, self._max_waiting, self._wait = predict, max_rows, max_waiting, wait
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self.num_waiting = 0
        """Requests without an answer, those that are being predicted among them."""

    async def answer(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the predictions of a request.

        Raises:
            FullQueueError: too many are waiting.
        """
        if self.num_waiting >= self._max_waiting:
            raise FullQueueError
        self.num_waiting += 1
        try:
            waiting = _Waiting(rows)
            self._queue.put_nowait(waiting)
            return await waiting.answer
        finally:
            self.num_waiting -= 1

    async def run(self) -> None:
        """Predict what is waiting, until this task is cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="predict") as thread:
            left: list[_Waiting] = []
            while True:
                batch = left or [await self._queue.get()]
                left = await self._fill(batch)
                batch = [each for each in batch if not each.answer.cancelled()]
                if batch:
                    found = await loop.run_in_executor(thread, self._answers, [each.rows for each in batch])
                    for each, answer in zip(batch, found, strict=True):
                        if each.answer.cancelled():
                            continue
                        if isinstance(answer, Exception):
                            each.answer.set_exception(answer)
                        else:
                            each.answer.set_result(answer)

    async def _fill(self, batch: list[_Waiting]) -> list[_Waiting]:
        """Add requests to a batch, and return one that is too large for it."""
        if self._queue.empty():
            await asyncio.sleep(self._wait)
        num_rows = sum(len(each.rows) for each in batch)
        while not self._queue.empty():
            following = self._queue.get_nowait()
            num_rows += len(following.rows)
            if num_rows > self._max_rows:
                return [following]
            batch.append(following)
        return []

    def _answers(self, requests: Sequence[pd.DataFrame]) -> Sequence[pd.DataFrame | Exception]:
        """Return the answer to each request, or its error; an error of several is that of one of them."""
        try:
            return self._predict(requests)
        except Exception as error:
            if len(requests) == 1:
                return [error]
            return [self._answers([rows])[0] for rows in requests]
