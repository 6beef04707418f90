"""The feed of a training: its batches, fetched ahead of time for a GPU, and how long they are waited for."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from mtlrun.datasets import Loaded
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.progress import Progress

#: A batch and, if the method looks ahead, one more.
Pair = tuple[Loaded, Loaded | None]
LabeledPair = tuple[LabeledBatch, LabeledBatch | None]


@dataclass(frozen=True)
class _Fetched:
    """What was fetched ahead of time: a pair of batches, None at the end of an epoch, or why there is none."""

    pair: LabeledPair | None = None
    copied: torch.cuda.Event | None = None
    error: Exception | None = None


class Feed:
    """The batches of a training, in the order of its loaders, on its device.

    For a GPU, `fetch_ahead` fetches the next one and queues its copy, on a stream of its own, while the GPU works on
    the present one. The batches are the same, and so is what an error leaves behind: it is raised in place of its
    batch.

    Args:
        device: of the training.
        load: copies a batch to it.
        progress: its `waiting` counts the seconds in which batches were waited for. What is fetched while a GPU
            computes does not count, unless the GPU has meanwhile run out of work.
    """

    def __init__(self, device: torch.device, load: Callable[[Loaded], LabeledBatch], progress: Progress) -> None:
        self._device, self._load, self._progress = device, load, progress
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._source: Iterator[Pair] = iter(())
        self._ahead: _Fetched | None = None

    def pairs(self, source: Iterator[Pair]) -> Iterator[LabeledPair]:
        """Yield the batches of `source`, which takes the place of what was fed before."""
        self._source, self._ahead = source, None
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        while (pair := self._next()) is not None:
            yield pair

    def fetch_ahead(self) -> None:
        """Fetch the next batch, if there is a GPU that works meanwhile."""
        if self._stream is not None and self._ahead is None:
            self._ahead = self._fetch(self._stream)

    def _next(self) -> LabeledPair | None:
        start = time.perf_counter()
        if self._stream is None:
            pair = next(self._source, None)
            self._progress.waiting += time.perf_counter() - start
            return None if pair is None else self._loaded(pair)
        if self._ahead is None:
            self._ahead = self._fetch(self._stream)
        fetched, self._ahead = self._ahead, None
        if fetched.error is not None:
            raise fetched.error
        if fetched.pair is None or fetched.copied is None:
            return None
        computing = torch.cuda.current_stream(self._device)
        computing.wait_event(fetched.copied)
        for batch in fetched.pair:
            if batch is not None:
                batch.record_stream(computing)
        return fetched.pair

    def _fetch(self, stream: torch.cuda.Stream) -> _Fetched:
        start, computed = time.perf_counter(), torch.cuda.current_stream(self._device).record_event()
        try:
            with torch.cuda.stream(stream):
                pair = next(self._source, None)
                return _Fetched() if pair is None else _Fetched(self._loaded(pair), stream.record_event())
        except Exception as error:
            return _Fetched(error=error)
        finally:
            if computed.query():
                self._progress.waiting += time.perf_counter() - start

    def _loaded(self, pair: Pair) -> LabeledPair:
        batch, further = pair
        return self._load(batch), None if further is None else self._load(further)
