"""What a training step waits for a GPU for: on the pretended device, for every weighting."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from forbidden import FORBIDDEN
from small_trainings import DIGITS, Preparation, runs_on_device

from mtlrun.weightings.capabilities import LooksAhead

WEIGHTINGS = sorted(
    path.stem for path in (Path(__file__).parents[2] / "conf" / "weighting").glob("*.yaml") if path.stem[0] != "_"
)

#: The one copy of what a solver on the CPU works with.
_SOLVER = {"weightings/transfer.py": 1}
#: {weighting: {file: waits that are allowed in a step}}; {} for those that are not listed.
ALLOWED = {
    **dict.fromkeys(
        ["aligned_mtl", "balancer", "cagrad", "config", "dualproj", "fairgrad", "gcs", "gradnorm", "gradvac", "imtl",
         "imtl_g", "mgda", "mgda_ub", "nash_mtl", "pcgrad", "upgrad"], _SOLVER
    ),
    "sdmgrad": _SOLVER,
}  # fmt: skip


@pytest.fixture(scope="module")
def digits():
    return Preparation([*DIGITS, "weighting=equal"])


def train(trainer, preparation):
    """Make a step with each kind of labels; the first ones may make what the others use again."""
    for labels in ("absent", "all", "missing", "absent"):
        meta = preparation.batch(1) if trainer.parts.weighting.capable_of(LooksAhead) else None
        trainer.train_step(preparation.batch(0, labels), meta)
        trainer.progress.step += 1
        yield labels, trainer.progress.step == 1


def surplus_of(trainer, preparation, accelerator, allowed):
    """Return {kind of labels: waits of a step that are not allowed}."""
    surplus = {}
    for labels, is_new in train(trainer, preparation):
        found = Counter(wait.place.split(":")[0] for wait in accelerator.waits)
        if found - Counter(allowed) and not is_new:
            surplus[labels] = Counter(accelerator.waits)
        accelerator.waits.clear()
    return surplus


def test_a_step_waits_where_it_must_and_gives_what_it_gives_on_the_cpu(digits, tmp_path):
    surplus, forbidden, different = {}, {}, []
    for name in WEIGHTINGS:
        there = digits.trainer(tmp_path, name, device=torch.device("cpu"))
        for _ in train(there, digits):
            pass
        with runs_on_device() as accelerator:
            here = digits.trainer(tmp_path, name)
            if found := surplus_of(here, digits, accelerator, ALLOWED.get(name, {})):
                surplus[name] = found
            if found := FORBIDDEN & accelerator.operations.keys():
                forbidden[name] = found
            parameters = [parameter.held for parameter in here.parts.model.parameters()]
        for parameter, other in zip(parameters, there.parts.model.parameters(), strict=True):
            if not torch.allclose(parameter, other, rtol=1e-4, atol=1e-6):
                different.append(name)
    assert not surplus
    assert not forbidden
    assert not different


#: (weighting, its options, keys of `trainer`): what takes another path than the defaults do.
VARIANTS = [
    ("equal", {}, {"micro_batches": 3}),
    ("equal", {}, {"micro_batches": 3, "clip_norm": 1.0, "checkpoint_activations": True}),
    ("equal", {"loss_transform": "log"}, {"micro_batches": 3}),
    ("dwa", {}, {"micro_batches": 3}),
    ("dtp", {}, {"micro_batches": 3}),
    ("pcgrad", {}, {"micro_batches": 3, "clip_norm": 1.0}),
    ("pcgrad", {}, {"micro_batches": 3, "two_pass": True}),
    ("pcgrad", {}, {"stream_rows": True}),
    ("pcgrad", {}, {"two_pass": True}),
    ("pcgrad", {"grad_wrt": "representation", "loss_transform": "log"}, {}),
    ("mgda", {"grad_wrt": "representation"}, {"two_pass": True}),
    ("gradnorm", {"grad_wrt": "last_layer"}, {}),
    ("balancer", {"norm_of": "sample", "grad_wrt": "representation"}, {}),
    ("cagrad", {"update_weights_every": 3}, {}),
    ("graddrop", {"grad_wrt": "representation", "activation_signs": True, "keep_norm": True}, {}),
    ("excess_mtl", {"head_loss": "weighted", "warmup_epochs": 0}, {"micro_batches": 3}),
    ("moco", {"normalize": True, "projection": "softmax", "updated_weights": True}, {"micro_batches": 3}),
]


def test_other_paths_wait_for_nothing_else(digits, tmp_path):
    surplus = {}
    for name, options, settings in VARIANTS:
        with runs_on_device() as accelerator:
            trainer = digits.trainer(tmp_path, name, options, **settings)
            if found := surplus_of(trainer, digits, accelerator, ALLOWED.get(name, {})):
                surplus[name, *options, *settings] = found
    assert not surplus


def test_a_logged_step_is_read_in_few_copies(digits, tmp_path):
    """Losses and weights, the verdict of the guard; with gradients of the log, their products as well."""
    for name, settings in (("uncertainty", {}), ("pcgrad", {}), ("equal", {"log_gradients_every": 1})):
        with runs_on_device() as accelerator:
            trainer = digits.trainer(tmp_path, name, log_every=1, **settings)
            for _ in range(2):
                accelerator.waits.clear()
                trainer.train_step(digits.batch(0))
                trainer.progress.step += 1
                trainer.log_step()
            assert len(accelerator.waits) <= 4, Counter(accelerator.waits)
