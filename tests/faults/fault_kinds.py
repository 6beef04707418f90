"""Short runs of each kind that is enumerated, the same command always making the same files."""

import os
import random
from pathlib import Path

import torch
import yaml
from torch.utils.data import Dataset

from mtlrun.datasets import MultiTaskDataset

_TABLE = [
    "dataset=csv", "dataset.path=table.csv", "+task@tasks.size=regression", "+task@tasks.kind=classification",
    "backbone=mlp", "backbone.hidden=[4]", "backbone.dropout=0.2", "trainer.batch_size=16", "optimizer=adam",
]  # fmt: skip
_SHORT = [
    "trainer.epochs=2", "trainer.limit_batches=3", "trainer.log_every=2", "trainer.evaluate_every=1",
    "trainer.patience=null", "trainer.evaluate_every_steps=null", "trainer.steps=null", "trainer.baselines=false",
    "runtime.predictions=none", "runtime.device=cpu",
]  # fmt: skip
_EACH_STEP = ["trainer.epochs=1", "trainer.evaluate_every_steps=1", "runtime.checkpoint_minutes=0.0000001"]
_EVALUATIONS = ["trainer.epochs=2", "trainer.evaluate_every_steps=1", "optimizer.lr=0.3"]

#: {kind: words of its command line}.
KINDS = {
    "loss": ["weighting=uncertainty"],
    "gram": ["weighting=mgda"],
    "jacobian": ["weighting=graddrop"],
    "lookahead": ["weighting=auto_lambda"],
    "micro_batches": ["weighting=dwa", "trainer.micro_batches=2"],
    "workers": ["weighting=pcgrad", "runtime.num_workers=2"],
    "evaluations": ["weighting=equal", *_EVALUATIONS],
    "checkpoints": ["weighting=gradnorm", "trainer.monitor=per_task", *_EACH_STEP],
    # By min_delta the order of the evaluations matters; those of steps 1, 3, 5, 6 and 7 are selected.
    "patience": ["weighting=equal", "trainer.patience=2", "trainer.min_delta=0.05", *_EVALUATIONS, "trainer.epochs=3"],
    "legacy": ["weighting=equal", "dataset.protocol=legacy"],
    "rerun": ["weighting=equal", "runtime.rerun=true"],
    "files": ["weighting=equal", "trainer.baselines=true", "runtime.predictions=csv", "trainer.epochs=1"],
}


def command(kind):
    """Return the command line of a kind."""
    dataset = ["--config-dir", "conf", "dataset=two_sources", "backbone=mlp", "backbone.hidden=[4]",
               "trainer.batch_size=8"] if kind in ("workers", "legacy") else _TABLE  # fmt: skip
    return [*dataset, *_SHORT, *KINDS[kind]]


def make_files(folder):
    """Make a folder with what the runs read."""
    Path(folder, "conf", "dataset").mkdir(parents=True)
    write_table(folder, seed=0)
    content = {
        "dataset": {
            "_target_": f"{__name__}.TwoSources",
            "sampling": {"_target_": "mtlrun.datasets.Sampling", "strategy": "round_robin", "batches": None,
                         "batch_norm": "shared"},
            "protocol": "standard",
        },
        "tasks": {"one": {"_target_": "mtlrun.tasks.Regression"}, "two": {"_target_": "mtlrun.tasks.Regression"}},
    }  # fmt: skip
    Path(folder, "conf", "dataset", "two_sources.yaml").write_text("# @package _global_\n" + yaml.safe_dump(content))


def write_table(folder, seed):
    """Write table.csv; another seed gives other numbers."""
    draw = random.Random(seed)
    lines = ["city,x,z,size,kind"]
    for number in range(90):
        x, z = draw.gauss(0, 1), draw.gauss(0, 1)
        size, kind = x - z + draw.gauss(0, 0.3), "abc"[(x > 0) + (z > 0.5)]
        lines.append(f"c{number % 4},{x:.3f},{'' if number % 9 == 0 else f'{z:.3f}'},{size:.3f},{kind}")
    path = Path(folder, "table.csv")
    path.write_text("\n".join(lines) + "\n")
    os.utime(path, (seed, seed))  # the record has it


class Points(Dataset):
    """Points, half of which have a label for `one`, half for `two`."""

    def __init__(self, count):
        generator = torch.Generator().manual_seed(count)
        self.points = torch.randn(count, 3, generator=generator)
        self.sources = {"left": torch.arange(count // 2), "right": torch.arange(count // 2, count)}

    def __len__(self):
        return len(self.points)

    def __getitem__(self, index):
        point = self.points[index] + 0.1 * torch.randn(3)
        nothing, label = torch.tensor(torch.nan), point.sum()
        return point, {"one": label, "two": nothing} if index < len(self) // 2 else {"one": nothing, "two": label}


class TwoSources(MultiTaskDataset):
    """Two sources, whose samples differ each time they are read."""

    input_shape = (3,)
    task_names = ("one", "two")

    def __init__(self, sampling=None, protocol="standard"):
        self.sampling, self.protocol = sampling, protocol

    def split(self, name):
        return Points({"train": 40, "val": 12, "test": 14}[name])
