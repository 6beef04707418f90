"""Model size: counting, matching the size of another model, and warm starts from single-task networks."""

import re
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers import QUICK, read_record, run_folders
from torch import nn

from mtlrun.datasets import MultiDigits
from mtlrun.errors import ConfigError
from mtlrun.models import HardSharing
from mtlrun.models.backbones import MLP
from mtlrun.setup.model_size import count_macs, count_parameters, match_width
from mtlrun.setup.prepare import prepare
from mtlrun.tasks import Regression
from mtlrun.training.checkpoint import Checkpoints


def test_macs_are_those_of_matrix_products_and_convolutions():
    network = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4 * 5, 7))
    assert count_macs(network, torch.zeros(6, 2, 4, 5)) == 4 * 5 * 3 * 2 * 9 + 60 * 7


def test_parameters_are_counted_in_one_place():
    root = Path(__file__).parents[2]
    counters = [
        str(path.relative_to(root))
        for folder in ("src", "scripts")
        for path in sorted((root / folder).rglob("*.py"))
        if re.search(r"sum\(\w+\.numel\(\)", path.read_text())
    ]
    assert counters == ["src/mtlrun/setup/model_size.py"]


def test_counting_leaves_the_model_as_it_was():
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    state = torch.random.get_rng_state()
    count_macs(network, torch.zeros(2, 2))
    assert network.training
    assert network[1].num_batches_tracked == 0
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_record_and_the_screen_show_sizes(mtlrun):
    arguments = [option for option in QUICK if option != "runtime.quiet=true"]
    code, out, err = mtlrun(*arguments, "model=hard")
    assert code == 0, err
    record = read_record(run_folders()[0])
    heads = 16 * 50 + 50 + 50 * 10 + 10
    assert record["parameters"] == {"shared": 100 * 16 + 16, "left": heads, "right": heads}
    assert record["macs"] == 100 * 16 + 2 * (16 * 50 + 50 * 10)
    assert "4.2 k MACs per sample" in out
    assert f"{1616 + 2 * heads:,}" in out


def test_frozen_parameters_are_counted_separately(quick):
    record = read_record(quick("model=lora", "model.freeze_backbone=true"))
    assert record["parameters"]["frozen"] == 100 * 16 + 16


