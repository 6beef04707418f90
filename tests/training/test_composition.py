"""What works with every weighting: transforms, inner weightings, reused weights, parts of a batch, and lookahead.

Held here: `loss_transform=log` and `weighting/losses` scale the task gradients as they should; task weights are reused
for `update_weights_every` steps; fallbacks are counted, and too many end the run; methods that need several parts of a
batch, or a meta batch, get them; and every trainable parameter moves under each model and weighting.
"""

import pytest
import torch
from helpers import QUICK, choose_weighting, curves, read_lines, read_record, run_folders, sample_of
from torch import nn

from mtlrun.cli.list import entries
from mtlrun.config.compose import compose
from mtlrun.gradients import backward
from mtlrun.models import MultiTaskModel, Output
from mtlrun.setup.prepare import prepare
from mtlrun.tasks import Classification, Regression
from mtlrun.training import checkpoint
from mtlrun.training.batch import LabeledBatch
from mtlrun.training.forward import Forward
from mtlrun.weightings import (
    DWA,
    FAMO,
    MGDA,
    RLW,
    Equal,
    GradDrop,
    GradientWeighting,
    PartsWeighting,
    PCGrad,
    SDMGrad,
    Static,
    Uncertainty,
)


class Problem:
    """A shared layer and two heads, in float64."""

    def __init__(self):
        torch.manual_seed(1)
        self.trunk = nn.Linear(3, 4).double()
        self.heads = nn.ModuleList([nn.Linear(4, 1).double(), nn.Linear(4, 1).double()])
        self.inputs = torch.randn(5, 3, dtype=torch.float64)

    def losses(self):
        features = torch.tanh(self.trunk(self.inputs))
        return [
            (scale * head(features) - scale).square().mean() for scale, head in zip((1, 20), self.heads, strict=True)
        ]

    def rows(self, losses):
        return [self.flat(torch.autograd.grad(loss, self.trunk.parameters(), retain_graph=True)) for loss in losses]

    @staticmethod
    def flat(grads):
        return torch.cat([grad.reshape(-1) for grad in grads])

    def step(self, weighting, losses=None):
        """Return the gradients of trunk and heads, and the update."""
        self.trunk.zero_grad()
        self.heads.zero_grad()
        own = [list(head.parameters()) for head in self.heads]
        update = backward(weighting, losses or self.losses(), list(self.trunk.parameters()), own)
        trunk = self.flat([parameter.grad for parameter in self.trunk.parameters()])
        return trunk, [self.flat([parameter.grad for parameter in group]) for group in own], update


class Zeros(MultiTaskModel):
    """Predicts zero, whatever the task."""

    def __init__(self, tasks, width=1):
        super().__init__(tuple(tasks))
        self.width = width

    def forward(self, inputs):
        return Output({name: torch.zeros(len(inputs), self.width) for name in self.task_names})

    def parameter_groups(self):
        return []


def batch_of(tasks, **targets):
    inputs = torch.zeros(len(next(iter(targets.values()))), 1)
    return LabeledBatch.load(tasks, (inputs, targets), torch.device("cpu"))


def ready(weighting):
    weighting.setup(2)
    return weighting


def test_the_logarithm_divides_each_gradient_by_its_loss():
    problem = Problem()
    losses = problem.losses()
    first, second = problem.rows(losses)
    expected = first / losses[0] + second / losses[1]
    for weighting in (Equal(loss_transform="log"), Static([1.0, 1.0], loss_transform="log")):
        trunk, _, update = problem.step(ready(weighting))
        torch.testing.assert_close(trunk, expected.detach())
        torch.testing.assert_close(update.weights, torch.stack([1 / loss.detach() for loss in losses]))


def test_a_gradient_method_sees_the_gradients_of_the_logarithms():
    problem = Problem()
    losses = problem.losses()
    rows = [row / loss.detach() for row, loss in zip(problem.rows(losses), losses, strict=True)]
    share = ((rows[1] - rows[0]) @ rows[1] / (rows[1] - rows[0]).square().sum()).clamp(0, 1)
    trunk, _, update = problem.step(ready(MGDA(loss_transform="log")))
    torch.testing.assert_close(trunk, share * rows[0] + (1 - share) * rows[1])
    effective = torch.stack([share / losses[0].detach(), (1 - share) / losses[1].detach()])
    torch.testing.assert_close(update.weights, effective)


