"""What a training step waits for a GPU for: on the pretended device, for every weighting."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from small_trainings import DIGITS, Preparation, runs_on_device

from mtlrun.weightings.capabilities import LooksAhead

WEIGHTINGS = sorted(
    path.stem for path in (Path(__file__).parents[2] / "conf" / "weighting").glob("*.yaml") if path.stem[0] != "_"
)

#: The one copy of what a solver on the CPU works with.
_SOLVER = {"gradients/step.py": 1}
#: {weighting: {file: waits that are allowed in a step}}; {} for those that are not listed.
ALLOWED = {
    **dict.fromkeys(
        ["aligned_mtl", "balancer", "cagrad", "config", "dualproj", "fairgrad", "gcs", "gradnorm", "gradvac", "imtl",
         "imtl_g", "mgda", "mgda_ub", "nash_mtl", "pcgrad", "upgrad"], _SOLVER
    ),
    "sdmgrad": {"weightings/sdmgrad.py": 1},
}  # fmt: skip


@pytest.fixture(scope="module")
def digits():
    return Preparation([*DIGITS, "weighting=equal"])


def train(trainer, preparation):
    """Make a step with each kind of labels; the first ones may make what the others use again."""
    for labels in ("absent", "missing", "all", "missing", "absent"):
        meta = preparation.batch(1) if trainer.parts.weighting.capable_of(LooksAhead) else None
        trainer.train_step(preparation.batch(0, labels), meta)
        trainer.progress.step += 1
        yield labels, trainer.progress.step <= 2


def test_a_step_waits_where_it_must_and_gives_what_it_gives_on_the_cpu(digits, tmp_path):
    surplus, different = {}, []
    for name in WEIGHTINGS:
        allowed = Counter(ALLOWED.get(name, {}))
        there = digits.trainer(tmp_path, weighting=name, device=torch.device("cpu"))
        for _ in train(there, digits):
            pass
        with runs_on_device() as accelerator:
            here = digits.trainer(tmp_path, weighting=name)
            for labels, is_new in train(here, digits):
                found = Counter(wait.place.split(":")[0] for wait in accelerator.waits)
                if found - allowed and not is_new:
                    surplus[name, labels] = Counter(accelerator.waits)
                accelerator.waits.clear()
            parameters = [parameter.held for parameter in here.parts.model.parameters()]
        for parameter, other in zip(parameters, there.parts.model.parameters(), strict=True):
            if not torch.allclose(parameter, other, rtol=1e-4, atol=1e-6):
                different.append(name)
    assert not surplus
    assert not different
