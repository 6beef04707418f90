"""Samples of several sources, each of which goes through the model separately.

That is so if the inputs of the sources differ in shape, if each source has its own BatchNorm statistics, or if tasks
are trained independently. Held here: the update is that of all sources together; losses and performances are means over
the labels of all sources; batches hold the same samples as without the separation; workers of the loader report errors.
"""

import copy
import gc
import os
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from helpers import read_record, run_folders
from torch import nn
from torch.utils.data import Dataset

from mtlrun.datasets import Loader, MultiTaskDataset, Sampling, TensorSplit
from mtlrun.errors import ConfigError, DataError
from mtlrun.models import (
    CGC,
    CrossStitch,
    HardSharing,
    MMoE,
    MultiTaskModel,
    Output,
    ParameterGroup,
    SingleTask,
    SoftSharing,
    SourceStatistics,
)
from mtlrun.models.backbones import MLP
from mtlrun.tasks import Classification, Regression
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.forward import BatchPass, Forward, ModelSharing, run_model
from mtlrun.training.trainer import Trainer
from mtlrun.weightings import MGDA, Equal, GradDrop, PCGrad, Uncertainty

CPU = torch.device("cpu")
RESNET = ["backbone=resnet18", "backbone.width=0.125", "backbone.stem=small"]
SIZES = {"small": 8, "large": 12}


class Images(Dataset):
    """Noise of two sizes: `small` has labels of `kind` and `both`, `large` of `value` and `both`."""

    def __init__(self, counts):
        generator = torch.Generator().manual_seed(sum(counts))
        small, large = counts
        self.inputs_of = [torch.randn(3, 8, 8, generator=generator) for _ in range(small)]
        self.inputs_of += [torch.randn(3, 12, 12, generator=generator) for _ in range(large)]
        self.sources = {"small": torch.arange(small), "large": torch.arange(small, small + large)}
        kind = torch.randint(3, (small + large,), generator=generator)
        kind[small:] = -1
        value = torch.randn(small + large, generator=generator)
        value[:small] = torch.nan
        self.targets = {"kind": kind, "value": value, "both": torch.randn(small + large, generator=generator)}

    def __len__(self):
        return len(self.inputs_of)

    def __getitem__(self, index):
        own = ("kind", "both") if index < len(self.sources["small"]) else ("value", "both")
        return self.inputs_of[index], {task: self.targets[task][index] for task in own}


class TwoSizes(MultiTaskDataset):
    input_shape = (3, 12, 12)
    task_names = ("kind", "value", "both")
    inputs_differ = True

    def __init__(self, sampling: Sampling | None = None) -> None:
        self.sampling = sampling

    def split(self, name):
        return Images({"train": (12, 5), "val": (6, 4), "test": (5, 3)}[name])


@pytest.fixture
def two_sizes(mtlrun, tmp_path):
    """Return a function that trains on TwoSizes with more overrides: (exit code, standard error)."""
    sampling = {"_target_": "mtlrun.datasets.Sampling", "strategy": "round_robin", "batches": None,
                "batch_norm": "shared"}  # fmt: skip
    number = {"_target_": "mtlrun.tasks.Regression"}
    content = {
        "dataset": {"_target_": f"{__name__}.TwoSizes", "sampling": sampling},
        "tasks": {"kind": {"_target_": "mtlrun.tasks.Classification", "num_classes": 3}, "value": number,
                  "both": number},
    }  # fmt: skip
    file = tmp_path / "conf" / "dataset" / "two_sizes.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\n" + yaml.safe_dump(content))

    def run(*arguments, backbone=RESNET):
        code, _, err = mtlrun(
            "--config-dir", "conf", "dataset=two_sizes", *backbone, "trainer.batch_size=6", "trainer.epochs=1",
            "runtime.quiet=true", *arguments,
        )  # fmt: skip
        return code, err

    return run


# ------------------------------------------------------------------------------------------------ in the program


