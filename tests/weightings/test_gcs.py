"""Gradient cosine similarity."""

import pytest
import torch

from mtlrun.weightings import GCS, combine

LOSSES = torch.ones(5, dtype=torch.float64)


def random_jacobian(seed=0, num_tasks=5):
    return torch.randn(num_tasks, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def make(primary=0, num_tasks=5, **options):
    weighting = GCS(primary=primary, **options)
    weighting.setup(num_tasks)
    return weighting


@pytest.mark.parametrize("by_cosine", [False, True])
def test_direction_equals_the_formula_written_out(by_cosine):
    joined = set()
    for seed in range(20):
        jacobian, primary = random_jacobian(seed), seed % 5
        expected = jacobian[primary].clone()
        for task, row in enumerate(jacobian):
            cosine = torch.nn.functional.cosine_similarity(row, jacobian[primary], dim=0).item()
            if task != primary and cosine >= 0:
                joined.add(task)
                expected += row * (cosine if by_cosine else 1.0)
        torch.testing.assert_close(combine(make(primary, by_cosine=by_cosine), jacobian), expected)
    assert joined == set(range(5))


def test_an_orthogonal_gradient_joins_and_an_opposed_one_does_not():
    jacobian = torch.tensor([[2.0, 0.0], [0.0, 5.0], [-1e-6, 1.0], [1e-6, 1.0]], dtype=torch.float64)
    assert combine(make(num_tasks=4), jacobian).tolist() == [2 + 1e-6, 6]
    assert combine(make(num_tasks=4, by_cosine=True), jacobian).tolist() == pytest.approx([2, 1e-6])


def test_a_step_never_raises_the_primary_loss_to_first_order():
    for seed in range(50):
        jacobian = random_jacobian(seed)
        for by_cosine in (False, True):
            direction = combine(make(2, by_cosine=by_cosine), jacobian)
            assert direction @ jacobian[2] >= jacobian[2] @ jacobian[2] * (1 - 1e-12)


def test_equal_tasks_give_the_plain_sum_and_scales_of_losses_change_no_choice():
    row = random_jacobian()[0]
    torch.testing.assert_close(combine(make(), row.repeat(5, 1)), 5 * row)
    for by_cosine in (False, True):
        jacobian, scales = random_jacobian(1), torch.tensor([3.0, 1e-6, 1e6, 1.0, 10.0], dtype=torch.float64)
        weighting = make(by_cosine=by_cosine)
        weights = weighting.task_weights(jacobian @ jacobian.T, LOSSES)
        scaled = scales.unsqueeze(1) * jacobian
        torch.testing.assert_close(weighting.task_weights(scaled @ scaled.T, LOSSES), weights)


def test_the_primary_task_alone_has_its_plain_gradient(take_step):
    jacobian = random_jacobian()
    torch.testing.assert_close(take_step(make(3), jacobian[[3]], LOSSES[[3]], active=[3]), jacobian[3])


def test_the_primary_task_is_found_among_those_with_a_loss(take_step):
    jacobian = torch.tensor([[1.0, 0.0], [-1.0, 3.0], [0.0, 1.0]], dtype=torch.float64)
    found = take_step(make(4), jacobian, LOSSES[:3], active=[1, 3, 4])
    assert found.tolist() == [0, 4]  # of all three: the first one is orthogonal to the last, the primary one
    found = take_step(make(1), jacobian, LOSSES[:3], active=[1, 3, 4])
    assert found.tolist() == [1, 1]


def test_without_a_loss_of_the_primary_task_nothing_joins_and_the_step_is_counted(take_step, caplog):
    weighting = make(0)
    for count in (1, 2):
        found = take_step(weighting, random_jacobian()[1:], LOSSES[1:], active=[1, 2, 3, 4])
        assert not found.any()
        assert weighting.fallbacks == count
    assert len(caplog.messages) == 1
    assert "the primary task has no label in the batch" in caplog.messages[0]
