"""Several seeds in one process: each is the run that is trained alone, up to rounding, whatever becomes of others."""

import os
import signal
from dataclasses import replace

import helpers
import pytest
import torch
from helpers import read_lines, read_record
from omegaconf import OmegaConf

from mtlrun.config.compose import compose
from mtlrun.config.seeds import by_seed
from mtlrun.errors import ConfigError, DivergedError
from mtlrun.records.identity import run_folder
from mtlrun.runs.run import run
from mtlrun.runs.together import run_together
from mtlrun.setup import prepare as preparing
from mtlrun.training.checkpoint import load
from mtlrun.training.together import joint_steps
from mtlrun.training.trainer import Trainer

# 4 steps an epoch, the last of which has another size.
TOY = ["dataset=kendall_toy", "backbone.hidden=[8]", "trainer.batch_size=30", "trainer.epochs=3",
       "trainer.log_every=3", "trainer.baselines=false", "weighting=uncertainty", "runtime.quiet=true"]  # fmt: skip
SEEDS = (0, 1, 2)
MEASURE = joint_steps.measure


def run_folders(root="outputs"):
    return sorted(helpers.run_folders(root))


def configs(root, *overrides):
    return [compose([*TOY, *overrides, f"seed={seed}", f"runtime.root={root}"]) for seed in SEEDS]


