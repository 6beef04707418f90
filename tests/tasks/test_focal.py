"""The focal loss, by hand, against torchvision, and where probabilities round to 0 and 1."""

import math

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from mtlrun.tasks import BinaryClassification, Classification, MultiLabel, Segmentation

FOCAL = {"criterion": "focal"}
GENERATOR = torch.Generator().manual_seed(0)
ROWS = torch.randn(40, 3, generator=GENERATOR, dtype=torch.float64) * 2
CLASSES = torch.randint(3, (40,), generator=GENERATOR)
ANSWERS = torch.randint(2, (40,), generator=GENERATOR)
MAPS, PIXELS = ROWS.T.reshape(3, 2, 4, 5).movedim(0, 1), CLASSES.view(2, 4, 5)
LABELS = torch.randint(-1, 2, (40, 3), generator=GENERATOR)

# (kind, its first arguments, predictions, targets)
ALL = {
    "classes": (Classification, {"num_classes": 3}, ROWS, CLASSES),
    "yes or no": (BinaryClassification, {}, ROWS[:, :1], ANSWERS),
    "labels": (MultiLabel, {"num_labels": 3}, ROWS, LABELS),
    "segmentation": (Segmentation, {"num_classes": 3}, MAPS, PIXELS.where(torch.arange(5) != 2, -1)),
}


@pytest.fixture(params=ALL)
def kind(request):
    """Return a function that makes a task of the kind, predictions that want a gradient, and targets."""
    make, first, prediction, target = ALL[request.param]
    return lambda **keys: make(**first, **keys), prediction.clone().requires_grad_(), target


def test_values_by_hand():
    # Probabilities of the labels 1/4 and 1/2: (3/4)^2 log 4 and (1/2)^2 log 2.
    rows, target = torch.tensor([[1.0, 3.0], [2.0, 2.0]]).log(), torch.tensor([0, 1])
    expected = (9 / 16 * math.log(4) + 1 / 4 * math.log(2)) / 2
    assert Classification(2, **FOCAL).loss(rows, target).item() == pytest.approx(expected)
    logits = torch.tensor([[math.log(3)], [0.0]])
    assert BinaryClassification(**FOCAL).loss(logits, target).item() == pytest.approx(expected)
    labels = torch.tensor([[0.0, math.nan], [1.0, -1.0]])
    found = MultiLabel(2, **FOCAL).loss(logits.expand(2, 2), labels)
    assert found.item() == pytest.approx(expected)
    maps, pixels = rows.T[None, :, None], target[None, None]
    assert Segmentation(2, **FOCAL).loss(maps, pixels).item() == pytest.approx(expected)
    assert Segmentation(2, ignore_index=1, **FOCAL).loss(maps, pixels).item() == pytest.approx(9 / 16 * math.log(4))
    cubic = (27 / 64 * math.log(4) + 1 / 8 * math.log(2)) / 2
    assert Classification(2, focal_gamma=3.0, **FOCAL).loss(rows, target).item() == pytest.approx(cubic)


