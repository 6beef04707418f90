"""Weights of samples: a sample of weight 3 counts as three of weight 1."""

import pytest
import torch

from mtlrun.tasks import (
    BinaryClassification,
    Classification,
    Count,
    Depth,
    MultiLabel,
    Ordinal,
    Regression,
    Segmentation,
    SurfaceNormals,
)
from mtlrun.tasks.losses.sample_weights import num_weighted_terms, sample_weighted_loss
from mtlrun.training.batch import LabeledBatch

COUNT = 7
WEIGHTS = torch.tensor([1.0, 3.0, 2.0, 1.0, 4.0, 1.0, 2.0])


def classes(number, *shape):
    return torch.arange(COUNT * max(1, int(torch.tensor(shape).prod()))).reshape(COUNT, *shape) * 7 % number


def some_missing(target):
    target = target.clone()
    target[::2, ..., :1] = -1 if not target.is_floating_point() else torch.nan
    return target


def vectors(*shape):
    return torch.nn.functional.normalize(torch.randn(COUNT, *shape), dim=1)


KINDS = {
    "classes": (Classification(3), lambda: classes(3)),
    "weighted classes": (Classification(3, [1.0, 2.0, 5.0], label_smoothing=0.1), lambda: classes(3)),
    "yes or no": (BinaryClassification(), lambda: classes(2).float()),
    "weighted yes or no": (BinaryClassification(class_weights=[1.0, 4.0]), lambda: classes(2).float()),
    "focal classes": (Classification(3, criterion="focal"), lambda: classes(3)),
    "weighted focal classes": (Classification(3, [1.0, 2.0, 5.0], criterion="focal"), lambda: classes(3)),
    "weighted focal yes or no": (
        BinaryClassification(class_weights=[1.0, 4.0], criterion="focal"),
        lambda: classes(2).float(),
    ),
    "focal labels": (MultiLabel(4, criterion="focal"), lambda: some_missing(classes(2, 4))),
    "weighted labels": (MultiLabel(4, [1.0, 2.0, 0.5, 3.0]), lambda: some_missing(classes(2, 4))),
    "weighted focal labels": (
        MultiLabel(4, [1.0, 2.0, 0.5, 3.0], criterion="focal"),
        lambda: some_missing(classes(2, 4)),
    ),
    "labels": (MultiLabel(4), lambda: some_missing(classes(2, 4))),
    "numbers": (Regression(2), lambda: torch.randn(COUNT, 2)),
    "huber": (Regression(criterion="huber"), lambda: torch.randn(COUNT)),
    "levels": (Ordinal(4), lambda: classes(4)),
    "conditional levels": (Ordinal(4, criterion="corn"), lambda: classes(4)),
    "counts": (Count(), lambda: classes(9).float()),
    "segmentation": (Segmentation(3), lambda: some_missing(classes(3, 4, 5))),
    "weighted segmentation": (Segmentation(3, class_weights=[1.0, 2.0, 5.0]), lambda: some_missing(classes(3, 4, 5))),
    "focal segmentation": (Segmentation(3, criterion="focal"), lambda: some_missing(classes(3, 4, 5))),
    "weighted focal segmentation": (
        Segmentation(3, class_weights=[1.0, 2.0, 5.0], criterion="focal"),
        lambda: some_missing(classes(3, 4, 5)),
    ),
    "depth": (Depth(), lambda: torch.rand(COUNT, 1, 4, 5) * (torch.rand(COUNT, 1, 4, 5) > 0.3)),
    "normals": (SurfaceNormals(), lambda: some_missing(vectors(3, 4, 5))),
    "normals, l1": (SurfaceNormals("l1"), lambda: some_missing(vectors(3, 4, 5))),
    "normals, angle": (SurfaceNormals("angle"), lambda: some_missing(vectors(3, 4, 5))),
}


@pytest.fixture(params=KINDS)
def kind(request):
    """Return a task, targets of it, and predictions that want a gradient."""
    task, make = KINDS[request.param]
    target = make()
    place = target.shape[-2:] if task.dense else ()
    return task, target, torch.randn(COUNT, task.output_size, *place, requires_grad=True)


def test_a_weight_is_a_number_of_repetitions(kind):
    task, target, prediction = kind
    repeated = torch.arange(COUNT).repeat_interleave(WEIGHTS.long())
    expected = task.loss(prediction[repeated], target[repeated])
    found = sample_weighted_loss(task, prediction, target, WEIGHTS)
    torch.testing.assert_close(found, expected)
    wanted = torch.autograd.grad(expected, prediction)[0]
    torch.testing.assert_close(torch.autograd.grad(found, prediction)[0], wanted)
    terms = num_weighted_terms(task, target, WEIGHTS)
    assert float(terms) == pytest.approx(float(task.num_terms(target[repeated])))