@pytest.mark.parametrize("model", ["hard", "single", "cross_stitch", "mmoe"])
def test_models_train_on_inputs_of_two_sizes(two_sizes, model):
    code, err = two_sizes(f"model={model}", "runtime.num_threads=1")
    assert code == 0, err
    record = read_record(run_folders()[0])
    assert record["status"] == "completed"
    assert set(record["test"]) == {"kind", "value", "both"}
    assert record["macs"] > 0


@pytest.mark.parametrize(
    "options",
    [
        ["weighting=mgda"],
        ["weighting=graddrop"],
        ["weighting=modo"],
        ["weighting=auto_lambda"],
        ["weighting=pcgrad", "trainer.micro_batches=2", "trainer.batch_size=12"],
        ["dataset.sampling.batches=single", "dataset.sampling.batch_norm=per_source"],
    ],
    ids=" ".join,
)
def test_methods_and_batches_of_one_source_work(two_sizes, options):
    code, err = two_sizes(*options)
    assert code == 0, err


@pytest.mark.exhaustive
def test_a_compiled_model_keeps_the_statistics_of_each_source(two_sizes, monkeypatch):
    monkeypatch.setattr("mtlrun.models.compiled.BACKEND", "aot_eager")
    states = []
    for key in ("false", "true"):
        code, err = two_sizes("dataset.sampling.batch_norm=per_source", f"trainer.compile={key}", "weighting=pcgrad")
        assert code == 0, err
        (best,) = Path("outputs").glob("*/*/checkpoints/best.pt")
        states.append(torch.load(best, weights_only=True)["model_states"][0])
        shutil.rmtree("outputs")
    assert any("per_source" in name for name in states[0])
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value)


def test_weightings_that_need_one_representation_are_refused_with_several_sources(two_sizes):
    code, err = two_sizes("weighting=mgda", "weighting.grad_wrt=representation")
    assert code == 2
    assert "weighting.grad_wrt=representation compares the tasks by one representation" in err
    code, err = two_sizes("weighting=rotograd")
    assert code == 2
    assert "each source goes through the model on its own" in err
    assert not run_folders()


def test_a_backbone_for_one_size_is_refused(two_sizes):
    code, err = two_sizes(backbone=["backbone=vit", "backbone.patch_size=4"])
    assert code == 2
    assert "do not fit together" in err
    assert "(1, 3, 8, 8)" in err or "(3, 3, 8, 8)" in err
    assert not run_folders()


def test_a_continued_run_keeps_the_statistics_of_each_source(two_sizes, monkeypatch):
    options = ["dataset.sampling.batch_norm=per_source", "trainer.epochs=2"]
    assert two_sizes(*options, "runtime.root=whole")[0] == 0
    real = Trainer.log_step

    def stop(self):
        self.stop_signal = lambda: signal.SIGTERM if self.progress.step == 3 else None
        return real(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "log_step", stop)
        assert two_sizes(*options, "runtime.root=halves")[0] == 143
    assert two_sizes(*options, "runtime.root=halves")[0] == 0
    whole, halves = (read_record(run_folders(root)[0]) for root in ("whole", "halves"))
    assert halves["resumed"] == 1
    assert whole["test"] == halves["test"]


# -------------------------------------------------------------------------------------------------- the identity


TASKS = {"kind": Classification(3), "value": Regression(), "both": Regression()}
MODELS = {"hard": HardSharing, "mmoe": MMoE, "cgc": CGC, "cross_stitch": CrossStitch, "soft": SoftSharing}


def make_batches():
    """Return the same samples as one stream and as two: seven of source a, four of source b."""
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(11, 4, generator=generator)
    targets = {
        "kind": torch.randint(3, (11,), generator=generator),
        "value": torch.randn(11, generator=generator),
        "both": torch.randn(11, generator=generator),
    }
    targets["kind"][7:] = -1
    targets["value"][:7] = torch.nan
    targets["both"][[1, 8]] = torch.nan
    apart = {
        "a": (inputs[:7], {task: targets[task][:7] for task in ("kind", "both")}),
        "b": (inputs[7:], {task: targets[task][7:] for task in ("value", "both")}),
    }
    return LabeledBatch.load(TASKS, (inputs, targets), CPU), LabeledBatch.load(TASKS, apart, CPU)


