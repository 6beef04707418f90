"""The feed of a training: batches ahead of time, and the time in which they are waited for."""

import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from helpers import read_record, run_folders

from mtlrun.datasets import Loader, TensorSplit
from mtlrun.datasets.base import DerivedSplit
from mtlrun.errors import DataError
from mtlrun.runs import logs
from mtlrun.training.feed import Feed
from mtlrun.training.progress import Progress

TOY = ["dataset=kendall_toy", "trainer.epochs=1", "trainer.batch_size=25"]


class FakeStream:
    """A stream of a GPU; `waits_for` has what it was told to wait for."""

    def __init__(self, device=None):
        self.waits_for = []

    def wait_stream(self, stream):
        self.waits_for.append(stream)

    def wait_event(self, event):
        self.waits_for.append(event)

    def record_event(self):
        return FakeEvent(self)


class FakeEvent:
    has_happened = False

    def __init__(self, stream):
        self.stream = stream

    def query(self):
        return FakeEvent.has_happened


class FakeBatch:
    def __init__(self, number):
        self.number, self.streams = number, []

    def record_stream(self, stream):
        self.streams.append(stream)


@pytest.fixture
def computing(monkeypatch):
    """Return the stream on which a pretended GPU computes."""
    stream = FakeStream()
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(FakeEvent, "has_happened", False)
    return stream


def slow(fetched, error=None):
    for number in range(4):
        time.sleep(0.02)
        fetched.append(number)
        if error is not None and number == 2:
            raise error
        yield number, number if number else None


def test_the_next_batch_is_fetched_while_a_gpu_computes(computing):
    fetched, progress = [], Progress()
    feed = Feed(torch.device("cuda"), FakeBatch, progress)
    found = []
    for batch, further in feed.pairs(slow(fetched)):
        # Computing starts after the copy, whose memory is kept until it is over.
        assert computing.waits_for[-1].stream is feed._stream
        assert batch.streams == [computing]
        assert further is None or further.streams == [computing]
        found.append(batch.number)
        assert fetched == found
        feed.fetch_ahead()
        feed.fetch_ahead()
        assert len(fetched) == min(len(found) + 1, 4)
    assert found == [0, 1, 2, 3]
    assert feed._stream.waits_for == [computing]


def test_time_counts_as_waiting_once_the_gpu_has_nothing_to_do(computing):
    for has_happened, low, high in ((False, 0.0, 0.0), (True, 0.08, 10.0)):
        FakeEvent.has_happened, progress = has_happened, Progress()
        feed = Feed(torch.device("cuda"), FakeBatch, progress)
        for _ in feed.pairs(slow([])):
            feed.fetch_ahead()
        assert low <= progress.waiting <= high


def test_an_error_is_raised_in_place_of_its_batch(computing):
    feed = Feed(torch.device("cuda"), FakeBatch, Progress())
    pairs, found = feed.pairs(slow([], DataError("broken"))), []
    for _ in range(2):
        found.append(next(pairs)[0].number)
        feed.fetch_ahead()  # the second time this fails
    assert found == [0, 1]
    with pytest.raises(DataError, match="broken"):
        next(pairs)


def test_what_was_fetched_is_dropped_when_another_epoch_begins(computing):
    feed = Feed(torch.device("cuda"), FakeBatch, Progress())
    next(feed.pairs(slow([])))
    feed.fetch_ahead()
    assert [batch.number for batch, _ in feed.pairs(slow([]))] == [0, 1, 2, 3]


def test_a_run_records_how_long_it_waited_and_says_what_would_help(mtlrun, monkeypatch):
    batches = Loader.batches

    def delayed(loader, *arguments, **options):
        for batch in batches(loader, *arguments, **options):
            time.sleep(0.05)
            yield batch

    monkeypatch.setattr(Loader, "batches", delayed)
    code, out, err = mtlrun(*TOY)
    assert code == 0, err
    (folder,) = run_folders()
    seconds = read_record(folder)["seconds"]
    assert 0.05 * 4 <= seconds["waiting"] < seconds["train"]
    assert "waited for" not in out  # for less than a second
    monkeypatch.setattr(logs, "_WORTH_A_LINE", 0.0)
    _, out, _ = mtlrun(*TOY, "seed=1")
    line = " ".join(out.split())
    assert "batches were waited for in" in line
    assert "a larger trainer.batch_size makes fewer of them" in line


@pytest.mark.parametrize(
    ("split", "cache", "device", "advice"),
    [
        (TensorSplit(torch.zeros(3, 2), {}), "auto", "cpu", "a larger trainer.batch_size"),
        (TensorSplit(torch.zeros(3, 2), {}), "memory", "cuda", "dataset.cache=device"),
        (DerivedSplit([0]), "none", "cpu", "dataset.cache=memory reads each file once, and runtime.num_workers=4"),
        (DerivedSplit([0]), "memory", "cuda", "runtime.num_workers=4"),
    ],
)
def test_the_advice_is_what_helps_where_samples_lie(split, cache, device, advice):
    parts = SimpleNamespace(
        loaders={"train": SimpleNamespace(split=split)}, runtime=SimpleNamespace(num_workers=0),
        dataset=SimpleNamespace(cache=cache), device=torch.device(device),
    )  # fmt: skip
    assert logs._advice_on_waiting(parts).startswith(advice)


@pytest.mark.gpu
def test_runs_on_a_gpu_are_the_same_wherever_samples_lie_and_whenever_they_are_fetched(mtlrun, monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    common = [
        "dataset=scenes", "dataset.num_train=24", "dataset.num_val=8", "dataset.num_test=8", "dataset.size=32",
        "backbone=resnet18", "backbone.width=0.125", "trainer.epochs=2", "trainer.batch_size=5", "trainer.log_every=1",
        "trainer.deterministic=true", "runtime.device=cuda", "weighting=pcgrad",
    ]  # fmt: skip
    found = []
    for name, words in {
        "device": ["dataset.cache=device"],
        "auto": ["dataset.cache=auto"],
        "memory": ["dataset.cache=memory"],
        "workers": ["dataset.cache=memory", "runtime.num_workers=2"],
        "without": ["dataset.cache=memory"],
    }.items():
        if name == "without":
            monkeypatch.setattr(Feed, "fetch_ahead", lambda feed: None)
        code, _, err = mtlrun(*common, *words, f"runtime.root={name}")
        assert code == 0, err
        (folder,) = run_folders(name)
        record = read_record(folder)
        found.append((record["val"], record["test"], (folder / "metrics.jsonl").read_text()))
        assert record["environment"]["cache"] == {"device": "device", "auto": "device"}.get(name, "memory")
        assert 0 <= record["seconds"]["waiting"] <= record["seconds"]["train"]
    assert all(each == found[0] for each in found)
