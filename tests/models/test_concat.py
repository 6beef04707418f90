"""Late fusion of networks trained apart."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from helpers import QUICK, read_record, run_folders

from mtlrun.models import Concat
from mtlrun.runs.restore import restore
from mtlrun.runs.run import run as train_run

SINGLE = ["model=single"]


def test_heads_see_the_features_of_all_networks(backbone, tasks, make_inputs):
    model, inputs = Concat(tasks, backbone.make, freeze=False).eval(), make_inputs(backbone)
    features = torch.cat([model.backbones[task](inputs) for task in tasks], dim=1)
    predictions = model(inputs).predictions
    for task in tasks:
        assert torch.equal(predictions[task], model.heads[task](features))
    single = backbone.make().feature_shape
    assert features.shape[1:] == (len(tasks) * single[0], *single[1:])


def test_frozen_networks_stay_in_evaluation_mode_and_are_not_trained(backbone, tasks):
    frozen, free = Concat(tasks, backbone.make).train(), Concat(tasks, backbone.make, freeze=False).train()
    assert not any(parameter.requires_grad for parameter in frozen.backbones.parameters())
    assert not any(module.training for module in frozen.backbones.modules())
    assert all(module.training for module in free.modules())
    assert frozen.shared_parameters() == []
    assert len(free.shared_parameters()) == len(list(free.backbones.parameters()))
    assert all(parameter.requires_grad for parameter in frozen.heads.parameters())


def by_model():
    """Return {name of the model: run folder}."""
    return {read_record(folder)["config"]["names"]["model"]: folder for folder in run_folders()}


def test_one_command_trains_the_networks_and_then_the_heads(mtlrun):
    words = [*QUICK, "model=concat", "weighting=dwa", "trainer.evaluate_every=1"]
    code, _, err = mtlrun(*words)
    assert code == 0, err
    found = by_model()
    assert found.keys() == {"single", "concat"}
    record, single = read_record(found["concat"]), read_record(found["single"])
    assert record["started_from"] == {"run_id": single["run_id"], "folder": str(found["single"])}
    assert single["overrides"][:2] == ["model=single", "weighting=equal"]
    assert not any("dwa" in word or "concat" in word for word in single["overrides"])
    trained, before = (restore(found[name], device="cpu").model for name in ("concat", "single"))
    for task, (network, _) in before.task_networks().items():
        for name, value in network.state_dict().items():
            assert torch.equal(trained.backbones[task].state_dict()[name], value), name
    assert "shared" not in record["parameters"]
    assert record["parameters"]["frozen"] > 0
    # The first stage is the run of that command, and both are found again.
    written = {folder: (folder / "record.json").stat().st_mtime_ns for folder in found.values()}
    assert mtlrun(*words)[0] == 0
    assert mtlrun(*QUICK, "model=single", "trainer.evaluate_every=1")[0] == 0
    assert {folder: (folder / "record.json").stat().st_mtime_ns for folder in run_folders()} == written
    # With another learning of the heads alone, the networks are those that are there.
    assert mtlrun(*words, "model.freeze=false")[0] == 0
    assert len(run_folders()) == 3
    # A finished run needs its first stage no more.
    shutil.rmtree(found["single"])
    assert restore(found["concat"], device="cpu").model is not None


def test_a_stop_in_either_stage_goes_on_there(mtlrun, monkeypatch):
    words = [*QUICK, "model=concat"]
    from mtlrun.runs import run as module

    make, models = module.Trainer, []

    def make_stopping(*arguments, **options):
        trainer = make(*arguments, **options)
        models.append(type(trainer.parts.model).__name__)
        first = len(models)
        trainer.stop_signal = lambda: 15 if trainer.progress.step >= 2 and first in (1, 3) else None
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(module, "Trainer", make_stopping)
        for code in (143, 143, 0):
            assert mtlrun(*words)[0] == code
    assert models == ["SingleTask", "SingleTask", "Concat", "Concat"]
    found = by_model()
    assert {name: read_record(folder)["resumed"] for name, folder in found.items()} == {"single": 1, "concat": 1}
    stopped = read_record(found["concat"])["test"]
    shutil.rmtree("outputs")
    assert mtlrun(*words)[0] == 0
    assert read_record(by_model()["concat"])["test"] == stopped


def test_a_given_run_and_random_weights_are_possible_too(quick, mtlrun):
    single = quick(*SINGLE)
    started = quick("model=concat", f"model.init_from={single}")
    assert read_record(started)["started_from"]["run_id"] == single.name
    random = quick("model=concat", "model.init_from=null", "model.freeze=false")
    assert read_record(random)["started_from"] is None
    before = set(run_folders())
    code, _, err = mtlrun(*QUICK, "model=concat", "weighting=mgda", "seed=5")
    assert code == 2
    assert "model=concat has none" in err
    assert set(run_folders()) == before  # the first stage is not trained for a run that is refused
    code, _, err = mtlrun(*QUICK, "model=concat", "model.init_from=nowhere")
    assert code == 2
    assert "no run there" in err


def test_another_process_that_trains_the_first_stage_is_waited_for(mtlrun, monkeypatch):
    from mtlrun.errors import RunInUseError
    from mtlrun.runs import first_stage
    from mtlrun.runs import run as module

    waits = []
    monkeypatch.setattr(first_stage, "time", SimpleNamespace(sleep=waits.append))  # other threads sleep as ever

    def busy_at_first(config, **options):
        if config["names"]["model"] == "single" and not waits:
            raise RunInUseError("in use")
        return train_run(config, **options)

    monkeypatch.setattr(module, "run", busy_at_first)
    assert mtlrun(*QUICK, "model=concat")[0] == 0
    assert len(waits) == 1
    assert by_model().keys() == {"single", "concat"}


@pytest.mark.slow
def test_a_sweep_over_what_the_heads_learn_trains_the_networks_once(mtlrun):
    words = ["dataset=kendall_toy", "backbone.hidden=[4]", "trainer.epochs=1", "runtime.quiet=true"]
    code, _, err = mtlrun("-m", *words, "model=concat", "model.freeze=true,false")
    assert code == 0, err
    names = sorted(read_record(folder)["config"]["names"]["model"] for folder in run_folders())
    assert names == ["concat", "concat", "single"]