def gradients(model, weighting, forward):
    model.zero_grad()
    weighting.setup(3)
    forward.backward(weighting, ModelSharing(model), want_gram=True)
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize(
    ("name", "make_weighting"),
    [
        (name, method)
        for name in MODELS
        for method in (Equal, Uncertainty, MGDA, PCGrad, GradDrop)
        if name != "soft" or method in (Equal, Uncertainty)  # it shares no parameters
    ],
)
def test_separate_sources_give_the_update_of_the_whole_batch(name, make_weighting):
    model = MODELS[name](TASKS, partial(MLP, (4,), hidden=[6, 5]))
    together, apart = make_batches()
    expected = gradients(model, make_weighting(), Forward(model, together))
    found = gradients(model, make_weighting(), Forward(model, apart))
    assert found.keys() == expected.keys()
    for parameter in expected:
        torch.testing.assert_close(found[parameter], expected[parameter], rtol=1e-4, atol=1e-6)
    in_pieces = gradients(model, make_weighting(), Forward(model, apart, 3))
    if make_weighting is not GradDrop:  # draws
        for parameter in expected:
            torch.testing.assert_close(in_pieces[parameter], expected[parameter], rtol=1e-4, atol=1e-6)


def test_a_batch_of_several_sources_counts_its_labels_and_samples():
    together, apart = make_batches()
    assert apart.num_samples == together.num_samples == 11
    assert apart.active == together.active == ["kind", "value", "both"]
    assert apart.num_terms().tolist() == together.num_terms().tolist() == [7, 4, 9]
    assert [piece.num_samples for piece in apart.split(5)] == [3, 3, 2, 2, 1]
    pieces = list(apart.split(5))
    assert sum(len(stream.targets["both"]) for piece in pieces for stream in piece.source_batches) == 9


def test_performances_are_means_over_the_labels_of_all_sources():
    tasks = {"one": Classification(2)}
    model = HardSharing(tasks, partial(MLP, (4,), hidden=[6]))
    inputs, target = torch.randn(9, 4), torch.randint(2, (9,))
    together = LabeledBatch.load(tasks, (inputs, {"one": target}), CPU)
    parts = {"a": (inputs[:2], {"one": target[:2]}), "b": (inputs[2:], {"one": target[2:]})}
    apart = LabeledBatch.load(tasks, parts, CPU)
    torch.testing.assert_close(Forward(model, apart).performances(), Forward(model, together).performances())


def test_networks_of_tasks_without_labels_are_not_run():
    model = SingleTask(TASKS, partial(MLP, (4,), hidden=[6]))
    run = []
    for task, network in model.networks.items():
        network.register_forward_hook(lambda *_, task=task: run.append(task))
    _, apart = make_batches()
    run_model(model, apart.source_batches[0])
    assert run == ["kind", "both"]