def test_losses_and_term_counts_of_samples_can_be_computed_by_vmap(kind):
    task, target, prediction = kind
    if getattr(task, "label_smoothing", 0):
        return  # with class weights PyTorch's cross-entropy selects by value

    def alone(*sample):
        return task.loss(*(part[None] for part in sample)), torch.as_tensor(task.num_terms(sample[1][None]))

    losses, terms = torch.vmap(alone)(prediction, target)
    assert losses.shape == terms.shape == (COUNT,)


def test_equal_sample_weights_change_nothing(kind):
    task, target, prediction = kind
    found = sample_weighted_loss(task, prediction, target, torch.full((COUNT,), 0.3))
    torch.testing.assert_close(found, task.loss(prediction, target))


def load(task, target, weights):
    return LabeledBatch.load({"it": task}, (torch.zeros(COUNT, 1), {"it": target}, weights), torch.device("cpu"))


def test_micro_batches_of_a_weighted_batch_add_up(kind):
    task, target, prediction = kind
    batch = load(task, target, WEIGHTS)
    whole = batch.source_batches[0].losses({"it": prediction})["it"]
    assert not torch.isclose(whole, task.loss(prediction, target), rtol=1e-4)
    total, position = 0.0, 0
    for piece in batch.split(3):
        (source_batch,) = piece.source_batches
        part = prediction[position : position + len(source_batch)]
        total += source_batch.losses({"it": part})["it"] * (piece.num_terms() / batch.num_terms())[0]
        position += len(source_batch)
    torch.testing.assert_close(total.to(whole.dtype), whole)


def test_a_weight_of_zero_is_a_missing_label():
    target = torch.tensor([0, 1, -1, 2, 0, 1, 2])
    batch = load(Classification(3), target, torch.tensor([1.0, 0.0, 2.0, 0.5, 0.0, 1.0, 1.0]))
    (source_batch,) = batch.source_batches
    assert source_batch.label_index["it"].tolist() == [0, 3, 5, 6]
    assert source_batch.sample_weights["it"].tolist() == [1.0, 0.5, 1.0, 1.0]
    assert batch.num_terms().tolist() == [3.5]


def test_a_loss_that_vmap_cannot_follow_is_computed_sample_by_sample():
    calls = []

    class Picky(Regression):
        def loss(self, prediction, target):
            calls.append(len(target))
            return super().loss(prediction, target) * (2 if float(target.sum()) > 0 else 1)

    prediction, target = torch.randn(3, 1), torch.tensor([1.0, -1.0, 2.0])
    squares = (prediction[:, 0] - target).square()
    task = Picky()
    for expected_calls in (4, 3):  # vmap is tried for once
        calls.clear()
        found = sample_weighted_loss(task, prediction, target, torch.tensor([1.0, 2.0, 5.0]))
        torch.testing.assert_close(found, (2 * squares[0] + 2 * squares[1] + 10 * squares[2]) / 8)
        assert len(calls) == expected_calls


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, torch.AcceleratorError])
def test_an_error_of_a_gpu_is_not_taken_for_a_loss_that_vmap_cannot_follow(error):
    class Large(Regression):
        def loss(self, prediction, target):
            raise error("CUDA error")

    with pytest.raises(error):
        sample_weighted_loss(Large(), torch.randn(3, 1), torch.randn(3), torch.ones(3))


def test_tasks_may_have_weights_of_their_own_in_batches_of_several_sources():
    tasks = {"weighted": Regression(), "plain": Regression()}
    target, predictions = torch.randn(COUNT), {name: torch.randn(COUNT, 1) for name in tasks}
    samples = (torch.zeros(COUNT, 1), dict.fromkeys(tasks, target), {"weighted": WEIGHTS})
    for loaded in (samples, {"one": samples}):
        batch = LabeledBatch.load(tasks, loaded, torch.device("cpu"))
        losses = batch.source_batches[0].losses(predictions)
        expected = sample_weighted_loss(tasks["weighted"], predictions["weighted"], target, WEIGHTS)
        torch.testing.assert_close(losses["weighted"], expected)
        torch.testing.assert_close(losses["plain"], tasks["plain"].loss(predictions["plain"], target))
        assert batch.num_terms().tolist() == [WEIGHTS.sum().item(), COUNT]
        pieces = torch.stack([piece.num_terms() for piece in batch.split(3)]).sum(dim=0)
        assert pieces.tolist() == [WEIGHTS.sum().item(), COUNT]
