"""IMTL-G, against the formula of the paper on the vectors themselves; and IMTL, which is made of it and IMTL-L."""

import pytest
import torch

from mtlrun.config.compose import compose
from mtlrun.config.instantiate import build
from mtlrun.weightings import IMTLG, IMTLL, combine

# A short gradient between two long ones: the paper's weights sum to one, but the equal projections are negative.
UPHILL = torch.tensor([[1.0, 0, 0], [0.5, 0.87, 0], [0.4, 0.25, 0.1]], dtype=torch.float64)


def random_jacobian(num_tasks, seed=0):
    return torch.randn(num_tasks, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def weigh(weighting, jacobian):
    weighting.setup(len(jacobian))
    return weighting.task_weights(jacobian @ jacobian.T, torch.ones(len(jacobian), dtype=jacobian.dtype))


def closed_form(jacobian):
    """Return a of the paper: a_2..K = g_1 U^T (D U^T)^-1."""
    units = jacobian / jacobian.norm(dim=1, keepdim=True)
    differences, unit_differences = jacobian[0] - jacobian[1:], units[0] - units[1:]
    rest = jacobian[0] @ unit_differences.T @ torch.linalg.inv(differences @ unit_differences.T)
    return torch.cat([1 - rest.sum(dim=0, keepdim=True), rest])


def projections(direction, jacobian):
    return jacobian @ direction / jacobian.norm(dim=1)


def test_direction_of_the_published_example():
    jacobian = torch.tensor([[-4.0, 1, 1], [6, 1, 1]], dtype=torch.float64)
    assert combine(IMTLG(), jacobian).tolist() == pytest.approx([0.0767, 1, 1], abs=5e-5)


@pytest.mark.parametrize("num_tasks", [2, 3, 6])
def test_weights_are_those_of_the_papers_closed_form(num_tasks):
    for seed in range(5):
        jacobian = random_jacobian(num_tasks, seed) * torch.logspace(-1, 1, num_tasks, dtype=torch.float64)[:, None]
        weighting = IMTLG()
        torch.testing.assert_close(weigh(weighting, jacobian), closed_form(jacobian), rtol=1e-5, atol=1e-6)
        assert weighting.fallbacks == 0


@pytest.mark.parametrize("num_tasks", [2, 3, 6])
def test_projections_on_all_gradients_are_equal_and_weights_sum_to_one(num_tasks):
    jacobian = random_jacobian(num_tasks)
    weights = weigh(IMTLG(), jacobian)
    assert weights.sum().item() == pytest.approx(1)
    found = projections(weights @ jacobian, jacobian)
    assert found[0] > 0
    torch.testing.assert_close(found, found[:1].expand(num_tasks), rtol=1e-4, atol=0)


def test_a_shorter_gradient_weighs_more():
    jacobian = torch.tensor([[1.0, 0], [0, 4.0]], dtype=torch.float64)
    assert weigh(IMTLG(), jacobian).tolist() == pytest.approx([0.8, 0.2])


def test_opposed_gradients_cancel_in_the_papers_shares():
    jacobian = torch.tensor([[1.0, 2], [-3, -6]], dtype=torch.float64)
    assert weigh(IMTLG(), jacobian).tolist() == pytest.approx([0.75, 0.25])
    assert combine(IMTLG(), jacobian).norm() < 1e-7


def test_equal_gradients_share_their_weight():
    first, second = random_jacobian(2)
    weights = weigh(IMTLG(), torch.stack([first, first, second]))
    assert weights[0].item() == pytest.approx(weights[1].item(), rel=1e-6)
    torch.testing.assert_close(
        weights @ torch.stack([first, first, second]),
        combine(IMTLG(), torch.stack([first, second])),
        rtol=1e-4,
        atol=1e-5,
    )


def test_a_task_without_a_gradient_gets_no_weight():
    jacobian = random_jacobian(2)
    weights = weigh(IMTLG(), torch.stack([jacobian[0], torch.zeros(12, dtype=torch.float64), jacobian[1]]))
    assert weights[1] == 0
    torch.testing.assert_close(weights[[0, 2]], weigh(IMTLG(), jacobian))
    assert weigh(IMTLG(), torch.zeros(3, 4)).tolist() == [0, 0, 0]


def test_where_the_papers_direction_goes_uphill_its_sign_is_changed_and_a_fallback_counted():
    published = closed_form(UPHILL) @ UPHILL
    assert (UPHILL @ published < 0).all()
    weighting = IMTLG()
    weights = weigh(weighting, UPHILL)
    assert weighting.fallbacks == 1
    assert weights.abs().sum().item() == pytest.approx(1)
    found = projections(weights @ UPHILL, UPHILL)
    assert found[0] > 0
    torch.testing.assert_close(found, found[:1].expand(3), rtol=1e-4, atol=0)
    assert torch.cosine_similarity(weights @ UPHILL, published, dim=0).item() == pytest.approx(-1)


def test_heads_are_trained_by_their_own_losses():
    assert IMTLG().head_loss == "unweighted"


def test_imtl_balances_the_gradients_of_the_losses_that_imtl_l_scales(take_step):
    weighting = build(compose(["weighting=imtl"])["weighting"], "weighting")
    assert isinstance(weighting, IMTLG)
    assert isinstance(weighting.losses, IMTLL)
    weighting.setup(3)
    jacobian, losses = random_jacobian(3), torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64)
    for _ in range(5):
        scales = weighting.losses.log_scale.detach().double().exp()
        direction = take_step(weighting, jacobian, losses)
        torch.testing.assert_close(direction, combine(IMTLG(), scales[:, None] * jacobian), rtol=1e-5, atol=1e-6)
    # The scales have moved towards 1 / L.
    assert scales[0] > 1
    assert scales[1].item() == pytest.approx(1)
    assert scales[2] < 1
