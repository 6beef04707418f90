"""RotoGrad: the common length, the rotations, and where these live."""

import pytest
import torch
from helpers import QUICK, run_folders
from torch.nn.functional import cosine_similarity

from mtlrun.config.compose import compose
from mtlrun.errors import ConfigError
from mtlrun.gradients import backward
from mtlrun.models import HardSharing
from mtlrun.models.backbones import MLP
from mtlrun.runs.run import run
from mtlrun.setup.prepare import prepare
from mtlrun.tasks import Classification
from mtlrun.training import checkpoint
from mtlrun.training.trainer import Trainer
from mtlrun.weightings import Equal, RotoGrad, combine

DOUBLE = {"dtype": torch.float64}


def ready(num_tasks=2, width=2, **arguments):
    weighting = RotoGrad(**arguments)
    weighting.setup(num_tasks)
    weighting.attach_rotations(torch.eye(width, **DOUBLE).repeat(num_tasks, 1, 1))
    return weighting


def rows(*lengths):
    """Return task gradients of these lengths along the axes: one sample, as many features as tasks."""
    return torch.diag(torch.tensor(lengths, **DOUBLE))


def random_rotations(num_tasks, width, seed=0):
    raw = torch.randn(num_tasks, width, width, generator=torch.Generator().manual_seed(seed), **DOUBLE)
    return torch.linalg.matrix_exp(raw - raw.mT)


def assert_orthogonal(rotations, tolerance):
    identity = torch.eye(rotations.shape[-1], dtype=rotations.dtype).expand_as(rotations)
    torch.testing.assert_close(rotations @ rotations.mT, identity, rtol=0, atol=tolerance)


# ---------------------------------------------------------------------------------------------- the common length


def test_first_step_gives_all_gradients_their_mean_length():
    direction = combine(ready(), rows(3.0, 5.0))
    torch.testing.assert_close(direction, torch.tensor([4.0, 4.0], **DOUBLE))


def test_a_task_that_converges_slowly_has_more_influence_on_the_length():
    weighting = ready()
    combine(weighting, rows(2.0, 10.0))
    # Ratios to the first norms: 4 / 2 and 5 / 10, so alpha = .8 and .2, and C = .8 * 4 + .2 * 5.
    torch.testing.assert_close(combine(weighting, rows(4.0, 5.0)), torch.tensor([4.2, 4.2], **DOUBLE))


def test_norms_are_taken_over_all_samples_together():
    weighting = ready(width=2)  # two samples of two features
    first, second = torch.tensor([3.0, 0, 0, 4], **DOUBLE), torch.tensor([0, 1.0, 0, 0], **DOUBLE)
    direction = combine(weighting, torch.stack([first, second]))
    torch.testing.assert_close(direction, 3 * (first / 5 + second))  # C is the mean of 5 and 1


def test_reference_norms_are_taken_once_more_after_the_burn_in():
    weighting = ready(burn_in=2)
    compared_with = []
    for step in range(5):
        combine(weighting, rows(1.0 + step, 10.0 - step))
        compared_with.append(weighting.initial_norms.tolist())
    assert compared_with == [[1, 10], [1, 10], [3, 8], [3, 8], [3, 8]]


def test_without_burn_in_the_first_norms_stay():
    weighting = ready(burn_in=0)
    for step in range(30):
        combine(weighting, rows(1.0 + step, 10.0))
    assert weighting.initial_norms.tolist() == [1, 10]


def test_a_gradient_of_zero_is_not_a_reference_norm():
    weighting = ready()
    torch.testing.assert_close(combine(weighting, rows(0.0, 5.0)), torch.tensor([0.0, 5.0], **DOUBLE))
    torch.testing.assert_close(combine(weighting, rows(3.0, 5.0)), torch.tensor([4.0, 4.0], **DOUBLE))


def test_each_task_counts_the_steps_in_which_it_had_a_loss(take_step):
    weighting = ready(num_tasks=3, width=3, burn_in=1)
    take_step(weighting, rows(1.0, 2.0, 3.0)[[0, 2]], torch.ones(2, **DOUBLE), active=[0, 2])
    take_step(weighting, rows(4.0, 5.0, 6.0), torch.ones(3, **DOUBLE))
    assert weighting.initial_norms.tolist() == [4, 5, 6]
    take_step(weighting, rows(7.0, 8.0, 9.0), torch.ones(3, **DOUBLE))
    assert weighting.initial_norms.tolist() == [4, 8, 6]