def test_class_weights_by_hand():
    rows, target = torch.tensor([[1.0, 3.0], [2.0, 2.0]]).log(), torch.tensor([0, 1])
    expected = (3 * 9 / 16 * math.log(4) + 1 / 4 * math.log(2)) / 4
    weights = {"class_weights": [3.0, 1.0]}
    assert Classification(2, **FOCAL, **weights).loss(rows, target).item() == pytest.approx(expected)
    assert BinaryClassification(**FOCAL, **weights).loss(
        torch.tensor([[math.log(3)], [0.0]]), target
    ).item() == pytest.approx(expected)
    maps, pixels = rows.T[None, :, None], target[None, None]
    assert Segmentation(2, **FOCAL, **weights).loss(maps, pixels).item() == pytest.approx(expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_binary_focal_loss_is_that_of_torchvision(gamma):
    logit, answer = ROWS[:, 0], ANSWERS.double()
    task = BinaryClassification(focal_gamma=gamma, **FOCAL)
    expected = sigmoid_focal_loss(logit, answer, alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(task.loss(logit[:, None], ANSWERS), expected)
    task = BinaryClassification(class_weights=[0.75, 0.25], focal_gamma=gamma, **FOCAL)
    total = sigmoid_focal_loss(logit, answer, alpha=0.25, gamma=gamma, reduction="sum")
    torch.testing.assert_close(task.loss(logit[:, None], ANSWERS), total / (0.75 - 0.5 * answer).sum())
    there = LABELS >= 0
    expected = sigmoid_focal_loss(ROWS[there], LABELS[there].double(), alpha=-1, gamma=gamma, reduction="mean")
    torch.testing.assert_close(MultiLabel(3, focal_gamma=gamma, **FOCAL).loss(ROWS, LABELS), expected)


@pytest.mark.parametrize("class_weights", ["none", [0.5, 3.0]])
def test_binary_focal_loss_is_that_of_two_classes(class_weights):
    keys = FOCAL | {"class_weights": class_weights, "focal_gamma": 1.5}
    pair = torch.stack([torch.zeros(40), ROWS[:, 0]], dim=1)
    expected = Classification(2, **keys).loss(pair, ANSWERS)
    torch.testing.assert_close(BinaryClassification(**keys).loss(ROWS[:, :1], ANSWERS), expected)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_with_gamma_0_it_is_the_cross_entropy(kind, dtype):
    make, prediction, target = kind
    found = make(focal_gamma=0.0, **FOCAL).loss(prediction.to(dtype), target)
    assert found.dtype == dtype
    torch.testing.assert_close(found, make().loss(prediction.to(dtype), target))


def test_focal_loss_decreases_with_gamma_which_is_2_by_default(kind):
    make, prediction, target = kind
    losses = [make(focal_gamma=gamma, **FOCAL).loss(prediction, target).item() for gamma in (0.0, 1.0, 2.0, 4.0)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] > 0
    assert make(**FOCAL).loss(prediction, target).item() == losses[2]
    assert make(focal_gamma=4.0).loss(prediction, target).item() == pytest.approx(losses[0])


def test_class_weights_keep_the_type_of_the_predictions():
    weights = [1.0, 2.0, 3.0]
    for dtype in (torch.float64, torch.bfloat16):
        for name in ("classes", "segmentation"):
            make, first, prediction, target = ALL[name]
            task = make(**first, class_weights=weights, **FOCAL)
            assert task.loss(prediction.to(dtype), target).dtype == dtype
        binary = BinaryClassification(class_weights=weights[:2], **FOCAL)
        assert binary.loss(ROWS[:, :1].to(dtype), ANSWERS).dtype == dtype


def test_gradients_are_those_of_differences(kind):
    make, prediction, target = kind
    task = make(focal_gamma=1.5, **FOCAL)
    assert torch.autograd.gradcheck(lambda logits: task.loss(logits, target), prediction)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("scale", [1e2, 1e6, 1e30])
def test_gradients_are_finite_where_probabilities_are_0_and_1(kind, gamma, scale):
    make, prediction, target = kind
    logits = (prediction * scale).float().detach().requires_grad_()
    loss = make(focal_gamma=gamma, **FOCAL).loss(logits, target)
    loss.backward()
    assert loss.isfinite()
    assert loss >= 0
    assert logits.grad.isfinite().all()
    assert logits.grad.any()  # where the label has probability 0 there is no factor


def test_equal_and_certain_predictions_have_a_finite_loss():
    rows = torch.tensor([[200.0, 0.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    loss = Classification(3, focal_gamma=0.5, **FOCAL).loss(rows, torch.tensor([0, 0]))
    loss.backward()
    assert loss.item() == pytest.approx((2 / 3) ** 0.5 * math.log(3) / 2)
    assert rows.grad[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("ignored", [-1, 255, 1])
def test_pixels_without_a_label_reach_no_gradient(ignored):
    target = PIXELS.clone()
    target[:, ::2, 1:] = ignored
    maps = MAPS.clone().requires_grad_()
    task = Segmentation(3, ignored, class_weights=[1.0, 2.0, 3.0], **FOCAL)
    task.loss(maps, target).backward()
    assert torch.equal((maps.grad != 0).any(dim=1), target != ignored)


def test_missing_labels_reach_no_gradient():
    logits = ROWS.clone().requires_grad_()
    target = torch.where(LABELS < 0, math.nan, LABELS.double())
    MultiLabel(3, **FOCAL).loss(logits, target).backward()
    assert torch.equal(logits.grad != 0, LABELS >= 0)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"criterion": "hinge"}, "^criterion must be one of 'cross_entropy', 'focal', found 'hinge'"),
        ({"focal_gamma": -1.0}, r"^focal_gamma must be >= 0, found -1\.0"),
        ({"focal_gamma": math.inf}, "^focal_gamma must be >= 0 and finite, found inf"),
        ({"focal_gamma": math.nan}, "^focal_gamma must be >= 0, found nan"),
        (FOCAL | {"label_smoothing": 0.1}, r"^label_smoothing must be 0 with criterion=focal, found 0\.1"),
    ],
)
def test_arguments_out_of_bounds_are_refused(kind, keys, message):
    with pytest.raises(ValueError, match=message):
        kind[0](**keys)