@pytest.mark.parametrize("method", [PCGrad, MGDA, GradDrop])
def test_an_inner_weighting_of_losses_scales_the_gradients(method):
    problem = Problem()
    scaled = ready(method(losses=Static([3.0, 0.1])))
    plain = ready(method())
    trunk, heads, _ = problem.step(scaled)
    losses = problem.losses()
    expected, expected_heads, _ = problem.step(plain, [3.0 * losses[0], 0.1 * losses[1]])
    torch.testing.assert_close(trunk, expected)
    for ours, theirs in zip(heads, expected_heads, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_inner_weighting_learns_and_counts_epochs():
    inner = DWA(temperature=1.0)
    weighting = ready(PCGrad(losses=inner))
    problem = Problem()
    for scale in (1.0, 1.0, 0.5):
        losses = problem.losses()
        problem.step(weighting, [losses[0], scale * losses[1]])
        weighting.epoch_ended()
    assert inner.task_weights[0] > inner.task_weights[1]
    assert "losses.task_weights" in weighting.state_dict()


class Counting(GradientWeighting):
    """Gives other weights each time it is asked."""

    asked = 0

    def task_weights(self, gram, losses):
        self.asked += 1
        return torch.tensor([float(self.asked), 2.0], dtype=torch.float64)


@pytest.mark.parametrize("head_loss", ["unweighted", "weighted"])
def test_task_weights_are_reused_between_the_steps_that_take_gradients(head_loss):
    problem = Problem()
    weighting = ready(Counting(update_weights_every=3, head_loss=head_loss))
    for asked in (1, 1, 1, 2, 2, 2, 3):
        first, second = problem.rows(problem.losses())
        trunk, own, update = problem.step(weighting)
        assert weighting.asked == asked
        torch.testing.assert_close(trunk, asked * first + 2 * second)
        assert update.weights.tolist() == [asked, 2.0]
        assert (update.gram is None) == (weighting._age > 1)
        factors = [1.0, 1.0] if head_loss == "unweighted" else [float(asked), 2.0]
        for head, factor, gradient, loss in zip(problem.heads, factors, own, problem.losses(), strict=True):
            torch.testing.assert_close(gradient, factor * problem.flat(torch.autograd.grad(loss, head.parameters())))


def test_a_batch_without_all_tasks_takes_gradients_anew():
    weighting = ready(Counting(update_weights_every=5))
    problem = Problem()
    problem.step(weighting)
    weighting.active = torch.tensor([0, 1])  # an index, as when some task is absent
    problem.step(weighting)
    assert weighting.asked == 2


# ------------------------------------------------------------------------------------------------- in whole runs


PAIRS = [
    (model, entry.name)
    for model in ("hard", "cross_stitch", "soft")
    for entry in entries("weighting")
    if not (model == "soft" and entry.facts["sees"] != "losses")
    and not (model == "cross_stitch" and "representation" in entry.facts["models"])
]


# Of each kind, and those that learn weights, draw random numbers or turn features.
SAMPLE = (
    "uncertainty",
    "auto_lambda",
    "famo",
    "pcgrad",
    "gradnorm",
    "nash_mtl",
    "mgda_ub",
    "graddrop",
    "db_mtl",
    "rotograd",
)


@pytest.mark.parametrize(
    ("model", "weighting"),
    sample_of(lambda model, weighting: (model == "hard" and weighting in SAMPLE) or weighting == "equal", PAIRS),
)
def test_training_changes_every_parameter(model, weighting, mtlrun):
    words = [f"model={model}", *choose_weighting(weighting, primary="left"), "optimizer=sgd", "optimizer.lr=0.05"]
    code, _, err = mtlrun(*QUICK, *words)
    assert code == 0, err
    (folder,) = run_folders()
    first = prepare(read_record(folder)["config"]).model.state_dict()
    last = checkpoint.load(folder / "checkpoints" / "last.pt")["model"]
    assert [key for key in first if torch.equal(first[key], last[key])] == []


def test_gradients_can_be_logged_under_a_weighting_of_losses(quick):
    plain = quick("trainer.log_every=2")
    looked_at = quick("trainer.log_every=2", "trainer.log_gradients_every=4")
    scalars = curves(looked_at).Tags()["scalars"]
    found = {
        f"update/{tag}" for tag in ("grad_norm/left", "grad_norm/right", "grad_cosine/left_right", "grad_conflict")
    }
    assert found <= set(scalars)
    assert [event.step for event in curves(looked_at).Scalars("update/grad_cosine/left_right")] == [4, 8, 12]
    assert "update/grad_cosine/left_right" not in curves(plain).Tags()["scalars"]
    assert read_record(looked_at)["test"] == read_record(plain)["test"]


def test_fallbacks_are_counted_logged_and_recorded_and_too_many_fail_the_run(mtlrun, monkeypatch):
    task_weights = MGDA.task_weights

    def fail_sometimes(self, gram, losses):
        self.fall_back("the test wants it")
        return task_weights(self, gram, losses)

    monkeypatch.setattr(MGDA, "task_weights", fail_sometimes)
    assert mtlrun(*QUICK, "weighting=mgda", "trainer.max_fallbacks=1")[0] == 0
    (folder,) = run_folders()
    assert read_record(folder)["fallbacks"] == 12
    assert [line["weighting/fallbacks"] for line in read_lines(folder, "train")] == [3, 6, 9, 12]
    assert "MGDA falls back: the test wants it" in (folder / "run.log").read_text()
    code, _, err = mtlrun(*QUICK, "weighting=mgda")
    assert code == 1
    assert "the weighting has fallen back in 12 steps, more than trainer.max_fallbacks=0.1 allows" in err


def test_a_task_without_a_performance_is_refused_by_dtp(mtlrun):
    code, _, err = mtlrun("weighting=dtp", "tasks.left._target_=mtlrun.tasks.Regression", "~tasks.left.num_classes",
                          "~tasks.left.label_smoothing", "~tasks.left.class_weights", "~tasks.left.criterion",
                          "~tasks.left.focal_gamma")  # fmt: skip
    assert code == 2
    assert "tasks.left: weighting=dtp needs a performance in [0, 1], and Regression gives none" in err


def test_the_inner_weighting_is_a_config_group(quick):
    folder = quick("weighting=pcgrad", "weighting/losses=uncertainty", "weighting.losses.lr=0.5")
    config = compose([*QUICK, "weighting=pcgrad", "weighting/losses=uncertainty", "weighting.losses.lr=0.5"])
    assert config["weighting"]["losses"]["_target_"] == "mtlrun.weightings.Uncertainty"
    (line, *_) = read_lines(folder, "train")
    assert line["lr/weighting.losses"] == 0.5
    state = checkpoint.load(folder / "checkpoints" / "last.pt")["weighting"]
    assert state["losses.log_variance"].abs().max() > 0.01


class Recording(PartsWeighting):
    """Keeps the Jacobians that it is given, and takes the first."""

    num_parts = 3

    def combine_parts(self, jacobians, losses):
        self.seen = (jacobians, losses)
        return jacobians[0].sum(dim=0)


@pytest.mark.parametrize("with_representation", [True, False])
def test_a_method_of_several_parts_gets_the_gradients_of_each_part_of_the_batch(with_representation):
    problem = Problem()
    weighting = ready(Recording())
    features = torch.tanh(problem.trunk(problem.inputs))
    targets = torch.randn(5, dtype=torch.float64)
    errors = [(head(features).squeeze(1) - targets).square() for head in problem.heads]
    parts = [[error[part::3].mean() for error in errors] for part in range(3)]
    expected = [torch.stack(problem.rows(part)) for part in parts]
    own = [list(head.parameters()) for head in problem.heads]
    expected_head = problem.flat(torch.autograd.grad(sum(part[0] for part in parts) / 3, own[0], retain_graph=True))
    backward(
        weighting,
        parts[0],
        list(problem.trunk.parameters()),
        own,
        representation=features if with_representation else None,
        parts=parts,
    )
    jacobians, losses = weighting.seen
    for found, wanted in zip(jacobians, expected, strict=True):
        torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(losses, torch.stack([torch.stack(part).detach() for part in parts]))
    trunk = problem.flat([parameter.grad for parameter in problem.trunk.parameters()])
    torch.testing.assert_close(trunk, expected[0].sum(dim=0))
    torch.testing.assert_close(problem.flat([parameter.grad for parameter in own[0]]), expected_head)


def test_the_parts_of_a_batch_hold_each_labeled_sample_once():
    tasks = {"a": Regression(), "b": Regression()}
    everything = torch.tensor([1.0, 2, 3, 4, 5, 6, 7])
    missing = torch.tensor([float("nan"), 2, 3, float("nan"), 5, 6, float("nan")])
    first, second = Forward(Zeros(tasks), batch_of(tasks, a=everything, b=missing), num_parts=2).parts
    assert [loss.item() for loss in first] == pytest.approx([(1 + 9 + 25 + 49) / 4, (9 + 25) / 2])
    assert [loss.item() for loss in second] == pytest.approx([(4 + 16 + 36) / 3, (4 + 36) / 2])
    only_even = torch.tensor([1.0, float("nan")] * 3 + [1.0])
    forward = Forward(Zeros(tasks), batch_of(tasks, a=everything, b=only_even), num_parts=2)
    assert forward.active == ["a"]
    assert [len(part) for part in forward.parts] == [1, 1]


def test_a_batch_smaller_than_the_number_of_parts_is_left_out_or_refused(mtlrun):
    tasks = {"a": Regression()}
    for size in (1, 2):
        forward = Forward(Zeros(tasks), batch_of(tasks, a=torch.ones(size)), num_parts=3)
        assert forward.active == []
    for weighting in ("modo", "sdmgrad"):
        code, _, err = mtlrun(*QUICK, f"weighting={weighting}", "trainer.batch_size=2")
        assert code == 2
        assert f"trainer.batch_size=2: weighting={weighting} splits each batch into 3 parts" in err


def test_auto_lambda_sees_another_batch_of_the_training_split_and_moves_its_weights(quick):
    folder = quick("weighting=auto_lambda", "weighting.lr=0.05", "trainer.log_every=1")
    lines = read_lines(folder, "train")
    assert lines[0]["weight/left"] == lines[0]["weight/right"] == pytest.approx(0.1)
    assert lines[-1]["weight/left"] != lines[-1]["weight/right"]
    assert abs(lines[-1]["weight/left"] - 0.1) > 0.01
    assert read_record(folder)["passes_per_step"] == {"forward": 5, "backward": 3}
    assert list(read_record(folder)["splits"]) == ["train", "val", "test"]
    loaders = prepare(read_record(folder)["config"]).loaders
    here, other = (next(loaders[name].batches(0))[0] for name in ("train", "meta"))
    assert here.shape == other.shape
    assert not torch.equal(here, other)


def test_performances_under_a_parts_weighting_are_those_of_the_tasks_in_every_part():
    tasks = {"a": Classification(2), "b": Classification(2)}
    targets = {"a": torch.tensor([0, 1, 0, 1, 0, 1]), "b": torch.tensor([0, -1, -1, -1, -1, -1])}
    batch = LabeledBatch.load(tasks, (torch.zeros(6, 1), targets), torch.device("cpu"))
    forward = Forward(Zeros(tasks, width=2), batch, num_parts=3)
    assert forward.active == ["a"]
    assert forward.performances().tolist() == [0.5]


def test_the_weighting_beneath_a_parts_weighting_learns_once_per_step():
    problem = Problem()
    inner, alone = Uncertainty(), Uncertainty()
    losses = problem.losses()
    own = [list(head.parameters()) for head in problem.heads]
    backward(
        ready(SDMGrad(losses=inner)), losses, list(problem.trunk.parameters()), own, parts=[losses, losses, losses]
    )
    alone.setup(2)
    alone.scalarize(torch.stack(losses).detach()).backward()
    torch.testing.assert_close(inner.log_variance.grad, alone.log_variance.grad)


@pytest.mark.parametrize("method", ["modo", "sdmgrad"])
@pytest.mark.parametrize(("inner", "name"), [(Uncertainty, "uncertainty"), (RLW, "rlw"), (FAMO, "famo")])
def test_the_weighting_beneath_a_parts_weighting_is_asked_once_per_step(method, inner, name, quick, monkeypatch):
    asked, objective = [], inner.objective

    def count(self, losses):
        asked.append(losses.tolist())
        return objective(self, losses)

    monkeypatch.setattr(inner, "objective", count)
    folder = quick(f"weighting={method}", f"weighting/losses={name}", "trainer.log_every=1")
    lines = read_lines(folder, "train")
    assert len(asked) == len(lines) == 12
    # Of the whole batch: the losses that are logged.
    for losses, line in zip(asked, lines, strict=True):
        assert losses == pytest.approx([line["train/left/loss"], line["train/right/loss"]])
    if name == "rlw":
        state = checkpoint.load(folder / "checkpoints" / "last.pt")["weighting"]
        generator = torch.Generator().manual_seed(0)
        for _ in range(12):
            torch.empty(2).normal_(generator=generator)
        assert torch.equal(state["losses._extra_state"]["generators"]["cpu"], generator.get_state())


@pytest.mark.parametrize("method", ["modo", "sdmgrad"])
def test_famo_beneath_a_parts_weighting_compares_the_whole_batch_before_and_after(method, quick, monkeypatch):
    pairs, observe = [], FAMO.observe_losses_after_step

    def keep(self, losses):
        pairs.append((self.before.tolist(), losses.tolist()))
        observe(self, losses)

    monkeypatch.setattr(FAMO, "observe_losses_after_step", keep)
    # Steps so small that the losses of the same samples stay as they are; those of a third of them would not.
    quick(f"weighting={method}", "weighting/losses=famo", "optimizer=sgd", "optimizer.lr=1e-9")
    assert len(pairs) == 12
    for before, after in pairs:
        assert after == pytest.approx(before, rel=1e-5)
