"""Class weights: of classification and segmentation, given or found in the training split."""

import numpy
import pytest
import torch
from helpers import QUICK, read_record, run_folders
from sklearn.metrics import balanced_accuracy_score, log_loss
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from torch.utils.data import Dataset

from mtlrun.config.compose import compose
from mtlrun.datasets import MultiDigits, TensorSplit
from mtlrun.setup.prepare import prepare
from mtlrun.tasks import BinaryClassification, Classification, Segmentation
from mtlrun.tasks.losses.class_weights import balanced_weights
from mtlrun.training.batch import LabeledBatch

SIZES = [1, 50, 7, 32]
PREPARED = [option for option in QUICK if "limit_batches" not in option] + ["tasks.left.class_weights=balanced"]


@pytest.fixture
def split():
    """Return logits and labels with classes of unequal frequency."""
    generator = torch.Generator().manual_seed(0)
    target = torch.multinomial(torch.tensor([0.6, 0.25, 0.15]), 90, replacement=True, generator=generator)
    return torch.randn(90, 3, generator=generator) + torch.nn.functional.one_hot(target, 3), target


def evaluate(task, logits, target, sizes=SIZES):
    meter = task.meter()
    for part, labels in zip(logits.split(sizes), target.split(sizes), strict=True):
        meter.update(part, labels)
    return meter.compute()


def test_balanced_weights_are_n_over_k_n_c(split):
    _, target = split
    expected = compute_class_weight("balanced", classes=numpy.arange(3), y=target.numpy())
    assert balanced_weights([target], 3).tolist() == pytest.approx(expected.tolist())
    missing = torch.full((5,), -1)
    assert torch.equal(balanced_weights([target[:7], missing, target[7:]], 3), balanced_weights([target], 3))


def test_a_class_without_a_label_is_refused():
    with pytest.raises(ValueError, match="needs labels of each class, and there are none of class 1, 3; give"):
        balanced_weights([torch.tensor([0, 2]), torch.tensor([2, -1])], 4)


def test_loss_and_performance_are_weighted_means_over_the_whole_split(split):
    logits, target = split
    task = Classification(3, class_weights="balanced")
    assert task.needs_fit
    task.fit([target])
    found, probabilities = evaluate(task, logits, target), logits.double().softmax(dim=1).numpy()
    weights = compute_sample_weight("balanced", target)
    assert found["loss"] == pytest.approx(log_loss(target, probabilities, sample_weight=weights), rel=1e-5)
    assert abs(found["loss"] - log_loss(target, probabilities)) > 0.01
    chosen = logits.argmax(dim=1)
    assert task.performance(logits, target).item() == pytest.approx(balanced_accuracy_score(target, chosen))
    unweighted = evaluate(Classification(3), logits, target)
    assert {name: value for name, value in found.items() if unweighted[name] == value}.keys() == task.metrics().keys()


@pytest.mark.parametrize(
    ("label_smoothing", "criterion"), [(0.0, "cross_entropy"), (0.3, "cross_entropy"), (0.0, "focal")]
)
@pytest.mark.parametrize("scale", [1.0, 1e-3])  # the sum of a batch's weights may be below 1
def test_means_over_batches_are_those_over_all(split, label_smoothing, criterion, scale):
    logits, target = split
    task = Classification(3, [scale, 2 * scale, 5 * scale], label_smoothing=label_smoothing, criterion=criterion)
    loss = task.loss(logits, target)
    counts = torch.bincount(target).tolist()
    assert task.num_terms(target).item() == pytest.approx(scale * (counts[0] + 2 * counts[1] + 5 * counts[2]))
    assert evaluate(task, logits, target)["loss"] == pytest.approx(loss.item(), rel=1e-5)
    batch = LabeledBatch.load({"it": task}, (logits, {"it": target}), torch.device("cpu"))
    pieces = list(batch.split(4))
    for whole, name in [(loss, "loss"), (task.performance(logits, target), "performance")]:
        streams = [stream for piece in pieces for stream in piece.source_batches]
        values = torch.stack([getattr(task, name)(stream.inputs, stream.targets["it"]) for stream in streams])
        shares = torch.cat([piece.num_terms() for piece in pieces]) / batch.num_terms()
        assert (values * shares).sum().item() == pytest.approx(whole.item(), rel=1e-5)


def test_weights_by_hand():
    # Probabilities of the labels 1/4 and 1/2, weights 3 and 1.
    logits, target = torch.tensor([[1.0, 3.0], [2.0, 2.0]]).log(), torch.tensor([0, 1])
    expected = (3 * torch.tensor(4.0).log() + torch.tensor(2.0).log()) / 4
    torch.testing.assert_close(Classification(2, class_weights=[3.0, 1.0]).loss(logits, target), expected)
    task = Segmentation(2, class_weights=[3.0, 1.0])
    maps, labels = logits.T[None, :, None, :], target[None, None]
    torch.testing.assert_close(task.loss(maps, labels), expected)
    assert task.performance(maps, labels).item() == 0.0  # 1/2 and 1/2: the first class is chosen


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_weights_take_the_type_of_the_predictions(split, dtype):
    logits, target = split
    weights = [1.0, 2.0, 3.0]
    assert Classification(3, class_weights=weights).loss(logits.to(dtype), target).dtype == dtype
    maps, labels = logits.to(dtype).T[None, :, None], target[None, None]
    assert Segmentation(3, class_weights=weights).loss(maps, labels).dtype == dtype
    binary = BinaryClassification(class_weights=[1.0, 2.0])
    assert binary.loss(logits[:, :1].double(), target.clamp(max=1)).dtype == torch.float64


