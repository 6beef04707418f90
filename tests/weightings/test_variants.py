"""The variants of the methods, against formulas of the published code and papers, written out without the methods."""

import pytest
import torch
from helpers import weighting_node
from torch import nn

from mtlrun.config.compose import compose
from mtlrun.config.instantiate import build
from mtlrun.gradients import backward
from mtlrun.weightings import FAMO, ExcessMTL, GradDrop, SDMGrad, combine
from mtlrun.weightings.solvers.simplex import project_on_simplex


def random(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make(method, variant, num_tasks=3, **changes):
    node = compose([f"weighting={method}", f"weighting.variant={variant}"])["weighting"]
    weighting = build(node | changes, "weighting")
    weighting.setup(num_tasks)
    return weighting


def default(method, num_tasks=3, **changes):
    weighting = build(weighting_node(method) | changes, "weighting")
    weighting.setup(num_tasks)
    return weighting


class Net:
    """Two tasks on a representation [5, 4] that is negative in places."""

    def __init__(self):
        self.inputs, self.trunk = random(5, 3), nn.Linear(3, 4).double()
        self.heads = [nn.Linear(4, 1).double(), nn.Linear(4, 1).double()]

    def losses(self):
        z = torch.tanh(self.trunk(self.inputs))
        return z, [(scale * head(z) - scale).square().mean() for scale, head in zip((1, 20), self.heads, strict=True)]

    def step(self, weighting, parts=1):
        """Return the gradients of the trunk and of the heads, flat."""
        for module in (self.trunk, *self.heads):
            module.zero_grad()
        z, losses = self.losses()
        trunk, heads = list(self.trunk.parameters()), [list(head.parameters()) for head in self.heads]
        many = [losses] * parts if parts > 1 else ()
        backward(weighting, losses, trunk, heads, representation=z, parts=many)
        return self.flat(trunk), [self.flat(head) for head in heads]

    @staticmethod
    def flat(parameters):
        return torch.cat([parameter.grad.flatten() for parameter in parameters])


def test_official_aligned_mtl_adds_up_the_columns_of_the_balance_matrix():
    jacobian = random(3, 5)
    eigenvalues, vectors = torch.linalg.eigh(jacobian @ jacobian.T)
    balance = eigenvalues[0].sqrt() * vectors @ (1 / eigenvalues.sqrt()).diag() @ vectors.T
    torch.testing.assert_close(combine(make("aligned_mtl", "official"), jacobian), balance.sum(dim=0) @ jacobian)


def test_official_excess_mtl_weighs_from_the_first_step_on():
    weighting, squares, weights, initial = (
        make("excess_mtl", "official"),
        torch.zeros(3, 5).double(),
        torch.ones(3),
        None,
    )
    weights = weights.double()
    for step in range(5):
        jacobian = random(3, 5, seed=step)
        squares = squares + jacobian**2
        excess = (jacobian**2 / squares.sqrt()).sum(dim=1)
        if initial is None:
            initial = excess
        else:
            weights = weights * torch.exp(0.01 * excess / initial)
            weights = 3 * weights / weights.sum()
        torch.testing.assert_close(combine(weighting, jacobian), weights @ jacobian)
    assert (weights - 1).abs().max() > 1e-3


def test_weighted_heads_of_excess_mtl_are_trained_by_the_weights_of_the_direction():
    plain, weighted = (
        ExcessMTL(warmup_epochs=0, reduction="sum", head_loss=head) for head in ("unweighted", "weighted")
    )
    net = Net()
    for weighting in (plain, weighted):
        weighting.setup(2)
    for seed in range(3):
        net.inputs = random(5, 3, seed=seed)
        (direction, heads), (same, scaled) = net.step(plain), net.step(weighted)
        torch.testing.assert_close(direction, same)
        assert weighted.head_weights.sum().item() == pytest.approx(2)
        for head, other, weight in zip(heads, scaled, weighted.head_weights, strict=True):
            torch.testing.assert_close(weight * head, other)
    assert (weighted.head_weights - 1).abs().max() > 0.01


def test_official_moco_takes_the_softmax_and_the_updated_weights():
    weighting = make("moco", "official")
    tracked, weights = torch.zeros(3, 5).double(), torch.full((3,), 1 / 3).double()
    for step in range(1, 6):
        jacobian, losses = random(3, 5, seed=step), random(3, seed=10 + step).abs()
        scaled = jacobian / jacobian.norm(dim=1, keepdim=True) * losses.unsqueeze(1)
        tracked = tracked - 0.5 / step**0.5 * (tracked - scaled)
        weights = torch.softmax(weights - 0.1 / step**0.5 * tracked @ tracked.T @ weights, dim=0)
        torch.testing.assert_close(combine(weighting, jacobian, losses), tracked.T @ weights)


def test_official_db_mtl_keeps_nine_tenths_of_the_past():
    weighting, average = make("db_mtl", "official"), torch.zeros(3, 5).double()
    for step in range(4):
        jacobian, losses = random(3, 5, seed=step), random(3, seed=10 + step).abs() + 0.1
        average = jacobian / losses.unsqueeze(1) + 0.9 * (average - jacobian / losses.unsqueeze(1))
        lengths = average.norm(dim=1)
        expected = (lengths.max() / lengths) @ average
        torch.testing.assert_close(combine(weighting, jacobian, losses), expected, rtol=1e-6, atol=1e-6)


def test_official_sdmgrad_is_as_many_times_as_long_as_there_are_tasks_and_clipped():
    first, second, third = (random(3, 5, seed=seed) for seed in range(3))
    weights, velocity = torch.full((3,), 1 / 3).double(), torch.zeros(3).double()
    products = first @ second.T
    products = products / products.diagonal().abs().sqrt().mean() ** 2
    for _ in range(20):
        velocity = 0.5 * velocity + products @ weights + 0.3 * products.mean(dim=1)
        weights = project_on_simplex(weights - 10 * velocity)
    expected = 3 * (weights @ third + 0.3 * third.mean(dim=0)) / 1.3
    found = make("sdmgrad", "official").combine_parts([first, second, third], torch.ones(3, 3))
    torch.testing.assert_close(found, expected)
    free = SDMGrad(reduction="sum")
    free.setup(2)
    direction, heads = Net().step(free, parts=3)
    clipped, same = Net().step(make("sdmgrad", "official", num_tasks=2), parts=3)
    assert direction.norm() > 1
    assert clipped.norm().item() == pytest.approx(1, rel=1e-4)
    assert [head.norm() > 1 for head in same] == [head.norm() > 1 for head in heads]


def test_official_lbtw_scales_the_weights_to_sum_to_the_number_of_tasks():
    weighting, first, second = make("lbtw", "official"), random(3).abs() + 0.1, random(3, seed=1).abs() + 0.1
    eye = torch.eye(3).double()
    assert combine(weighting, eye, first).tolist() == pytest.approx([1, 1, 1])
    ratios = (second / first) ** 0.5
    torch.testing.assert_close(combine(weighting, eye, second), 3 * ratios / ratios.sum())


@pytest.mark.parametrize("factor", [1.0, 1e-6])
def test_official_famo_clips_the_gradient_of_the_shared_parameters_alone(factor):
    net = Net()
    for parameter in net.trunk.parameters():
        parameter.register_hook(lambda grad: 1e3 * factor * grad)
    weighting, free = make("famo", "official", num_tasks=2), FAMO()
    free.setup(2)
    trunk, heads = net.step(free)
    clipped, same = net.step(weighting)
    expected = trunk / max(1.0, trunk.norm().item())
    torch.testing.assert_close(clipped, expected, rtol=1e-5, atol=1e-9)
    assert (trunk.norm() > 1) == (factor == 1)
    assert all(torch.equal(head, other) for head, other in zip(heads, same, strict=True))


@pytest.mark.parametrize("leak", [0.0, 0.3])
def test_graddrop_of_the_paper_signs_by_the_activations_over_the_batch(leak):
    net = Net()
    z, losses = net.losses()
    rows = torch.stack([torch.autograd.grad(loss, z, retain_graph=True)[0] for loss in losses])
    signed = (rows * z.detach().sign()).sum(dim=1)  # [K, 4]
    purity = 0.5 * (1 + signed.sum(dim=0) / signed.abs().sum(dim=0))
    draw = torch.rand(4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    masks = (purity > draw) * (signed > 0) + (purity < draw) * (signed < 0)
    direction = ((leak + (1 - leak) * masks.unsqueeze(1).double()) * rows).sum(dim=0)
    expected = torch.autograd.grad(z, list(net.trunk.parameters()), direction)
    found, _ = net.step(make("graddrop", "paper", num_tasks=2, leak=leak))
    torch.testing.assert_close(found, torch.cat([grad.flatten() for grad in expected]))
    assert (masks.sum(dim=0) < 2).any()


def test_official_graddrop_keeps_the_length_of_the_sum():
    net = Net()
    z, losses = net.losses()
    rows = torch.stack([torch.autograd.grad(loss, z, retain_graph=True)[0] for loss in losses])
    paper, official = (make("graddrop", name, num_tasks=2) for name in ("paper", "official"))
    for weighting in (paper, official):
        weighting.observe_representation(z.detach())
    kept = combine(paper, rows.flatten(1))
    expected = kept * rows.sum(dim=0).norm() / kept.norm()
    torch.testing.assert_close(combine(official, rows.flatten(1)), expected)
    assert not torch.allclose(kept, expected, rtol=1e-4)
    assert combine(GradDrop(keep_norm=True), torch.zeros(2, 3)).tolist() == [0, 0, 0]


def test_signs_of_activations_need_the_representation():
    with pytest.raises(ValueError, match=r"activation_signs needs grad_wrt=representation, .* found shared"):
        GradDrop(activation_signs=True)
    with pytest.raises(ValueError, match="activation_signs needs the representation: call `observe_representation`"):
        combine(GradDrop(activation_signs=True, grad_wrt="representation"), random(2, 3))


@pytest.mark.parametrize("method", [FAMO, SDMGrad])
def test_a_limit_that_is_not_positive_is_refused(method):
    with pytest.raises(ValueError, match="max_norm must be > 0, or null for no clipping, found 0"):
        method(max_norm=0)


def test_imtl_g_of_the_paper_has_equal_projections_at_the_representation():
    net = Net()
    z, losses = net.losses()
    rows = [torch.autograd.grad(loss, z, retain_graph=True)[0].flatten() for loss in losses]
    units = [row / row.norm() for row in rows]
    difference = units[0] - units[1]
    second = rows[0] @ difference / ((rows[0] - rows[1]) @ difference)
    direction = ((1 - second) * rows[0] + second * rows[1]).view_as(z)
    expected = torch.cat([grad.flatten() for grad in torch.autograd.grad(z, list(net.trunk.parameters()), direction)])
    found, _ = net.step(make("imtl_g", "paper", num_tasks=2))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