def test_scaling_can_be_left_out():
    jacobian = torch.randn(2, 8, generator=torch.Generator().manual_seed(0), **DOUBLE)
    torch.testing.assert_close(combine(ready(scale=False), jacobian), jacobian.sum(dim=0))


# ---------------------------------------------------------------------------------------------------- the rotations


def test_turns_get_the_gradient_of_the_papers_objective():
    weighting = ready(num_tasks=3, width=4)
    rotations = random_rotations(3, 4)
    weighting.rotations.copy_(rotations)
    gradients = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(1), **DOUBLE)  # five samples
    combine(weighting, gradients.flatten(1))

    rotated = gradients @ rotations.mT  # by r_k, where g_k = R_k^T gr_k
    reference = torch.stack([gradient / gradient.norm() for gradient in gradients]).mean(dim=0)
    turns = torch.zeros(3, 4, 4, **DOUBLE, requires_grad=True)
    moved = rotations @ torch.linalg.matrix_exp(turns - turns.mT)
    objective = -sum((rotated[k, n] @ moved[k]) @ reference[n] for k in range(3) for n in range(5))
    objective.backward()
    torch.testing.assert_close(weighting.turns.grad, turns.grad)


def test_a_step_turns_the_rotations_from_where_they_stand():
    weighting = ready(num_tasks=2, width=3)
    start = random_rotations(2, 3)
    weighting.rotations.copy_(start)
    turn = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(2), **DOUBLE)
    weighting.turns.data.copy_(turn)
    weighting.learn()
    torch.testing.assert_close(weighting.rotations, start @ torch.linalg.matrix_exp(turn - turn.mT))
    assert not weighting.turns.any()


def test_rotations_stay_rotations_over_thousands_of_steps_in_float32():
    weighting = RotoGrad()
    weighting.setup(2)
    weighting.attach_rotations(torch.eye(8).repeat(2, 1, 1))
    draws = torch.Generator().manual_seed(0)
    for _ in range(3000):
        weighting.turns.data.copy_(0.3 * torch.randn(2, 8, 8, generator=draws))
        weighting.learn()
    assert_orthogonal(weighting.rotations, 2e-6)
    torch.testing.assert_close(torch.linalg.det(weighting.rotations), torch.ones(2), rtol=0, atol=1e-5)
    assert (weighting.rotations - torch.eye(8)).norm() > 1


def test_training_the_rotations_aligns_gradients_that_conflict():
    """The gradients by r_k are fixed and nearly opposed; those by z = R_k^T r_k can be turned."""
    weighting = ready(width=4, lr=0.05)
    by_rotated = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0), **DOUBLE)
    by_rotated[1] = 0.3 * by_rotated[1] - by_rotated[0]
    cosines = []
    for _ in range(200):
        by_representation = (by_rotated @ weighting.rotations).flatten(1)
        cosines.append(cosine_similarity(*by_representation, dim=0).item())
        combine(weighting, by_representation)
        weighting.learn()
    assert cosines[0] < -0.8  # as it stays with identities
    assert cosines[-1] > 0.8
    assert_orthogonal(weighting.rotations, 1e-12)


def test_the_rotation_of_a_task_without_a_loss_stays(take_step):
    weighting = ready(num_tasks=3, width=3, lr=0.05)
    jacobian = torch.randn(2, 12, generator=torch.Generator().manual_seed(0), **DOUBLE)
    take_step(weighting, jacobian, torch.ones(2, **DOUBLE), active=[0, 2])
    moved = (weighting.rotations - torch.eye(3, **DOUBLE)).abs().amax(dim=(1, 2))
    assert moved[0] > 1e-3
    assert moved[1] == 0
    assert moved[2] > 1e-3


def test_a_single_task_is_not_rotated():
    weighting = ready(num_tasks=1, width=3)
    combine(weighting, torch.randn(1, 12, **DOUBLE))
    torch.testing.assert_close(weighting.turns.grad, torch.zeros(1, 3, 3, **DOUBLE))


# --------------------------------------------------------------------------------------------------- in the model


@pytest.fixture
def model():
    torch.manual_seed(0)
    return HardSharing({"a": Classification(3), "b": Classification(2)}, lambda: MLP((4,), hidden=[6, 5]))