@pytest.mark.parametrize("ignored", [-1, 255, 2])
def test_weights_of_pixels(ignored):
    generator = torch.Generator().manual_seed(1)
    target = torch.multinomial(torch.tensor([0.7, 0.2, 0.1]), 120, replacement=True, generator=generator).view(4, 5, 6)
    target[torch.rand(4, 5, 6, generator=generator) < 0.2] = ignored
    target[0, 1:] = ignored
    logits = torch.randn(4, 3, 5, 6, generator=generator)
    task = Segmentation(3, ignored, class_weights="balanced")
    task.fit(target.split(3))
    there = target != ignored
    labels, maps = target[there].numpy(), logits.double().softmax(dim=1).movedim(1, -1)[there].numpy()
    weights = compute_sample_weight("balanced", labels)
    assert task.num_terms(target).item() == pytest.approx(weights.sum(), rel=1e-5)
    expected = log_loss(labels, maps, sample_weight=weights, labels=[0, 1, 2])
    assert evaluate(task, logits, target, [1, 3])["loss"] == pytest.approx(expected, rel=1e-5)
    focal = Segmentation(3, ignored, class_weights=[*task.class_weights[:2].tolist(), 1.0], criterion="focal")
    whole = focal.loss(logits, target).item()
    assert 0 < whole < expected
    assert evaluate(focal, logits, target, [1, 3])["loss"] == pytest.approx(whole, rel=1e-5)
    right = balanced_accuracy_score(labels, maps.argmax(axis=1)) if ignored != 2 else None
    if right is not None:
        assert task.performance(logits, target).item() == pytest.approx(right, rel=1e-5)


def test_without_weights_there_are_none(split):
    for task in (Classification(3), Segmentation(3), BinaryClassification()):
        assert task.class_weights is None
        assert not task.needs_fit
        assert not list(task.buffers())


@pytest.mark.parametrize("make", [Classification, Segmentation])
@pytest.mark.parametrize(
    ("class_weights", "message"),
    [
        ([1.0, 2.0], "class_weights must be 3 numbers, one for each class, found 2"),
        ([1.0, 0.0, 1.0], r"class_weights\[1\] must be > 0, found 0\.0"),
        ([1.0, float("inf"), 1.0], r"class_weights\[1\] must be > 0 and finite, found inf"),
        ([1.0, float("nan"), 1.0], r"class_weights\[1\] must be > 0, found nan"),
    ],
)
def test_invalid_class_weights_are_refused(make, class_weights, message):
    with pytest.raises(ValueError, match=message):
        make(3, class_weights=class_weights)


class NoTargets(Dataset):
    """A split that does not hold its targets, and asks for random numbers."""

    def __init__(self, split):
        self.split = split

    def __len__(self):
        return len(self.split)

    def __getitem__(self, index):
        torch.rand(1)
        return self.split[index]


def prepared(*overrides):
    return prepare(compose([*PREPARED, *overrides]))


def test_the_weights_are_those_of_the_training_split():
    parts = prepared()
    labels = parts.loaders["train"].split.targets["left"]
    expected = compute_class_weight("balanced", classes=numpy.arange(10), y=labels.numpy())
    assert len(set(expected)) > 1
    assert parts.tasks["left"].class_weights.tolist() == pytest.approx(expected.tolist())
    assert parts.tasks["right"].class_weights is None
    limited = prepared("trainer.limit_batches=1", "seed=5").tasks["left"]
    assert torch.equal(limited.class_weights, parts.tasks["left"].class_weights)


def test_classes_are_counted_by_reading_a_split_without_targets(monkeypatch):
    expected, split = prepared().tasks["left"].class_weights, MultiDigits.split
    state = torch.get_rng_state()
    monkeypatch.setattr(MultiDigits, "split", lambda self, name: NoTargets(split(self, name)))
    assert torch.equal(prepared().tasks["left"].class_weights, expected)
    assert torch.equal(torch.get_rng_state(), state)


def test_wrong_targets_of_a_split_without_targets_are_refused(monkeypatch, mtlrun):
    split = MultiDigits.split

    def broken(self, name):
        whole = split(self, name)
        whole.targets["left"][300] = 10
        return NoTargets(TensorSplit(whole.inputs, whole.targets))

    monkeypatch.setattr(MultiDigits, "split", broken)
    code, _, err = mtlrun(*PREPARED, "trainer.batch_size=256")
    assert code == 2
    assert "dataset: train split, task left: in the samples from number 256 on: targets must be in 0..9" in err
    assert not run_folders()


def test_a_class_absent_in_training_is_refused_before_the_run(mtlrun):
    code, _, err = mtlrun(*PREPARED, "tasks.left.num_classes=11")
    assert code == 2
    assert "dataset: train split, task left: class_weights=balanced needs labels of each class" in err
    assert "none of class 10; give the weights as a list" in err
    assert not run_folders()


def test_a_run_with_balanced_weights_is_the_same_in_micro_batches(mtlrun):
    tests = []
    for pieces in (1, 3):
        code, _, err = mtlrun(
            *PREPARED,
            "trainer.epochs=1",
            "trainer.limit_batches=3",
            f"trainer.micro_batches={pieces}",
            f"runtime.root=pieces{pieces}",
        )
        assert code == 0, err
        (folder,) = run_folders(f"pieces{pieces}")
        tests.append(read_record(folder)["test"]["left"])
    assert tests[0] == pytest.approx(tests[1], rel=1e-4)
