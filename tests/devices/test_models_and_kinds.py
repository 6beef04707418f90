"""Training steps of all models and kinds of tasks on the pretended device: no mixing, no waits, nothing forbidden."""

import copy
from collections import Counter

import pytest
import torch
from forbidden import FORBIDDEN
from helpers import CONF, sample_of
from pretended import DEVICE, Accelerator
from small_trainings import DIGITS, SCENES, Preparation, runs_on_device

from mtlrun.tasks import (
    BinaryClassification,
    Classification,
    Count,
    Depth,
    MultiLabel,
    Ordinal,
    Regression,
    Segmentation,
    SurfaceNormals,
)
from mtlrun.training.batch import LabeledBatch

MODELS = sorted(path.stem for path in (CONF / "model").glob("*.yaml"))
DATA = {"digits": DIGITS, "scenes": SCENES}
#: Models whose steps wait, and for what: an eigenvalue decomposition looks whether it has succeeded.
WAITING = {"soft_trace": "_linalg_eigh"}


@pytest.fixture(scope="module")
def preparations():
    return {name: Preparation(words) for name, words in DATA.items()}


@pytest.mark.parametrize(
    ("data", "models"),
    sample_of(
        lambda data, models: data == "digits" or models is not MODELS,
        [
            ("digits", [name for name in MODELS if name != "mti_net"]),  # it is for maps
            ("scenes", ["mtan", "sluice"]),
            ("scenes", MODELS),
        ],
    ),
    ids=lambda value: value if isinstance(value, str) else f"{len(value)} models",
)
def test_a_step_of_a_model_waits_for_nothing_and_is_deterministic(data, models, preparations, tmp_path):
    preparation, found = preparations[data], {}
    for model in models:
        with runs_on_device() as accelerator:
            trainer = preparation.trainer(tmp_path, model=model)
            for labels in ("absent", "missing"):
                accelerator.waits.clear()
                trainer.train_step(preparation.batch(0, labels))
                trainer.progress.step += 1
            waits = {wait for wait in accelerator.waits if wait.operation != WAITING.get(model)}
            forbidden = FORBIDDEN & accelerator.operations.keys()
            if waits or forbidden:
                found[model] = waits, forbidden
    assert not found


SIZE = 6
KINDS = {
    "binary": (BinaryClassification(), (SIZE, 1), torch.tensor([0, 1, 1, 0, 1, 0])),
    "classification": (Classification(3), (SIZE, 3), torch.tensor([0, 1, 2, 0, 1, 2])),
    "focal": (Classification(3, criterion="focal", class_weights=[1.0, 2.0, 3.0]), (SIZE, 3), torch.arange(SIZE) % 3),
    "count": (Count(), (SIZE, 1), torch.tensor([0, 3, 1, 2, 5, 0])),
    "multilabel": (MultiLabel(4), (SIZE, 4), torch.arange(24).view(SIZE, 4) % 2),
    "ordinal": (Ordinal(4), (SIZE, 3), torch.arange(SIZE) % 4),
    "corn": (Ordinal(4, criterion="corn"), (SIZE, 3), torch.arange(SIZE) % 4),
    "regression": (Regression(2), (SIZE, 2), torch.arange(12.0).view(SIZE, 2)),
    "huber": (Regression(1, criterion="huber"), (SIZE, 1), torch.arange(6.0).view(SIZE, 1)),
    "depth": (Depth(), (SIZE, 1, 4, 4), torch.rand(SIZE, 4, 4) + 1),
    "segmentation": (Segmentation(3), (SIZE, 3, 4, 4), torch.arange(96).view(SIZE, 4, 4) % 3),
    "normals": (SurfaceNormals(), (SIZE, 3, 4, 4), torch.nn.functional.normalize(torch.randn(SIZE, 3, 4, 4), dim=1)),
}


@pytest.mark.parametrize("how", ["all", "missing", "weighted"])
def test_a_loss_of_any_kind_waits_for_nothing_and_metrics_mix_no_devices(how):
    tasks = {name: copy.deepcopy(task) for name, (task, _, _) in KINDS.items()}
    targets = {name: target.clone() for name, (_, _, target) in KINDS.items()}
    for name, task in tasks.items():
        if task.needs_fit:
            task.fit([targets[name]])
    if how == "missing":
        for name, target in targets.items():
            target[1::3] = torch.nan if target.is_floating_point() else -1
            assert tasks[name].labeled(target).sum() == 4
    weights = {name: torch.arange(SIZE) % 3 + 0.0 for name in tasks} if how == "weighted" else {}
    with Accelerator() as accelerator:
        for task in tasks.values():
            task.to(DEVICE)
        predictions = {name: torch.rand(shape).to(DEVICE).requires_grad_() for name, (_, shape, _) in KINDS.items()}
        batch = LabeledBatch.load(tasks, (torch.zeros(SIZE, 1), targets, weights), DEVICE)
        accelerator.waits.clear()
        (samples,) = batch.source_batches
        losses = samples.losses(predictions)
        torch.stack(list(losses.values())).sum().backward()
        batch.num_terms()
        assert not Counter(accelerator.waits)
        assert not FORBIDDEN & accelerator.operations.keys()
        assert all(prediction.grad.held.isfinite().all() for prediction in predictions.values())
        with torch.inference_mode():
            for name, task in tasks.items():
                meter = task.meter().to(DEVICE)
                meter.update(samples.pick(name, predictions[name].detach()), samples.targets[name])
                assert meter.compute().keys() == task.directions().keys()
