"""One run from start to record: its folder, the record, training and selection, divergence, and the curves."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from helpers import QUICK, curves, read_lines, read_record, run_folders, start
from tensorboard.plugins.hparams import plugin_data_pb2

from mtlrun.config.compose import compose
from mtlrun.errors import DivergedError
from mtlrun.runs.run import run
from mtlrun.tasks import Classification
from mtlrun.training import checkpoint

# ---------------------------------------------------------------------------------------------- the same run again


def test_the_same_command_again_shows_the_result_and_trains_nothing(mtlrun):
    assert mtlrun(*QUICK)[0] == 0
    (folder,) = run_folders()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    code, out, _ = mtlrun(*QUICK[:-1])
    assert code == 0
    assert "is finished already; runtime.rerun=true trains it anew" in out
    assert f"{read_record(folder)['test']['left']['accuracy']:.4f}" in out
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_rerun_trains_anew_and_gives_the_same(mtlrun):
    mtlrun(*QUICK)
    (folder,) = run_folders()
    first = read_record(folder)
    (folder / "notes.txt").write_text("the user's own")
    assert mtlrun(*QUICK, "runtime.rerun=true")[0] == 0
    second = read_record(folder)
    assert second["test"] == first["test"]
    assert second["resumed"] == 0
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    assert (folder / "notes.txt").exists()


def test_rerun_leaves_no_file_of_the_earlier_training(mtlrun):
    toy = ["dataset=kendall_toy", "trainer=smoke", "runtime.quiet=true"]
    assert mtlrun(*toy)[0] == 0
    (folder,) = run_folders()
    (folder / "splits.json").write_text("{}")  # this dataset has no sample IDs, so a rerun does not write a new one
    assert mtlrun(*toy, "runtime.rerun=true")[0] == 0
    assert not (folder / "splits.json").exists()


def test_a_run_that_is_too_short_for_the_warm_up_of_its_weighting_is_warned_of(mtlrun):
    code, out, err = mtlrun(*QUICK, "weighting=dwa", "trainer.epochs=2")
    assert code == 0, err
    assert "DWA warms up until epoch 3; this run has 2 epochs, so it never leaves warm-up" in out
    assert "warms up" not in mtlrun(*QUICK, "weighting=dwa")[1]
    assert "warms up" not in mtlrun(*QUICK, "weighting=dwa", "trainer.epochs=null", "trainer.steps=9")[1]
    assert "warms up" in mtlrun(*QUICK, "weighting=dwa", "trainer.epochs=null", "trainer.steps=8")[1]


@pytest.mark.parametrize(
    ("weighting", "lines"),
    [
        (["weighting=excess_mtl"], ["ExcessMTL warms up until epoch 4; this run has 1 epoch,"]),
        (["weighting=mgda", "weighting/losses=stch"], ["STCH warms up until epoch 6;"]),
        (
            ["weighting=excess_mtl", "weighting/losses=igb"],
            ["ExcessMTL warms up until epoch 4;", "IGB warms up until epoch 3;"],
        ),
        (["weighting=pcgrad", "weighting/losses=dwa"], ["DWA warms up until epoch 3;"]),
        (["weighting=equal", "trainer.epochs=null", "trainer.steps=1"], []),
        (["weighting=mgda", "trainer.epochs=null", "trainer.steps=1"], []),
    ],
)
def test_each_method_that_never_leaves_its_warm_up_is_named(mtlrun, weighting, lines):
    code, out, err = mtlrun(*QUICK, "trainer.epochs=1", *weighting)
    assert code == 0, err
    assert out.count("warms up") == len(lines)
    for line in lines:
        assert line in out


@pytest.mark.parametrize(
    "weighting", [["weighting=stch"], ["weighting=mgda", "weighting/losses=stch"], ["weighting=dwa"]]
)
def test_a_weight_that_a_weighting_does_not_take_is_refused_by_the_name_of_its_key(mtlrun, weighting):
    code, _, err = mtlrun(*QUICK, *weighting, "tasks.right.weight=size")
    assert code == 2
    assert "tasks.right.weight=size" in err
    assert "weighting=static" in err
    assert "preferences" not in err
    if "weighting/losses=stch" in weighting:
        assert "weighting.losses (STCH) takes a number" in err
    for wrong in ("-1", "inf"):
        code, _, err = mtlrun(*QUICK, *weighting, f"tasks.right.weight={wrong}")
        assert code == 2
        assert "tasks.right.weight must be " in err
    assert not run_folders()


def test_a_failed_run_is_tried_again(mtlrun, monkeypatch):
    from mtlrun.training.trainer import Trainer

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "validate", lambda self: 1 / 0)
        code, _, err = mtlrun(*QUICK)
    assert code == 1
    assert "ZeroDivisionError" in err
    (folder,) = run_folders()
    assert read_record(folder)["status"] == "failed"
    assert read_record(folder)["error"] == "ZeroDivisionError: division by zero"
    assert "Traceback" in (folder / "run.log").read_text()
    assert mtlrun(*QUICK)[0] == 0
    assert read_record(folder)["status"] == "completed"


@pytest.mark.slow
def test_a_second_process_on_the_same_run_refuses_and_names_the_first(mtlrun):
    overrides = [*QUICK, "trainer.epochs=100000"]
    process = start(*overrides)
    try:
        while not list(Path().glob("**/last.pt")):
            assert process.poll() is None
        code, _, err = mtlrun(*overrides)
        assert code == 2
        assert f"is being trained by process {process.pid}" in err
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


# --------------------------------------------------------------------------------------------------------- record


def test_the_record_holds_the_facts_of_the_run(quick):
    folder = quick("weighting=gradnorm", "model=hard", "seed=2")
    record = read_record(folder)
    assert record["schema_version"] == 2
    assert record["status"] == "completed"
    assert record["error"] is None
    assert record["run_id"] == folder.name
    assert record["overrides"] == [*QUICK, "weighting=gradnorm", "model=hard", "seed=2"]
    assert record["config"]["weighting"]["alpha"] == 1.5
    assert record["directions"]["left"] == dict(Classification(10).directions())
    assert record["main_metrics"] == {"left": "accuracy", "right": "accuracy"}
    assert {name: split["samples"] for name, split in record["splits"].items()} == {
        "train": 1024,
        "val": 360,
        "test": 360,
    }
    assert record["splits"]["val"]["labeled"] == {"left": 360, "right": 360}
    head = 16 * 50 + 50 + 50 * 10 + 10
    assert record["parameters"] == {"shared": 100 * 16 + 16, "left": head, "right": head, "weighting": 2}
    assert record["passes_per_step"] == {"forward": 1, "backward": 2}
    assert (record["steps"], record["epochs"], record["resumed"], record["fallbacks"]) == (12, 3, 0, 0)
    assert {"train", "test", "to_first_step"} <= record["seconds"].keys()
    assert record["peak_memory_mib"]["process"] > 50
    assert record["environment"]["versions"]["torch"] == torch.__version__.split("+")[0] or "+" in torch.__version__
    (selection,) = record["selection"]
    assert selection["tasks"] == ["left", "right"]
    assert selection["rule"] == "mean_skill"
    assert selection["step"] == 4 * selection["epoch"]


def test_the_saved_config_is_the_whole_resolved_one(quick):
    import yaml

    folder = quick("tasks.left.lr=3e-4")
    saved = yaml.safe_load((folder / "config.yaml").read_text())
    assert saved == read_record(folder)["config"]
    assert saved["tasks"]["left"]["lr"] == 3e-4
    assert saved["tasks"]["right"]["lr"] == 1e-3
    assert saved["names"] == {"dataset": "multidigits", "model": "hard", "backbone": "mlp", "weighting": "equal"}


def test_git_commit_and_dirty_flag_are_recorded(quick):
    def git(*arguments):
        subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True, capture_output=True
        )

    assert read_record(quick())["environment"]["git"] is None
    git("init")
    Path(".gitignore").write_text("outputs\n")
    git("add", ".gitignore")
    git("commit", "-m", "x")
    state = read_record(quick("seed=1"))["environment"]["git"]
    assert len(state["commit"]) == 40
    assert state["dirty"] is False
    Path("new").write_text("")
    assert read_record(quick("seed=2"))["environment"]["git"]["dirty"] is True


# ------------------------------------------------------------------------------------- training and selection


def test_the_selected_checkpoint_is_the_best_on_validation_and_is_what_is_tested(quick):
    folder = quick("trainer.epochs=6", "optimizer.lr=0.05", "trainer.monitor=left/accuracy")
    record = read_record(folder)
    validations = read_lines(folder, "val")
    accuracies = [line["val/left/accuracy"] for line in validations]
    best = accuracies.index(max(accuracies))
    assert record["selection"][0]["epoch"] == best + 1
    assert record["val"]["left"]["accuracy"] == max(accuracies)
    (tested,) = read_lines(folder, "test")
    assert tested["test/left/accuracy"] == record["test"]["left"]["accuracy"]
    assert [line["selected"] for line in validations] == [
        value > max(accuracies[:index], default=-1) for index, value in enumerate(accuracies)
    ]

    from mtlrun.setup.prepare import prepare

    parts = prepare(record["config"])
    state = checkpoint.load(folder / "checkpoints" / "best.pt")
    parts.model.load_state_dict(state["model_states"][0])
    parts.model.eval()
    split = parts.dataset.split("test")
    with torch.inference_mode():
        predicted = parts.model(split.inputs).predictions["left"].argmax(dim=1)
    limit = 4 * record["config"]["trainer"]["eval_batch_size"]
    assert limit > len(split)
    assert (predicted == split.targets["left"]).float().mean().item() == pytest.approx(tested["test/left/accuracy"])


def test_patience_ends_the_training(quick):
    folder = quick("trainer.epochs=50", "trainer.patience=2", "trainer.min_delta=0.5")
    record = read_record(folder)
    assert record["epochs"] == record["selection"][0]["epoch"] + 2 < 50


def test_the_length_of_a_run_may_be_given_in_steps(quick):
    folder = quick("trainer.epochs=null", "trainer.steps=7", "trainer.evaluate_every_steps=3")
    assert read_record(folder)["steps"] == 7
    assert [line["step"] for line in read_lines(folder, "val")] == [3, 6, 7]


def test_smoke_is_two_batches_and_one_epoch(quick):
    folder = quick("trainer=smoke", "trainer.limit_batches=2", "trainer.epochs=1")
    assert read_record(folder)["steps"] == 2


def test_each_group_of_the_model_has_its_learning_rate_and_the_schedule_scales_all(quick):
    folder = quick(
        "model=cross_stitch", "optimizer.lr=1e-3", "tasks.left.lr=3e-4", "weighting=uncertainty", "weighting.lr=0.5",
        "scheduler=exponential", "scheduler.gamma=0.5", "trainer.log_every=4",
    )  # fmt: skip
    lines = read_lines(folder, "train")
    for name, lr in {"shared": 1e-3, "stitch": 0.01, "left": 3e-4, "right": 1e-3}.items():
        assert [line[f"lr/{name}"] for line in lines] == pytest.approx([lr, lr / 2, lr / 4])
    assert [line["lr/weighting"] for line in lines] == [0.5] * 3


def test_learning_rates_reach_the_parameters(quick):
    moved = {}
    for rate in ("1e-3", "1e-12"):
        folder = quick(f"tasks.left.lr={rate}", "trainer.epochs=1")
        state = checkpoint.load(folder / "checkpoints" / "last.pt")["model"]
        from mtlrun.setup.prepare import prepare

        first = prepare(read_record(folder)["config"]).model.state_dict()
        moved[rate] = {key: (state[key] - first[key]).abs().max().item() for key in state}
    left = [key for key in moved["1e-3"] if key.startswith("heads.left")]
    assert left
    for key in moved["1e-3"]:
        assert moved["1e-3"][key] > 1e-4
        assert (moved["1e-12"][key] < 1e-6) == (key in left)


def test_single_gives_each_task_the_result_of_a_run_with_that_task_alone(quick):
    common = ["model=single", "trainer.epochs=8", "trainer.patience=2", "trainer.clip_norm=0.1", "optimizer.lr=0.02"]
    together = read_record(quick(*common))
    for task, other in (("left", "right"), ("right", "left")):
        alone = read_record(quick(*common, f"~tasks.{other}"))
        assert alone["test"][task] == together["test"][task]
        assert alone["val"][task] == together["val"][task]
        assert alone["selection"][0] in together["selection"]


def test_a_run_does_not_depend_on_what_the_process_did_before(quick, mtlrun):
    first = read_record(quick("weighting=pcgrad", "backbone.dropout=0.5"))["test"]
    torch.rand(17)
    mtlrun(*QUICK, "runtime.rerun=true", "weighting=pcgrad", "backbone.dropout=0.5")
    assert read_record(run_folders()[0])["test"] == first


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_does_not_change_the_result(workers):
    run(compose([*QUICK, "trainer.epochs=1", "runtime.root=none"]))
    run(compose([*QUICK, "trainer.epochs=1", "runtime.root=some", f"runtime.num_workers={workers}"]))
    assert read_record(run_folders("none")[0])["test"] == read_record(run_folders("some")[0])["test"]


# ------------------------------------------------------------------------------------------------------- diverged


@pytest.mark.parametrize("weighting", ["equal", "uncertainty", "pcgrad", "graddrop"])
def test_a_loss_that_is_not_finite_stops_the_run_before_the_step(weighting, mtlrun, monkeypatch):
    from mtlrun.tasks import Classification

    loss = Classification.loss
    seen = []

    def explode(self, prediction, target):
        if torch.is_grad_enabled():
            seen.append(self)
        value = loss(self, prediction, target)
        step = 1 + (len(seen) - 1) // 2
        return value * float("nan") if step >= 6 and self is seen[1] else value

    with monkeypatch.context() as patch:
        patch.setattr(Classification, "loss", explode)
        code, _, err = mtlrun(*QUICK, f"weighting={weighting}")
    assert code == 3
    assert "step 6: the" in err
    assert "of task right is not finite" in err
    (folder,) = run_folders()
    record = read_record(folder)
    assert record["status"] == "diverged"
    assert record["steps"] == 5
    state = checkpoint.load(folder / "checkpoints" / "last.pt")
    assert state["progress"]["step"] == 4  # the last good one: at the end of the first epoch
    assert all(torch.isfinite(value).all() for value in state["model"].values())

    code, out, _ = mtlrun(*QUICK[:-1], f"weighting={weighting}")
    assert code == 3
    assert "is finished already" in out
    assert "diverged at step 6" in out


def test_an_infinite_gradient_of_a_finite_loss_names_its_task(monkeypatch):
    from mtlrun.tasks import Classification

    loss = Classification.loss
    first = []

    def explode(self, prediction, target):
        first.append(self)
        value = loss(self, prediction, target)
        # The square root of zero has an infinite slope.
        return value + (prediction - prediction.detach()).abs().sum().sqrt() if self is first[0] else value

    monkeypatch.setattr(Classification, "loss", explode)
    with pytest.raises(DivergedError, match="step 1: the gradient of task left is not finite") as caught:
        run(compose(QUICK))
    assert (caught.value.step, caught.value.task) == (1, "left")


def test_a_gradient_whose_square_exceeds_float32_is_clipped_or_refused_for_what_it_is(monkeypatch, quick):
    from mtlrun.tasks import Classification

    loss = Classification.loss
    monkeypatch.setattr(Classification, "loss", lambda *arguments: 1e22 * loss(*arguments))
    with pytest.raises(DivergedError, match=r"step 1: the gradient has a length of .*Try trainer.clip_norm=1"):
        run(compose(QUICK))
    assert read_record(quick("trainer.clip_norm=1"))["status"] == "completed"


# ---------------------------------------------------------------------------------------------------- TensorBoard


def test_the_curves_have_all_tags_once_per_step(quick):
    folder = quick("weighting=pcgrad")
    events = curves(folder)
    scalars = set(events.Tags()["scalars"])
    expected = {
        *(f"update/{kind}/{task}" for kind in ("weight", "grad_norm", "lr") for task in ("left", "right")),
        *(f"{split}/{task}/{metric}" for split in ("val", "result/val", "result/test") for task in ("left", "right")
          for metric in Classification(10).directions()),
        *(f"result/main/{split}/{task}/accuracy" for split in ("val", "test") for task in ("left", "right")),
        "train/left/loss", "train/right/loss", "update/grad_cosine/left_right", "update/grad_conflict",
        "update/lr/shared", "update/fallbacks",
    }  # fmt: skip
    assert scalars == expected
    assert [event.step for event in events.Scalars("train/left/loss")] == [3, 6, 9, 12]
    assert [event.step for event in events.Scalars("val/left/accuracy")] == [4, 8, 12]
    assert [event.value for event in events.Scalars("val/left/accuracy")] == pytest.approx(
        [line["val/left/accuracy"] for line in read_lines(folder, "val")]
    )


def hyperparameters_of(folder):
    content = curves(folder).SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    values = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    return {key: getattr(value, value.WhichOneof("kind")) for key, value in values.items()}


def test_hyperparameters_and_config_are_in_the_same_event_file(quick):
    folder = quick("weighting=gradnorm", "weighting.alpha=0.12", "scheduler=cosine", "tasks.right.lr=0.01", "seed=3")
    events = curves(folder)
    assert len(list(folder.glob("**/events.out.tfevents.*"))) == 1
    text = events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "alpha: 0.12" in text
    # What identifies a run, in capitals, and what was typed; nothing that was not, and nothing that changes no result.
    assert hyperparameters_of(folder) == {
        "Weighting": "gradnorm", "Model": "hard", "Backbone": "mlp", "Seed": "3", "LR": 0.001, "LR right": 0.01,
        "weighting.alpha": 0.12, "scheduler": "cosine", "tasks.right.lr": 0.01,
        "backbone.hidden": "[16]", "dataset": "multidigits", "dataset.pairs_per_image": 1, "dataset.size": 10,
        "trainer.epochs": 3, "trainer.limit_batches": 4, "trainer.log_every": 3,
    }  # fmt: skip


def test_the_weight_of_a_loss_is_the_gradient_of_the_objective(quick):
    lines = read_lines(quick("weighting=static", "tasks.left.weight=0.25", "tasks.right.weight=3"), "train")
    assert {line["weight/left"] for line in lines} == {0.25}
    assert {line["weight/right"] for line in lines} == {3.0}


def test_curves_are_means_over_the_steps_since_the_last_point(quick):
    fine = read_lines(quick("trainer.log_every=1"), "train")
    coarse = read_lines(quick("trainer.log_every=3"), "train")
    means = [sum(line["train/left/loss"] for line in fine[index : index + 3]) / 3 for index in range(0, 12, 3)]
    assert [line["train/left/loss"] for line in coarse] == pytest.approx(means, rel=1e-5)


def test_outputs_follow_the_current_folder(quick):
    folder = quick()
    assert folder.parts[:2] == ("outputs", "runs")
    assert os.listdir() == ["outputs"]
