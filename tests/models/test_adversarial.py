"""Shared and private encoders with an adversary."""

import pytest
import torch
from torch import nn

from mtlrun.models import Adversarial
from mtlrun.models.adversarial import ReverseGradient, overlap
from mtlrun.tasks import Classification


def test_reversal_keeps_features_and_negates_their_gradient():
    features = torch.tensor([[1.0, -2.0]], requires_grad=True)
    passed = ReverseGradient.apply(features, 0.25)
    assert torch.equal(passed, features)
    (passed * torch.tensor([[4.0, 8.0]])).sum().backward()
    assert torch.equal(features.grad, torch.tensor([[-1.0, -2.0]]))


def test_reversal_works_in_compiled_code():
    @torch.compile(backend="eager", fullgraph=True)
    def loss(features):
        return (2 * ReverseGradient.apply(features, 0.5)).sum()

    features = torch.ones(2, 3, requires_grad=True)
    loss(features).backward()
    assert torch.equal(features.grad, -torch.ones(2, 3))


@pytest.mark.parametrize("kind", ["mlp", "maps"])
def test_discriminator_descends_at_full_rate_and_the_shared_encoder_ascends_at_that_of_the_adversary(
    request, kind, three_tasks, make_inputs
):
    backbone = request.getfixturevalue(kind)
    model, inputs = Adversarial(three_tasks, backbone.make, adversarial_weight=0.3), make_inputs(backbone)
    labels = torch.tensor([0, 1, 2, 1])
    encoder, discriminator = list(model.shared.parameters()), list(model.discriminator.parameters())

    features = model.shared(inputs)
    pooled = features.mean(dim=(2, 3)) if features.dim() == 4 else features
    plain = nn.functional.cross_entropy(pooled @ discriminator[0].T + discriminator[1], labels)
    expected = torch.autograd.grad(plain, encoder + discriminator)

    domain_logits = model(inputs).domain_logits
    assert domain_logits.shape == (4, 3)
    private = list(model.private.parameters())
    found = torch.autograd.grad(
        nn.functional.cross_entropy(domain_logits, labels), encoder + discriminator + private, allow_unused=True
    )
    for position, gradient in enumerate(expected):
        factor = -0.3 if position < len(encoder) else 1.0
        torch.testing.assert_close(found[position], factor * gradient)
    assert set(found[len(expected) :]) == {None}


def test_overlap_by_hand():
    shared, private = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.eye(2)
    torch.testing.assert_close(overlap(shared, private), torch.tensor(30.0 / (30 * 2)))
    torch.testing.assert_close(overlap(shared, shared[:, :1]), torch.tensor((10.0**2 + 14**2) / (30 * 10)))


def test_overlap_lies_between_orthogonal_and_equal_directions():
    first, second = torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0, 0.0], [5.0, 1.0, 2.0]])
    assert overlap(first, second) == 0
    torch.testing.assert_close(overlap(first, -3 * first), torch.tensor(1.0))


def test_overlap_does_not_depend_on_scale_or_batch_size():
    shared, private = torch.randn(6, 5), torch.randn(6, 3)
    expected = overlap(shared, private)
    torch.testing.assert_close(overlap(1e-4 * shared, 1e5 * private), expected)
    torch.testing.assert_close(overlap(shared.repeat(4, 1), private.repeat(4, 1)), expected)


def test_overlap_of_features_that_are_all_zero_has_a_finite_gradient():
    shared, private = torch.zeros(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    overlap(shared, private).backward()
    assert torch.equal(shared.grad, torch.zeros(2, 3))
    assert torch.equal(private.grad, torch.zeros(2, 3))


def test_penalty_is_summed_over_the_tasks_and_reaches_both_encoders(maps, tasks, make_inputs):
    model, inputs = Adversarial(tasks, maps.make, orthogonality_weight=0.2), make_inputs(maps)
    penalty = model(inputs).regularizers["orthogonality"]
    shared = model.shared(inputs).mean(dim=(2, 3))
    expected = 0
    for task in tasks:
        private = model.private[task](inputs).mean(dim=(2, 3))
        expected = expected + (shared.T @ private).square().sum() / (shared.square().sum() * private.square().sum())
    torch.testing.assert_close(penalty, 0.2 * expected)
    penalty.backward()
    for encoder in (model.shared, *model.private.values()):
        assert next(encoder.parameters()).grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.discriminator.parameters())


def test_tasks_that_are_not_requested_have_no_penalty_and_stay_classes_of_the_discriminator(mlp, tasks, make_inputs):
    model, inputs = Adversarial(tasks, mlp.make, orthogonality_weight=0.2), make_inputs(mlp)
    full, output = model(inputs), model(inputs, ["place"])
    expected = 0.2 * overlap(model.shared(inputs), model.private["place"](inputs))
    torch.testing.assert_close(output.regularizers["orthogonality"], expected)
    assert torch.equal(output.domain_logits, full.domain_logits)


def test_a_head_sees_shared_and_private_features(mlp, tasks, make_inputs):
    model, inputs = Adversarial(tasks, mlp.make), make_inputs(mlp)
    for task, prediction in model(inputs).predictions.items():
        features = torch.cat([model.shared(inputs), model.private[task](inputs)], dim=1)
        torch.testing.assert_close(prediction, model.heads[task](features))


def test_encoders_start_from_different_weights(mlp, tasks):
    model = Adversarial(tasks, mlp.make)
    first, *others = [next(encoder.parameters()) for encoder in (model.shared, *model.private.values())]
    assert not any(torch.equal(first, other) for other in others)


def test_factors_of_zero_switch_their_terms_off(mlp, tasks, make_inputs):
    model = Adversarial(tasks, mlp.make, adversarial_weight=0.0, orthogonality_weight=0.0)
    output = model(make_inputs(mlp))
    assert not output.regularizers
    output.domain_logits.log_softmax(dim=1)[:, 0].sum().backward()
    assert all(parameter.grad.abs().sum() == 0 for parameter in model.shared.parameters())
    assert model.discriminator.weight.grad.abs().sum() > 0


def test_one_task_alone_has_no_discriminator(mlp, make_inputs):
    model = Adversarial({"kind": Classification(3)}, mlp.make)
    assert model(make_inputs(mlp)).domain_logits is None
    assert [group.name for group in model.parameter_groups()] == ["shared", "kind"]


def test_terms_are_finite_in_half_precision(maps, tasks, make_inputs):
    model = Adversarial(tasks, maps.make)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(make_inputs(maps))
        loss = nn.functional.cross_entropy(output.domain_logits, torch.tensor([0, 1, 0, 1]))
    (loss + output.regularizers["orthogonality"]).backward()
    gradients = [parameter.grad for parameter in model.shared.parameters()]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    assert any(gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("argument", ["adversarial_weight", "orthogonality_weight"])
def test_negative_factors_are_refused(mlp, tasks, argument):
    with pytest.raises(ValueError, match=rf"^{argument} must be >= 0, found -0.1"):
        Adversarial(tasks, mlp.make, **{argument: -0.1})