def together(root, *overrides):
    return run_together(configs(root, *overrides), [[]] * len(SEEDS))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    """Make steps at once, whatever is faster here and now."""
    monkeypatch.setattr(joint_steps, "measure", lambda trainers, loaded: (1.0, 2.0))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return the folders of the same runs, each trained alone."""
    root = tmp_path_factory.mktemp("alone")
    for config in configs(root):
        run(config)
    return [run_folder(config) for config in configs(root)]


def assert_as_alone(folder, expected):
    """Compare all that a run has learned and measured with those of the run that was trained alone."""
    record, twin = read_record(folder), read_record(expected)
    same = ("run_id", "status", "steps", "epochs", "total_steps", "splits", "parameters", "directions", "fallbacks")
    assert {key: record[key] for key in same} == {key: twin[key] for key in same}
    assert [entry["step"] for entry in record["selection"]] == [entry["step"] for entry in twin["selection"]]
    for split in ("train", "val", "test"):
        lines, others = read_lines(folder, split), read_lines(expected, split)
        assert [line.keys() for line in lines] == [line.keys() for line in others]
        for line, other in zip(lines, others, strict=True):
            numbers = {key for key in other if isinstance(other[key], float) and "second" not in key and key != "time"}
            assert {key: line[key] for key in numbers} == pytest.approx({key: other[key] for key in numbers}, rel=1e-4)
    for file in ("best.pt", "last.pt"):
        state, other = load(folder / "checkpoints" / file), load(expected / "checkpoints" / file)
        assert flat(state).keys() == flat(other).keys()
        # Nothing of the other seeds is in the file.
        assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in flat(state).values())
        for key, tensor in flat(state).items():
            if "generators" not in key:
                torch.testing.assert_close(tensor, flat(other)[key], rtol=1e-4, atol=1e-6, msg=key)


def flat(value, place=""):
    """Return all tensors in a checkpoint by their place."""
    if isinstance(value, torch.Tensor):
        return {place: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {where: tensor for key, inner in items for where, tensor in flat(inner, f"{place}/{key}").items()}


def test_each_seed_is_the_run_that_is_trained_alone(mtlrun, alone, monkeypatch):
    code, out, err = mtlrun(*TOY, "seed=0", f"trainer.vectorized_seeds={len(SEEDS)}")
    assert (code, err) == (0, "")
    folders = run_folders()
    assert [folder.name for folder in folders] == [folder.name for folder in alone]
    for seed, (folder, twin) in enumerate(zip(folders, alone, strict=True)):
        assert_as_alone(folder, twin)
        record = read_record(folder)
        assert record["seeds_together"] == list(SEEDS)
        assert record["joint_steps"] == record["steps"] == 12
        assert record["config"]["trainer"]["vectorized_seeds"] is None
        assert record["overrides"] == [*TOY, f"seed={seed}"]
        assert "seeds 0 to 2 in one process: a step of each takes" in (folder / "run.log").read_text()
        assert f"{folder.name}: completed: test first rmse" in out
        assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    assert read_record(alone[0])["seeds_together"] == []
    # Each log is that of its run alone.
    assert [(folder / "run.log").read_text().count("epoch 3, step 12") for folder in folders] == [1, 1, 1]
    # The same command shows the results again.
    monkeypatch.setattr(Trainer, "train_step", None)
    assert mtlrun(*TOY, "seed=0", f"trainer.vectorized_seeds={len(SEEDS)}")[0] == 0


def test_what_is_stopped_goes_on(alone, monkeypatch):
    """A signal in the middle, after which one run has lost its state, and catches up with the others."""
    log_step = Trainer.log_step

    def stop(trainer):
        log_step(trainer)
        if trainer.progress.step == 6 and trainer.parts.loaders["train"]._seed == 0:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "log_step", stop)
        members = together("stopped")
    assert [str(member.error) for member in members] == ["stopped by SIGTERM"] * 3
    folders = run_folders("stopped")
    assert [(read_record(folder)["status"], read_record(folder)["steps"]) for folder in folders] == [
        ("interrupted", 6)
    ] * 3
    for path in (folders[1] / "checkpoints").iterdir():
        path.unlink()
    members = together("stopped")
    assert [member.error for member in members] == [None] * 3
    for folder, twin in zip(folders, alone, strict=True):
        assert_as_alone(folder, twin)
    assert [read_record(folder)["joint_steps"] for folder in folders] == [12, 6, 12]


def test_a_run_that_diverges_leaves_the_others_alone(alone, monkeypatch, capsys):
    load_batch = Trainer.load

    def spoil(trainer, loaded):
        batch = load_batch(trainer, loaded)
        if trainer.progress.step != 4 or trainer.parts.loaders["train"]._seed != 1:
            return batch
        (part,) = batch.source_batches
        return replace(batch, source_batches=[replace(part, inputs=part.inputs * torch.nan)])

    monkeypatch.setattr(Trainer, "load", spoil)
    members = together("diverging")
    folders = run_folders("diverging")
    assert [read_record(folder)["status"] for folder in folders] == ["completed", "diverged", "completed"]
    assert "step 5: the loss of task first is not finite" in str(members[1].error)
    assert f"{folders[1].name}: step 5: the loss of task first is not finite" in capsys.readouterr().out.replace(
        "\n", ""
    )
    for number in (0, 2):
        assert_as_alone(folders[number], alone[number])


def test_runs_that_are_finished_or_end_earlier(alone):
    run(configs("patient", "trainer.patience=1", "optimizer.lr=1e-9")[2])
    members = together("patient", "trainer.patience=1", "optimizer.lr=1e-9")
    assert [member.error for member in members] == [None] * 3
    assert [read_record(folder)["seeds_together"] for folder in run_folders("patient")] == [[0, 1]] * 2 + [[]]


def test_both_ways_are_timed_by_steps_that_are_taken_back(alone, monkeypatch):
    taken = []

    def slower_at_once(trainers, loaded):
        taken.append(MEASURE(trainers, loaded))
        return 2.0, 1.0

    monkeypatch.setattr(joint_steps, "measure", slower_at_once)
    together("separate")
    assert len(taken) == 1
    assert all(seconds > 0 for seconds in taken[0])
    for folder, twin in zip(run_folders("separate"), alone, strict=True):
        assert_as_alone(folder, twin)
        assert read_record(folder)["joint_steps"] == 0
        assert "one after the other" in (folder / "run.log").read_text()


def test_a_bad_step_that_is_taken_back_ends_no_run(monkeypatch):
    """Trial steps on one batch may diverge at a high learning rate; the run ends where it would alone, if at all."""
    monkeypatch.setattr(joint_steps, "measure", MEASURE)
    overrides = ("optimizer=sgd", "optimizer.lr=1e9", "weighting=equal")
    members = together("trial", *overrides)
    for member, config in zip(members, configs("trial_alone", *overrides), strict=True):
        with pytest.raises(DivergedError, match="step 2") as alone:
            run(config)
        assert str(member.error) == str(alone.value)
    assert "could not be made, so steps are made one after" in (run_folders("trial")[0] / "run.log").read_text()


def test_seeds_that_learned_other_things_of_the_data_are_not_stacked(monkeypatch):
    fit_tasks = preparing.fit_tasks

    def fit_otherwise(tasks, loader, workers):
        fit_tasks(tasks, loader, workers)
        tasks["first"].some_number = loader._seed

    monkeypatch.setattr(preparing, "fit_tasks", fit_otherwise)
    together("others", "trainer.epochs=1")
    for folder in run_folders("others"):
        assert read_record(folder)["joint_steps"] == 0
        assert "tasks.first.some_number differs from seed to seed" in (folder / "run.log").read_text()


REFUSED = {
    ("weighting=mgda", "weighting.grad_wrt=representation"): "weighting.grad_wrt=representation is not for steps of",
    ("weighting=modo",): "MoDo needs more of a step than the losses",
    ("weighting=famo",): "FAMO needs more of a step than the losses",
    ("weighting=auto_lambda",): "AutoLambda needs more of a step than the losses",
    ("model=ltb",): "changes in the course of the training",
    ("trainer.micro_batches=2",): "trainer.micro_batches=2 is not for steps of several seeds at once, only 1",
    ("weighting=mgda", "trainer.two_pass=true"): "trainer.two_pass=true is not for steps of several seeds at once",
    ("trainer.precision=bf16",): "trainer.precision=bf16 is not for steps of several seeds at once, only fp32",
    ("backbone.dropout=0.5",): "the model draws random numbers in a step",
    ("trainer.vectorized_seeds=1",): "trainer.vectorized_seeds must be >= 2, or null for one seed, found 1",
    ("-m", "seed=0,1", "hydra.launcher.executor=ray"): "with hydra.launcher.executor=ray a process trains each run",
}


@pytest.mark.parametrize("overrides", REFUSED)
def test_what_cannot_be_trained_together_is_refused_in_a_line(mtlrun, overrides):
    code, _, err = mtlrun(*TOY, "trainer.vectorized_seeds=3", *overrides)
    assert code == 2
    assert REFUSED[overrides] in err
    assert len(err.strip().splitlines()) == 1
    assert not run_folders()


@pytest.mark.slow
def test_runs_of_a_sweep_that_differ_in_their_seed_are_trained_together(mtlrun, alone):
    code, out, _ = mtlrun("-m", *TOY, "seed=range(3)", "trainer.vectorized_seeds=2")
    assert code == 0
    folders = run_folders()
    for folder, twin in zip(folders, alone, strict=True):
        assert_as_alone(folder, twin)
        assert f"{folder.name}: completed in" in out
    assert [read_record(folder)["seeds_together"] for folder in folders] == [[0, 1], [0, 1], []]


def test_one_run_is_not_several():
    with pytest.raises(ConfigError, match="vectorized_seeds=3 makes 3 runs, which is for mtlrun with and without -m"):
        preparing.prepare(compose([*TOY, "trainer.vectorized_seeds=3"]))


def test_words_of_each_seed():
    cfg = OmegaConf.create({"seed": 4, "trainer": {"vectorized_seeds": 2}, "dataset": {"numpy_seed": "${seed}"}})
    runs = by_seed(cfg, ["seed=4", "trainer.vectorized_seeds=2", "dataset=x"])
    assert [words for _, words in runs] == [["dataset=x", "seed=4"], ["dataset=x", "seed=5"]]
    assert [one.dataset.numpy_seed for one, _ in runs] == [4, 5]
    assert [one.trainer.vectorized_seeds for one, _ in runs] == [None, None]
    ((one, words),) = by_seed(cfg, ["trainer.vectorized_seeds=2", "seed=4"], seed_is_given=True)
    assert (words, one.trainer.vectorized_seeds) == (["seed=4"], None)
