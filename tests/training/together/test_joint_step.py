"""A step of several seeds at once, against the steps that each makes alone."""

from itertools import count, islice

import pytest
import torch

from mtlrun.config.compose import compose
from mtlrun.setup.prepare import prepare
from mtlrun.setup.together import check_together
from mtlrun.training.together.joint_step import JointStep
from mtlrun.training.together.stacked_models import find_difference
from mtlrun.training.trainer import Trainer

TOY = [
    "dataset=kendall_toy",
    "backbone.hidden=[6]",
    "trainer.batch_size=40",
    "scheduler=cosine",
]  # two sizes of batches
DIGITS = ["dataset=multidigits", "dataset.pairs_per_image=1", "dataset.size=10", "trainer.batch_size=12",
          "trainer.limit_batches=4"]  # fmt: skip
CASES = {
    **{name: [*TOY, f"weighting={name}"] for name in ("uncertainty", "dwa", "rlw")},
    **{name: [*TOY, f"weighting={name}"] for name in ("pcgrad", "graddrop")},
    "scaled losses": [*TOY, "weighting=mgda", "weighting/losses=uncertainty"],
    "momentum, clipping": [*TOY, "optimizer=sgd", "optimizer.momentum=0.9", "optimizer.lr=1e-4", "trainer.clip_norm=1"],
    "no elementwise step": [*TOY, "optimizer._target_=torch.optim.ASGD", "~optimizer.betas", "~optimizer.eps"],
    "batch norm": [*DIGITS, "backbone=mlp", "backbone.hidden=[8]", "backbone.norm=batch", "optimizer=sgd"],
    "regularizer, gradients": [
        *DIGITS,
        "model=sluice",
        "backbone=mlp",
        "backbone.hidden=[8,8]",
        "weighting=aligned_mtl",
        "optimizer=sgd",
    ],
    "regularizer": [*DIGITS, "model=soft", "backbone=convnet", "backbone.channels=[4]", "optimizer=adamw"],
}


def trainers(folder, words):
    made = []
    for seed in (3, 4):
        parts = prepare(compose([*words, f"seed={seed}"]))
        parts.model.train()
        made.append(Trainer(parts, folder=folder))
    return made


def batches(trainer):
    """Return the batches of two epochs and a half."""
    epochs = (trainer.parts.loaders["train"].batches(epoch) for epoch in count())
    return list(islice((batch for epoch in epochs for batch in epoch), trainer.steps_per_epoch * 5 // 2))


def outcome(trainer):
    state = {**trainer.parts.model.state_dict(), **trainer.parts.weighting.state_dict()}
    moments = [value for each in trainer.parts.optimizer.state.values() for value in each.values()]
    tensors = [value.double() for value in [*state.values(), *moments] if isinstance(value, torch.Tensor)]
    return tensors, trainer.step_means.means()


@pytest.mark.parametrize("case", CASES)
def test_a_step_of_all_is_that_of_each(case, tmp_path):
    together, alone = trainers(tmp_path, CASES[case]), trainers(tmp_path, CASES[case])
    check_together(together[0].parts, 2)
    step = JointStep(together)
    for number, pair in enumerate(zip(*map(batches, together), strict=True)):
        if number == 3:  # a step that is made by each alone, in between
            step.release()
            for trainer, batch in zip(together, pair, strict=True):
                trainer.train_step(batch)
            step = JointStep(together)
        else:
            assert step.make(pair) == [None, None]
        for trainer, batch in zip(alone, pair, strict=True):
            trainer.train_step(batch)
        for trainer in (*together, *alone):
            trainer.progress.step += 1
            if trainer.progress.step % trainer.steps_per_epoch == 0:
                trainer.parts.weighting.epoch_ended()
    for trainer, twin in zip(together, alone, strict=True):
        (tensors, means), (others, expected) = outcome(trainer), outcome(twin)
        assert means == pytest.approx(expected, rel=1e-5)
        assert len(tensors) == len(others)
        for tensor, other in zip(tensors, others, strict=True):
            atol = 1e-7 + 1e-5 * float(other.nan_to_num().abs().max())
            torch.testing.assert_close(tensor, other, rtol=1e-4, atol=atol, equal_nan=True)


def test_what_of_models_is_not_stacked_is_compared():
    def model(**attributes):
        layer = torch.nn.Linear(2, 2)
        inner = torch.nn.Sequential(layer, torch.nn.ReLU())
        for name, value in attributes.items():
            setattr(inner, name, value)
        return torch.nn.Sequential(inner)

    assert find_difference([model(order=[1, 2]), model(order=[1, 2])]) is None
    assert find_difference([model(order=[1, 2]), model(order=[2, 1])]) == "0.order.0"
    assert find_difference([model(mask=torch.ones(2)), model(mask=torch.zeros(2))]) == "0.mask"
    assert find_difference([model(rate=0.1), model(rate="0.1")]) == "0.rate"
