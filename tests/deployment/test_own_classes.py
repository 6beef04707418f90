"""Runs with classes of the user's, and with several sources, are predicted by what they were trained with."""

import shutil
import sys
from pathlib import Path

import numpy
import pandas
import pytest
import torch
import yaml
from helpers import run_folders

from mtlrun.deployment.predictor import Predictor
from mtlrun.errors import DataError
from mtlrun.runs.restore import restore
from mtlrun.training.forward import run_inputs

MODULE = '''
import torch
from torch.utils.data import Dataset
from mtlrun.datasets import MultiTaskDataset, Sampling
from mtlrun.tasks import Regression


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
    normalization = "none"

    def __init__(self, sampling: Sampling | None = None) -> None:
        self.sampling = sampling

    def split(self, name):
        return Images({"train": (12, 5), "val": (6, 4), "test": (5, 3)}[name])


class Doubled(Regression):
    def __init__(self, **options):
        super().__init__(standardize=True, **options)

    def decode(self, prediction):
        decoded = super().decode(prediction)
        return type(decoded)(2 * decoded.prediction)
'''


def test_tasks_are_predicted_by_their_sources_and_classes(mtlrun, monkeypatch):
    Path("project/conf/dataset").mkdir(parents=True)
    Path("project/their_sources.py").write_text(MODULE)
    number = {"_target_": "mtlrun.tasks.Regression"}
    content = {
        "dataset": {"_target_": "their_sources.TwoSizes", "sampling": {
            "_target_": "mtlrun.datasets.Sampling", "strategy": "round_robin", "batches": None,
            "batch_norm": "per_source"}},
        "tasks": {"kind": {"_target_": "mtlrun.tasks.Classification", "num_classes": 3}, "value": number,
                  "both": {"_target_": "their_sources.Doubled"}},
    }  # fmt: skip
    Path("project/conf/dataset/two.yaml").write_text("# @package _global_\n" + yaml.safe_dump(content))
    monkeypatch.setattr(sys, "path", list(sys.path))
    code, _, err = mtlrun(
        "--config-dir", "project/conf", "dataset=two", "backbone=resnet18", "backbone.width=0.125",
        "backbone.stem=small", "trainer.batch_size=6", "trainer.epochs=2", "runtime.quiet=true",
    )  # fmt: skip
    assert code == 0, err
    (folder,) = run_folders()
    restored = restore(folder, device="cpu")
    split = restored.parts.loaders["test"].split
    predictor = Predictor.load(folder, device="cpu")
    assert predictor.left_out == {"kind": (3, 8, 8)}
    for source, tasks in (("small", ["kind", "both"]), ("large", ["value", "both"])):
        inputs = torch.stack([split[int(index)][0] for index in split.sources[source]])
        outputs = predictor.outputs(inputs)
        assert set(outputs) == set(tasks)
        expected = run_inputs(restored.model, inputs, (), source).predictions
        for task in tasks:
            assert torch.allclose(outputs[task], expected[task], atol=1e-6), (source, task)
            other = run_inputs(restored.model, inputs, (), {"small": "large", "large": "small"}[source]).predictions
            assert not torch.allclose(outputs[task], other[task], atol=1e-3)
    with pytest.raises(DataError, match=r"inputs must be of shape \(3, 12, 12\), found \(3, 9, 9\)"):
        predictor.outputs(torch.zeros(2, 3, 9, 9))

    Path("images").mkdir()
    for index in range(2):
        numpy.save(f"images/{index}.npy", numpy.random.default_rng(index).random((12, 12, 3)))
    # Another process, which has not imported the module and is in another folder.
    sys.path[:] = [path for path in sys.path if Path(path) not in (Path.cwd(), Path.cwd() / "project")]
    monkeypatch.delitem(sys.modules, "their_sources")
    shutil.move(folder, "copied")
    code, _, err = mtlrun("predict", "copied", "--input", "images", "--out", "out.csv")
    assert code == 2
    assert "this run needs classes of its author's package their_sources, which cannot be imported" in err
    code, _, err = mtlrun("export", "copied", "--out", "all.pt2", "--code", "project")
    assert code == 0, err
    assert "left out; --tasks chooses them: kind (3, 8, 8)" in err
    code, _, err = mtlrun("export", "copied", "--out", "kind.pt2", "--tasks", "kind")
    assert (code, err) == (0, "")
    code, _, err = mtlrun("predict", "copied", "--input", "images", "--out", "out.csv", "--code", "project")
    assert code == 0, err
    assert "left out; --tasks chooses them: kind (3, 8, 8)" in err
    written = pandas.read_csv("out.csv")
    assert list(written) == ["sample", "both.prediction", "value.prediction"]
    arrays = numpy.stack([numpy.load(f"images/{index}.npy") for index in range(2)])
    inputs = torch.from_numpy(arrays).float().movedim(3, 1)
    task, outputs = predictor.tasks["both"], predictor.outputs(inputs)["both"]
    doubled = 2 * (outputs.double() * task.target_std + task.target_mean).squeeze(1)
    assert numpy.allclose(written["both.prediction"], doubled, rtol=1e-5)