def test_single_task_networks_see_only_the_samples_of_their_sources(mtlrun, tmp_path, monkeypatch):
    class TwoDomains(MultiTaskDataset):
        input_shape, task_names = (4,), ("one", "two")

        def split(self, name):
            one, two = torch.randn(12), torch.randn(12)
            one[8:], two[:8] = torch.nan, torch.nan
            inputs = torch.cat([torch.full((8, 4), 1.0), torch.full((4, 4), 2.0)])
            return TensorSplit(
                inputs, {"one": one, "two": two}, sources={"a": torch.arange(8), "b": torch.arange(8, 12)}
            )

    monkeypatch.setattr(f"{__name__}.TwoDomains", TwoDomains, raising=False)
    task = {"_target_": "mtlrun.tasks.Regression"}
    content = {"dataset": {"_target_": f"{__name__}.TwoDomains"}, "tasks": {"one": task, "two": task}}
    file = tmp_path / "conf" / "dataset" / "two_domains.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\n" + yaml.safe_dump(content))
    seen = {"one": set(), "two": set()}
    real = SingleTask.forward

    def forward(self, inputs, tasks=None):
        for task in tasks or seen:
            seen[task] |= set(inputs.unique().tolist())
        return real(self, inputs, tasks)

    monkeypatch.setattr(SingleTask, "forward", forward)
    command = [
        "--config-dir",
        "conf",
        "dataset=two_domains",
        "backbone=mlp",
        "trainer.batch_size=4",
        "trainer.epochs=1",
    ]
    assert mtlrun(*command, "model=single", "runtime.quiet=true")[0] == 0
    assert seen == {"one": {1.0}, "two": {2.0}}


# ---------------------------------------------------------------------------------------------------- the loader


def make_loader(split=None, **options):
    defaults = {"batch_size": 6, "shuffle": True, "seed": 3, "per_source": True}
    return Loader(split or Images((12, 5)), **(defaults | options))


def in_memory():
    targets = {"number": torch.arange(8)}
    return TensorSplit(torch.arange(8.0), targets, sources={"a": torch.arange(5), "b": torch.arange(5, 8)})


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    "sampling", [None, Sampling("round_robin"), Sampling("cycle")], ids=["plain", "mixed", "single"]
)
def test_batches_are_the_same_samples_by_source(num_workers, sampling):
    together = make_loader(in_memory(), sampling=sampling, per_source=False)
    apart = make_loader(in_memory(), sampling=sampling, num_workers=num_workers)
    for epoch in range(3):
        batches = list(apart.batches(epoch))
        assert len(batches) == together.num_batches
        for batch, (inputs, _) in zip(batches, together.batches(epoch), strict=True):
            assert sorted(torch.cat([part[0] for part in batch.values()]).tolist()) == sorted(inputs.tolist())
            for source, part in batch.items():
                assert part[1]["number"].tolist() == part[0].tolist()
                assert torch.isin(part[0].long(), in_memory().sources[source]).all()


def test_each_source_is_stacked_separately():
    for batch in make_loader().batches():
        for source, (images, targets) in batch.items():
            assert images.shape[1:] == (3, SIZES[source], SIZES[source])
            assert set(targets) == {"both", "kind" if source == "small" else "value"}
            assert {len(target) for target in targets.values()} == {len(images)}


def test_smallest_and_first_batches_have_samples_of_all_sources():
    loader = make_loader(sampling=Sampling("round_robin"))  # 12 of each, in batches of 6
    assert {source: len(part[0]) for source, part in loader.smallest_batch().items()} == {"small": 3, "large": 3}
    assert {source: len(part[0]) for source, part in loader.first(2).items()} == {"small": 2, "large": 2}


@pytest.mark.parametrize("sampling", [None, Sampling("proportional"), Sampling("temperature")])
def test_smallest_batch_has_the_smallest_part_of_each_source(sampling):
    loader = make_loader(in_memory(), sampling=sampling, batch_size=3)
    parts = [part for epoch in range(5) for batch in loader.batches(epoch) for part in batch.items()]
    expected = {name: min(len(part[0]) for source, part in parts if source == name) for name in ("a", "b")}
    assert {source: len(part[0]) for source, part in loader.smallest_batch().items()} == expected


def test_a_split_without_sources_is_refused_by_a_loader_per_source():
    with pytest.raises(ConfigError, match="samples come from several sources"):
        make_loader(TensorSplit(torch.zeros(4), {}))


def test_workers_survive_an_epoch_that_is_left_in_the_middle():
    loader = make_loader(in_memory(), num_workers=2)
    batches = loader.batches(0)
    next(batches)
    workers = loader._workers
    for found, expected in zip(loader.batches(1), make_loader(in_memory()).batches(1), strict=True):
        assert {source: part[0].tolist() for source, part in found.items()} == {
            source: part[0].tolist() for source, part in expected.items()
        }
    assert loader._workers is workers


