"""Batch size, epochs and evaluations by the number of training samples: the rule, and what wins over it."""

import math

import numpy
import pytest
from helpers import read_record, run_folders

from mtlrun.config.compose import compose
from mtlrun.setup.length import choose_batch_size, choose_epochs, choose_evaluate_every
from mtlrun.setup.prepare import prepare

CSV = ["dataset=csv", "dataset.path=t.csv", "+task@tasks.y=regression", "runtime.quiet=true", "backbone.hidden=[4]"]


@pytest.fixture
def table(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    numbers = numpy.random.default_rng(0).normal(size=(1000, 2))
    text = "".join(f"{x},{y}\n" for x, y in numbers)
    (tmp_path / "t.csv").write_text(f"x,y\n{text}")  # 700 of the rows are training samples


def test_the_batch_size_is_the_power_of_two_nearest_to_a_32nd_of_the_samples():
    for samples in (1, 14, 240, 700, 723, 725, 5000, 16_000, 40_000, 235_743):
        nearest = 2 ** round(math.log2(samples / 32))
        assert choose_batch_size(samples) == min(max(nearest, 16), 256), samples


def test_there_are_40_epochs_more_for_1000_steps_and_fewer_above_10000():
    expected = {1: 1000, 3: 334, 16: 63, 25: 40, 33: 40, 250: 40, 251: 39, 400: 25, 501: 20, 5000: 20}
    assert {steps_per_epoch: choose_epochs(steps_per_epoch) for steps_per_epoch in expected} == expected


def test_there_are_about_40_evaluations():
    assert [choose_evaluate_every(epochs) for epochs in (0.1, 1, 20, 59, 63, 200, 1000)] == [1, 1, 1, 1, 2, 5, 25]


def settings_with(*words):
    parts = prepare(compose([*CSV, *words]))
    return parts, parts.settings


@pytest.mark.usefixtures("table")
def test_a_table_sets_them_and_any_key_or_option_wins():
    parts, settings = settings_with()
    assert (settings.batch_size, settings.epochs, settings.evaluate_every) == (16, 40, 1)
    assert parts.chosen == {"batch_size": 16, "epochs": 40, "evaluate_every": 1}
    assert (parts.steps_per_epoch, parts.total_steps) == (44, 40 * 44)

    assert not [note for note in parts.notes if "steps" in note], "the run is long enough"
    parts, settings = settings_with("trainer.epochs=100")
    assert (parts.chosen, parts.total_steps) == ({"batch_size": 16, "evaluate_every": 2}, 4400)
    parts, settings = settings_with("trainer.steps=50")
    assert (settings.epochs, parts.total_steps, parts.chosen["evaluate_every"]) == (None, 50, 1)
    parts, settings = settings_with("trainer.batch_size=100", "trainer.evaluate_every=7")
    assert (parts.steps_per_epoch, settings.evaluate_every, parts.chosen) == (7, 7, {"epochs": 143})
    parts, settings = settings_with("trainer.limit_batches=4")
    assert parts.total_steps == 40 * 4, "fewer batches in each epoch, not more epochs"
    parts, settings = settings_with("trainer.micro_batches=4")
    assert (settings.batch_size, parts.total_steps) == (16, 40 * 44)
    parts, settings = settings_with("trainer=default")
    assert (settings.batch_size, parts.total_steps, parts.chosen) == (256, 30 * 3, {})
    parts, settings = settings_with("trainer=smoke")
    assert (parts.total_steps, parts.chosen) == (2, {})


@pytest.mark.usefixtures("table")
def test_the_options_of_a_table_give_way_to_others_as_a_whole():
    config = compose(CSV)
    names = ["optimizer", "scheduler", "backbone"]
    assert [config[name]["_target_"].rsplit(".", 1)[1] for name in names] == ["AdamW", "Cosine", "EmbeddingMLP"]
    config = compose([*CSV, "optimizer=sgd", "scheduler=constant", "backbone=mlp"])
    assert [config[name]["_target_"].rsplit(".", 1)[1] for name in names] == ["SGD", "Constant", "MLP"]
    assert config["backbone"]["dropout"] == 0


@pytest.mark.usefixtures("table")
def test_what_was_chosen_is_on_the_screen_and_in_the_record(mtlrun):
    words = [word for word in CSV if "quiet" not in word]
    code, out, err = mtlrun(*words, "trainer.limit_batches=1", "trainer.evaluate_every=30")
    assert code == 0, err
    assert "trainer.batch_size=16, trainer.epochs=40, for 700 training samples" in out
    (folder,) = run_folders()
    record = read_record(folder)
    assert (record["chosen"], record["steps"]) == ({"batch_size": 16, "epochs": 40}, 40)


@pytest.mark.usefixtures("table")
def test_epochs_without_an_evaluation_write_no_checkpoint(mtlrun, monkeypatch):
    from mtlrun.training.checkpoint import Checkpoints

    saved = []
    save = Checkpoints.save_training
    monkeypatch.setattr(Checkpoints, "save_training", lambda self, parts: (saved.append(1), save(self, parts)))
    assert mtlrun(*CSV, "trainer.limit_batches=1", "trainer.epochs=20", "trainer.evaluate_every=10")[0] == 0
    assert len(saved) == 2, "after epoch 10, and at the end"


def test_a_dataset_of_vectors_includes_what_suits_tables(tmp_path):
    file = tmp_path / "conf" / "dataset" / "vectors.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(
        "# @package _global_\ndefaults:\n  - _by_size\n  - /task@tasks.y: regression\n  - override /backbone: mlp\n"
        "dataset:\n  _target_: mine.Vectors\n"
    )
    config = compose(["dataset=vectors"], tmp_path / "conf")
    assert (config["trainer"]["batch_size"], config["names"]["backbone"]) == (None, "mlp")
    assert config["optimizer"]["_target_"] == "torch.optim.AdamW"
    config = compose(["dataset=vectors", "trainer=default", "optimizer=sgd"], tmp_path / "conf")
    assert (config["trainer"]["batch_size"], config["optimizer"]["_target_"]) == (256, "torch.optim.SGD")