def test_a_width_is_found_at_which_one_model_is_as_large_as_another():
    tasks = {"a": Regression()}

    def make(width, hidden=(40, 30)):
        return HardSharing(tasks, partial(MLP, (9,), hidden=hidden, width=width))

    state = torch.random.get_rng_state()
    match = match_width(lambda: make(1.0, hidden=(100, 75)), make, 1.0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert match.width == pytest.approx(2.5, rel=0.02)
    assert match.reference_parameters == count_parameters(make(1.0, hidden=(100, 75)).parameters())
    assert match.parameters == count_parameters(make(match.width).parameters())
    assert match.parameters == pytest.approx(match.reference_parameters, rel=0.01)
    narrow = match_width(lambda: make(0.3), make, 1.0)
    assert narrow.parameters == narrow.reference_parameters


def test_a_size_out_of_reach_is_refused():
    with pytest.raises(ConfigError, match=r"no backbone\.width gives about 6 parameters; the nearest, .*, gives 20"):
        match_width(lambda: nn.Linear(2, 2), lambda width: nn.Linear(4, 4), 1.0)


def test_single_task_networks_are_as_large_together_as_a_mixture_of_experts(mtlrun):
    code, out, err = mtlrun(*QUICK[:-1], "model=single", "match_parameters=mmoe")
    assert code == 0, err
    record = read_record(run_folders()[0])
    assert record["match"]["parameters"] == sum(record["parameters"].values())
    assert record["match"]["parameters"] == pytest.approx(record["match"]["reference_parameters"], rel=0.03)
    assert record["match"]["width"] > 2
    line = f"{record['match']['parameters']:,} parameters, model=mmoe has {record['match']['reference_parameters']:,}"
    assert f"backbone.width={record['match']['width']:g}: {line}" in out
    assert record["config"]["match_parameters"]["_target_"] == "mtlrun.models.MMoE"
    # The same command is the same run, and another match another one.
    code, out, _ = mtlrun(*QUICK, "model=single", "match_parameters=mmoe")
    assert len(run_folders()) == 1
    mtlrun(*QUICK, "model=single", "match_parameters=hard")
    mtlrun(*QUICK, "model=single")
    assert len(run_folders()) == 3


def test_matching_is_checked_before_the_run(mtlrun):
    code, _, err = mtlrun(*QUICK, "model=single", "match_parameters=cros_stitch")
    assert code == 2
    assert "match_parameters=cros_stitch: there is no model named 'cros_stitch'; did you mean 'cross_stitch'?" in err
    code, _, err = mtlrun(*QUICK, "model=single", "match_parameters=mmoe", "match_parameters.num_experts=0")
    assert code == 2
    assert "match_parameters.num_experts must be" in err
    code, _, err = mtlrun(*QUICK, "model=single", "+match_parameter=hard")
    assert code == 2
    assert "did you mean 'match_parameters'?" in err
    assert not run_folders()


COUPLED = ["cross_stitch", "nddr", "sluice", "soft", "soft_trace"]


@pytest.mark.parametrize("model", COUPLED)
def test_coupled_networks_start_from_single_task_ones(model, quick):
    single = quick("model=single")
    weights = Checkpoints(single / "checkpoints", single.name).load_best()
    folder = quick(f"model={model}", f"model.init_from={single}")
    started = prepare(read_record(folder)["config"]).model
    for task in ("left", "right"):
        for name, value in started.backbones[task].state_dict().items():
            assert torch.equal(value, weights[f"networks.{task}.0.{name}"])
        for name, value in started.heads[task].state_dict().items():
            assert torch.equal(value, weights[f"networks.{task}.1.{name}"])


def test_an_impossible_warm_start_is_refused_with_the_reason(mtlrun, quick):
    single, hard = quick("model=single"), quick("model=hard")

    def refused(*arguments):
        folders = len(run_folders())
        code, _, err = mtlrun(*QUICK, "model=cross_stitch", *arguments)
        assert code == 2
        assert len(run_folders()) == folders
        return err

    assert "no run there (no record.json)" in refused("model.init_from=nowhere")
    assert "that run has model=hard; give one with model=single" in refused(f"model.init_from={hard}")
    err = refused(f"model.init_from={single}", "backbone.hidden=[17]")
    assert "the network of task left: stages.0.1.weight has shape (17, 100) here and (16, 100) in that run" in err
    record = single / "record.json"
    text = record.read_text()
    record.write_text(text.replace('"status": "completed"', '"status": "failed"'))
    assert "that run is failed; give one that is completed" in refused(f"model.init_from={single}")
    record.write_text(text)
    (single / "checkpoints" / "best.pt").unlink()
    assert "its checkpoints/best.pt is gone" in refused(f"model.init_from={single}")
    assert Path(hard).exists()


def test_a_task_with_the_name_of_a_parameter_group_is_refused(mtlrun, monkeypatch):
    plain = MultiDigits.split

    def split(self, name):
        found = plain(self, name)
        found.targets["stitch"] = found.targets.pop("right")
        return found

    monkeypatch.setattr(MultiDigits, "split", split)
    monkeypatch.setattr(MultiDigits, "task_names", ("left", "stitch"))
    task = "{_target_: mtlrun.tasks.Classification, num_classes: 10}"
    arguments = [*QUICK, "~tasks.right", f"+tasks.stitch={task}"]
    code, _, err = mtlrun(*arguments, "model=cross_stitch")
    assert code == 2
    assert "tasks.stitch: the model has a parameter group of that name; rename the task" in err
    assert mtlrun(*arguments, "model=hard")[0] == 0


def test_heads_are_checked_like_every_other_node(mtlrun):
    wanted = {
        "tasks.left.head=3": "tasks.left.head must be a _target_ with _partial_: true or null, found 3",
        "tasks.left.head._partial_=false": "tasks.left.head needs _partial_: true",
        "+tasks.left.head.output_shape=[3]": "tasks.left.head.output_shape is filled in by the program; leave it out",
    }
    for override, line in wanted.items():
        code, _, err = mtlrun(*QUICK, override)
        assert code == 2
        assert line in err