def test_each_head_sees_its_rotation_of_the_features_in_training_and_evaluation(model):
    inputs = torch.randn(7, 4)
    plain = {task: prediction.detach() for task, prediction in model(inputs).predictions.items()}
    model.add_rotations()
    for task, prediction in model(inputs).predictions.items():
        torch.testing.assert_close(prediction, plain[task])
    model.rotations.copy_(random_rotations(2, 5))
    features = model.encode(inputs)
    for training in (True, False):
        predictions = model.train(training)(inputs).predictions
        for index, task in enumerate("ab"):
            view = torch.stack([model.rotations[index] @ sample for sample in features])
            torch.testing.assert_close(predictions[task], model.heads[task](view))
            assert (predictions[task] - plain[task]).abs().max() > 0.01


def test_rotations_are_state_of_the_model_only_where_they_were_added_and_never_parameters(model):
    before, parameters = set(model.state_dict()), len(list(model.parameters()))
    model.add_rotations()
    assert set(model.state_dict()) - before == {"rotations"}
    assert len(list(model.parameters())) == parameters


def test_with_identities_and_without_scaling_the_step_is_that_of_equal_weights(model):
    def step(weighting):
        weighting.setup(2)
        if isinstance(weighting, RotoGrad):
            weighting.attach_rotations(model.add_rotations())
        model.zero_grad()
        representation = model.encode(torch.randn(7, 4, generator=torch.Generator().manual_seed(1)))
        predictions = model.decode(representation)
        losses = [prediction.square().sum() for prediction in predictions.values()]
        own = list(model.task_parameters().values())
        backward(weighting, losses, model.shared_parameters(), own, representation=representation)
        return [parameter.grad for parameter in model.parameters()]

    torch.testing.assert_close(step(RotoGrad(scale=False)), step(Equal()))


def test_one_training_step_moves_the_rotations_as_their_optimizer_says(tmp_path, monkeypatch):
    parts = prepare(compose([*QUICK, "weighting=rotograd", "weighting.optimizer=sgd", "weighting.lr=0.5"]))
    gradients = []
    learn = RotoGrad.learn
    monkeypatch.setattr(RotoGrad, "learn", lambda self: (gradients.append(self.turns.grad.clone()), learn(self)))
    Trainer(parts, folder=tmp_path).train_step(next(iter(parts.loaders["train"].batches(0))))
    turns = -0.5 * gradients[0]
    assert turns.abs().max() > 1e-5
    torch.testing.assert_close(parts.model.rotations, torch.linalg.matrix_exp(turns - turns.mT))
    assert not parts.weighting.turns.any()


def test_the_turns_are_not_in_the_optimizer_of_the_model():
    parts = prepare(compose([*QUICK, "weighting=rotograd", "weighting.lr=0.002", "optimizer=adamw"]))
    held = [id(parameter) for group in parts.optimizer.param_groups for parameter in group["params"]]
    assert sorted(held) == sorted(id(parameter) for parameter in parts.model.parameters())
    learner = parts.weighting.learner
    assert (learner.parameters, learner.lr) == ([parts.weighting.turns], 0.002)
    assert parts.weighting.rotations is parts.model.rotations


def test_selected_weights_hold_the_rotations_that_they_were_selected_with(tmp_path):
    config = compose([*QUICK, "weighting=rotograd", "weighting.lr=0.1", "trainer.evaluate_every_steps=3"])
    record = run(config)
    (folder,) = run_folders()
    best = checkpoint.load(folder / "checkpoints" / "best.pt")["model_states"][0]
    assert_orthogonal(best["rotations"], 1e-5)
    assert (best["rotations"] - torch.eye(16)).abs().max() > 0.05

    trainer = Trainer(prepare(config), folder=tmp_path)
    trainer.parts.model.load_state_dict(best)
    assert trainer.evaluate("test") == record.test
    trainer.parts.model.rotations.copy_(torch.eye(16))
    assert trainer.evaluate("test") != record.test


# ------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grad_wrt": "shared"}, "grad_wrt must be 'representation', .* found 'shared'"),
        ({"burn_in": -1}, "burn_in must be >= 0, found -1"),
        ({"lr": 0}, "lr must be > 0.* found 0"),
    ],
)
def test_arguments_out_of_bounds_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RotoGrad(**arguments)


def test_training_without_rotations_is_refused():
    with pytest.raises(ValueError, match="call `attach_rotations` before the first step"):
        combine(RotoGrad(), torch.ones(2, 4))


def test_a_model_without_a_place_for_rotations_is_refused():
    with pytest.raises(ConfigError, match=r"weighting=rotograd rotates .* model=cross_stitch has no place for that"):
        prepare(compose([*QUICK, "weighting=rotograd", "model=cross_stitch"]))
