"""Lookahead affinity against a step made by hand, and as a run logs it."""

import copy

import pytest
import torch
from helpers import QUICK, read_lines, read_record, run_folders, train_until_step
from torch import nn

from mtlrun.config.compose import compose
from mtlrun.gradients import lookahead_affinity
from mtlrun.records.identity import run_folder
from mtlrun.runs.run import run


class Net(nn.Module):
    """A trunk and three heads, of which the last one does not see the second trunk layer."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 4)
        self.heads = nn.ModuleList(nn.Linear(4, 1) for _ in range(3))

    def losses(self, x, y):
        early = torch.tanh(self.first(x))
        late = torch.tanh(self.second(early))
        outputs = [head(features) for head, features in zip(self.heads, (late, late, early), strict=True)]
        return [(output.squeeze(1) - target).square().mean() for output, target in zip(outputs, y, strict=True)]

    def shared(self):
        return [*self.first.parameters(), *self.second.parameters()]


def test_affinity_is_that_of_a_step_made_by_hand():
    net, x, y = Net().double(), torch.randn(16, 3).double(), torch.randn(3, 16).double()
    rates = [0.1, 0.1, 0.3, 0.3]
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = lookahead_affinity(lambda: net.losses(x, y), net.shared(), rates)
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())
    assert all(parameter.grad is None for parameter in net.parameters())
    plain = [loss.item() for loss in net.losses(x, y)]
    for task in range(3):
        stepped = copy.deepcopy(net)
        optimizer = torch.optim.SGD([{"params": stepped.first.parameters(), "lr": 0.1},
                                     {"params": stepped.second.parameters(), "lr": 0.3}])  # fmt: skip
        stepped.losses(x, y)[task].backward()
        optimizer.step()
        after = [loss.item() for loss in stepped.losses(x, y)]
        expected = [1 - new / old for new, old in zip(after, plain, strict=True)]
        torch.testing.assert_close(found[task], torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-15)
    assert (found.diagonal() > 0).all()


def test_opposed_tasks_hurt_each_other_and_equal_ones_help():
    weight = nn.Parameter(torch.tensor([2.0]))
    losses = lambda: [(weight - 1).square().sum(), (weight - 1).square().sum(), (weight - 3).square().sum()]  # noqa: E731
    # One step moves the weight by 0.2, towards 1 or towards 3: the distances become 0.8 and 1.2.
    expected = [[0.36, 0.36, -0.44], [0.36, 0.36, -0.44], [-0.44, -0.44, 0.36]]
    torch.testing.assert_close(lookahead_affinity(losses, [weight], [0.1]), torch.tensor(expected).double())


def test_a_loss_of_zero_has_no_affinity():
    weight = nn.Parameter(torch.tensor([2.0]))
    found = lookahead_affinity(lambda: [weight.square().sum(), 0 * weight.sum()], [weight], [0.1])
    assert found.isnan().tolist() == [[False, True], [False, True]]
    with pytest.raises(ValueError, match="found 1 and 2"):
        lookahead_affinity(lambda: [weight.sum()], [weight], [0.1, 0.2])


def test_a_run_logs_affinities_and_trains_as_without(mtlrun, monkeypatch):
    # Dropout and BatchNorm would show random numbers and buffers that were not put back.
    words = [*QUICK, "backbone.dropout=0.5", "backbone.norm=batch", "trainer.epochs=2", "trainer.log_every=1",
             "trainer.baselines=false", "runtime.predictions=none"]  # fmt: skip
    assert mtlrun(*words)[0] == 0
    (plain,) = run_folders()
    measured = ["trainer.log_affinity_every=2", "runtime.root=measured"]
    code, _, err = mtlrun(*words, *measured)
    assert code == 0, err
    (folder,) = run_folders("measured")
    assert read_record(folder)["test"] == read_record(plain)["test"]
    lines = read_lines(folder, "train")
    tags = {f"affinity/{one}/{other}" for one in ("left", "right") for other in ("left", "right")}
    assert [line["step"] for line in lines if tags <= line.keys()] == [2, 4, 6, 8]
    assert not [line for line in lines if line["step"] % 2 and tags & line.keys()]
    assert all(line["affinity/left/left"] > 0 for line in lines if line["step"] % 2 == 0)

    config = compose([*words, *measured, "trainer.log_every=3", "runtime.root=again"])
    train_until_step(config, 3, monkeypatch)  # in the middle of a mean over three steps
    whole = compose([*words, *measured, "trainer.log_every=3", "runtime.root=whole"])
    run(config), run(whole)
    continued, uninterrupted = (read_lines(run_folder(each), "train") for each in (config, whole))
    assert continued == uninterrupted


def test_what_has_no_affinity_is_refused(mtlrun):
    for words, problems in [
        (["model=soft"], ["makes steps of the parameters that tasks share, and model=soft has none"]),
        (["~tasks.right"], ["compares 2 tasks or more, found 1"]),
        (["trainer.micro_batches=2"], ["needs the whole batch of a step at once; use trainer.micro_batches=1"]),
        (["dataset=toy2d"], ["compares losses by their ratio", "nonnegative_loss"]),
    ]:
        code, _, err = mtlrun("trainer.log_affinity_every=5", *words)
        assert code == 2
        assert all(problem in err for problem in problems), err
    assert run_folders() == []