class Trouble(Dataset):
    """Sample 7 does what it is told to."""

    def __init__(self, trouble):
        self.trouble = trouble

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if index == 7:
            self.trouble()
        return torch.tensor(index), {"number": torch.tensor(index)}


def unreadable():
    raise DataError("photo.png: not a readable image")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_data_error_in_a_worker_is_raised_with_the_message_of_the_dataset(num_workers):
    with pytest.raises(DataError) as caught:
        list(Loader(Trouble(unreadable), 2, shuffle=False, num_workers=num_workers).batches())
    assert str(caught.value) == "photo.png: not a readable image"


@pytest.mark.parametrize("num_workers", [0, 1])
def test_any_other_error_in_a_worker_names_the_sample(num_workers):
    with pytest.raises(DataError) as caught:
        list(Loader(Trouble(partial(int, "x")), 2, shuffle=False, num_workers=num_workers).batches())
    assert str(caught.value).startswith("dataset: sample 7 of the split: ValueError: invalid literal")


# Python finds the socket open through which the dead one was just sending a batch.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_worker_that_dies_is_reported_with_the_sample_it_was_reading(num_workers):
    with pytest.raises(DataError, match=r"died while it held sample (7|7 or [0-9]|[0-9] or 7) of the split"):
        list(Loader(Trouble(die), 2, shuffle=False, num_workers=num_workers).batches())
    gc.collect()


# --------------------------------------------------------------------------------------- statistics of each source


class Normalized(MLP):
    """One layer and BatchNorm."""

    def __init__(self, input_shape):
        super().__init__(input_shape, hidden=[5])
        self.stages[-1].append(nn.BatchNorm1d(5))


def test_each_source_is_normalized_by_its_own_statistics():
    torch.manual_seed(0)
    model = HardSharing(TASKS, partial(Normalized, (4,)))
    twins = {source: copy.deepcopy(model) for source in ("a", "b")}
    common = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.source_statistics = SourceStatistics(model, ["a", "b"])
    _, apart = make_batches()
    for mode in (True, True, False):
        model.train(mode)
        for stream in apart.source_batches:
            twin = twins[stream.source].train(mode)
            expected = twin(stream.inputs).predictions
            for task, prediction in run_model(model, stream).predictions.items():
                torch.testing.assert_close(prediction, expected[task])
    assert all(torch.equal(model.get_buffer(name), buffer) for name, buffer in common.items())
    fresh = HardSharing(TASKS, partial(Normalized, (4,)))
    fresh.source_statistics = SourceStatistics(fresh, ["a", "b"])
    fresh.load_state_dict(model.state_dict())
    fresh.eval()
    for stream in apart.source_batches:
        found = run_model(fresh, stream).predictions
        assert all(
            torch.equal(found[task], prediction) for task, prediction in run_model(model, stream).predictions.items()
        )


def test_a_model_without_batch_norm_cannot_have_statistics_of_sources(two_sizes):
    code, err = two_sizes("dataset.sampling.batch_norm=per_source", backbone=["backbone=mlp"])
    assert code == 2
    assert "dataset.sampling.batch_norm=per_source: HardSharing has no BatchNorm layer" in err


def test_a_user_model_may_ignore_the_requested_tasks():
    class Plain(MultiTaskModel):
        def __init__(self):
            super().__init__(("kind", "value", "both"))
            self.heads = nn.ModuleDict({task: nn.Linear(4, kind.output_size) for task, kind in TASKS.items()})

        def forward(self, inputs):
            return Output({task: head(inputs) for task, head in self.heads.items()})

        def parameter_groups(self):
            return [ParameterGroup(task, list(head.parameters()), task=task) for task, head in self.heads.items()]

    _, apart = make_batches()
    assert set(BatchPass(Plain(), apart).losses) == {"kind", "value", "both"}
