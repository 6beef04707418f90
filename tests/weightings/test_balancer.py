"""EnCodec's balancer."""

import pytest
import torch
from helpers import QUICK, read_lines, read_record, run_folders
from torch import nn

from mtlrun.gradients import backward
from mtlrun.weightings import Balancer, combine

LENGTHS = torch.tensor([[1e-3], [1.0], [50.0]], dtype=torch.float64)


def random_jacobian(seed=0, num_tasks=3):
    generator = torch.Generator().manual_seed(seed)
    return LENGTHS[:num_tasks] * torch.randn(num_tasks, 6, dtype=torch.float64, generator=generator)


def make(num_tasks=3, **options):
    weighting = Balancer(**options)
    weighting.setup(num_tasks)
    return weighting


class Average:
    """The authors' running mean: sums of what was seen and of how often, both decaying."""

    def __init__(self, beta):
        self.beta, self.seen, self.count = beta, 0.0, 0.0

    def __call__(self, value):
        self.seen = self.seen * self.beta + value
        self.count = self.count * self.beta + 1
        return self.seen / self.count


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999, 1.0])
def test_direction_equals_the_formula_written_out(beta):
    parts, averages = [0.5, 3.0, 1.5], [Average(beta) for _ in range(3)]
    weighting = make(total_norm=2.0, beta=beta, preferences=parts)
    for step in range(5):
        jacobian = random_jacobian(step)
        expected = torch.zeros(6, dtype=torch.float64)
        for row, part, average in zip(jacobian, parts, averages, strict=True):
            expected += 2.0 * part / 5.0 * row / average(row.norm().item())
        torch.testing.assert_close(combine(weighting, jacobian), expected)


def test_each_task_has_its_part_of_the_gradient_whatever_the_scale_of_its_loss():
    weighting = make(2, preferences=[2.0, 1.0])
    jacobian = torch.tensor([[0.0, 1e-4], [300.0, 0.0]], dtype=torch.float64)
    for _ in range(3):
        torch.testing.assert_close(combine(weighting, jacobian), torch.tensor([1 / 3, 2 / 3], dtype=torch.float64))


def test_scales_of_losses_do_not_matter():
    scales = torch.tensor([[1e-3], [1.0], [1e4]], dtype=torch.float64)
    one, other = make(), make()
    for step in range(4):
        expected = combine(one, random_jacobian(step))
        torch.testing.assert_close(combine(other, scales * random_jacobian(step)), expected)


def test_equal_tasks_give_their_gradient_at_the_length_asked_for():
    row = random_jacobian()[2]
    torch.testing.assert_close(combine(make(total_norm=3.0), row.repeat(3, 1)), 3 * row / row.norm())


def test_a_task_that_has_had_no_gradient_is_left_out_until_it_has_one():
    weighting, jacobian = make(beta=1.0), random_jacobian()
    jacobian[1] = 0
    rest = (jacobian[0] / jacobian[0].norm() + jacobian[2] / jacobian[2].norm()) / 3
    torch.testing.assert_close(combine(weighting, jacobian), rest)
    jacobian[1] = random_jacobian()[1]
    torch.testing.assert_close(combine(weighting, jacobian), rest + jacobian[1] / (jacobian[1].norm() / 2) / 3)


def test_only_tasks_with_a_loss_have_a_part_of_the_gradient(take_step):
    weighting, losses = make(beta=0.9, grad_wrt="shared"), torch.ones(3, dtype=torch.float64)
    first, second = random_jacobian(1), random_jacobian(2)
    take_step(weighting, first, losses)
    found = take_step(weighting, second[[0, 2]], losses[[0, 2]], active=[0, 2])
    means = (0.9 * first.norm(dim=1) + second.norm(dim=1)) / 1.9
    torch.testing.assert_close(found, 0.5 * second[0] / means[0] + 0.5 * second[2] / means[2])
    assert weighting.norms.counts.tolist() == pytest.approx([1.9, 1, 1.9])


