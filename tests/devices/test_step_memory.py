"""Memory that a training step takes on the device, in units of the model's parameters."""

import gc

from small_trainings import Preparation, runs_on_device

WIDE = [
    "dataset=multidigits", "dataset.pairs_per_image=1", "dataset.size=10", "backbone=mlp",
    "backbone.hidden=[512,512]", "trainer.batch_size=12", "weighting=equal",
]  # fmt: skip
#: {weighting: (held between steps, the most in a step)}: a little above what is measured. Parameters and Adam's moments
#: are 3, their gradients 1, K task gradients K; methods of the Jacobian have these as a matrix besides.
BOUNDS = {
    "equal": (3.1, 4.3),
    "uncertainty": (3.1, 4.3),
    "pcgrad": (3.1, 6.6),
    "db_mtl": (4.9, 8.8),
    "moco": (4.9, 8.8),
    "graddrop": (3.1, 12.3),
    "modo": (3.1, 12.2),
}


def test_a_step_takes_no_more_memory_than_it_did(tmp_path):
    wide = Preparation(WIDE)
    too_much = {}
    for name, bounds in BOUNDS.items():
        with runs_on_device() as accelerator:
            trainer = wide.trainer(tmp_path, name)
            size = sum(parameter.nbytes for parameter in trainer.parts.model.parameters())
            trainer.train_step(wide.batch(0))
            trainer.parts.optimizer.zero_grad()
            gc.collect()  # what refers to each other
            with accelerator.measured_memory() as measured:
                trainer.train_step(wide.batch(1))
                found = [number / size for number in measured()]
            del trainer
            gc.collect()
        assert found[0] >= 3
        if any(number > bound for number, bound in zip(found, bounds, strict=True)):
            too_much[name] = found
    assert not too_much