class Net:
    """Three losses of one representation [5, 2, 2]; of the last sample, the second task has no label."""

    def __init__(self):
        torch.manual_seed(0)
        self.trunk = nn.Linear(3, 4).double()
        self.heads = [nn.Linear(4, 1).double() for _ in range(3)]

    def graph(self, seed):
        inputs = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        z = torch.tanh(self.trunk(inputs)).view(5, 2, 2)
        outputs = [(head(z.flatten(1)) - scale).square() for head, scale in zip(self.heads, (1, 20, 5), strict=True)]
        return z, [outputs[0].mean(), outputs[1][:4].mean(), outputs[2].mean()]


@pytest.mark.parametrize("norm_of", ["batch", "sample"])
def test_a_step_sends_the_balanced_sum_through_the_trunk_in_one_pass(norm_of):
    net, weighting, averages = Net(), make(beta=0.9, norm_of=norm_of), [Average(0.9) for _ in range(3)]
    parameters = list(net.trunk.parameters())
    for seed in range(4):
        z, losses = net.graph(seed)
        expected = torch.zeros_like(z)
        for loss, average in zip(losses, averages, strict=True):
            (gradient,) = torch.autograd.grad(loss, z, retain_graph=True)
            of_samples = [sample.norm().item() for sample in gradient]
            length = gradient.norm().item() if norm_of == "batch" else sum(of_samples) / 5
            expected += gradient / average(length) / 3
        of_trunk = torch.autograd.grad(z, parameters, expected, retain_graph=True)
        of_heads = [
            torch.autograd.grad(loss, list(head.parameters()), retain_graph=True)
            for loss, head in zip(losses, net.heads, strict=True)
        ]

        for module in (net.trunk, *net.heads):
            module.zero_grad()
        calls = []
        net.trunk.weight.register_hook(calls.append)
        update = backward(weighting, losses, parameters, [list(head.parameters()) for head in net.heads],
                          representation=z)  # fmt: skip
        assert len(calls) == 1
        assert update.weights.shape == (3,)
        torch.testing.assert_close([parameter.grad for parameter in parameters], list(of_trunk))
        for head, gradients in zip(net.heads, of_heads, strict=True):  # their losses are not weighed
            torch.testing.assert_close([parameter.grad for parameter in head.parameters()], list(gradients))


def test_lengths_of_samples_need_the_representation():
    with pytest.raises(ValueError, match=r"norm_of=sample needs grad_wrt=representation, .* found shared"):
        Balancer(norm_of="sample", grad_wrt="shared")
    with pytest.raises(ValueError, match="norm_of=sample needs the gradients of the samples"):
        combine(make(norm_of="sample"), random_jacobian())


def test_lengths_of_samples_may_be_those_that_float32_cannot_square():
    trunk = nn.Linear(3, 4)
    for scale in (1e-24, 1.0, 1e20):
        z = trunk(torch.eye(3))
        backward(make(1, norm_of="sample"), [scale * z.sum()], list(trunk.parameters()), [[]], representation=z)
        torch.testing.assert_close(trunk.bias.grad, torch.full((4,), 1.5))  # of each sample: ones, divided by 2
        trunk.zero_grad()


def test_weights_of_tasks_are_the_parts_and_are_logged(mtlrun):
    words = ["weighting=balancer", "tasks.left.weight=3", "trainer.epochs=1", "trainer.log_every=1"]
    code, _, err = mtlrun(*QUICK, *words)
    assert code == 0, err
    (folder,) = run_folders()
    assert read_record(folder)["config"]["weighting"]["preferences"] == [3.0, 1.0]
    assert all(line["weight/left"] > 0 for line in read_lines(folder, "train"))


def test_defaults_are_those_of_the_paper():
    weighting = Balancer()
    assert (weighting.total_norm, weighting.beta, weighting.grad_wrt) == (1.0, 0.999, "representation")
    for name, wrong in {"total_norm": 0.0, "beta": 1.1}.items():
        with pytest.raises(ValueError, match=f"{name} must be .* found {wrong}"):
            Balancer(**{name: wrong})
