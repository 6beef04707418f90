"""Decoded predictions: in the unit of the data, with probabilities that agree with the loss and with the metrics."""

import pytest
import torch
from scipy.special import expit, softmax

from mtlrun.cli.list import entries
from mtlrun.config.compose import compose
from mtlrun.config.instantiate import build
from mtlrun.config.schema import SIZE_KEYS
from mtlrun.tasks import (
    BinaryClassification,
    Classification,
    Count,
    DecodesPredictions,
    MultiLabel,
    Ordinal,
    Regression,
)

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [-3.0, 4.0, 1.0], [0.1, 0.2, 0.3], [30.0, -30.0, 0.0]])


def close(found, expected):
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype))


def test_classes_have_the_probabilities_of_the_softmax():
    decoded = Classification(3).decode(LOGITS)
    close(decoded.probabilities, softmax(LOGITS.double().numpy(), axis=1))
    close(decoded.prediction, [0, 1, 2, 0])


def test_a_binary_label_has_the_probability_of_yes():
    decoded = BinaryClassification().decode(LOGITS[:, :1])
    close(decoded.probabilities, expit(LOGITS[:, 0].double().numpy()))
    close(decoded.prediction, [1, 0, 1, 1])


def test_each_of_several_labels_has_the_probability_of_yes():
    decoded = MultiLabel(3).decode(LOGITS)
    close(decoded.probabilities, expit(LOGITS.double().numpy()))
    close(decoded.prediction, [[1, 0, 1], [0, 1, 1], [1, 1, 1], [1, 0, 0]])


def test_counts_are_rates_and_numbers_are_themselves():
    close(Count().decode(LOGITS[:, :1]).prediction, LOGITS[:, 0].double().exp())
    close(Regression().decode(LOGITS[:, :1]).prediction, LOGITS[:, 0])
    close(Regression(3).decode(LOGITS).prediction, LOGITS)


@pytest.mark.parametrize("criterion", ["frank_hall", "corn"])
def test_levels_have_a_distribution_whose_median_is_the_prediction(criterion):
    task = Ordinal(6, criterion)
    logits = 3 * torch.randn(200, 5)
    decoded = task.decode(logits)
    assert (decoded.probabilities >= 0).all()
    close(decoded.probabilities.sum(dim=1), torch.ones(200, dtype=torch.float64))
    close(decoded.prediction, task.metric_inputs(logits, torch.zeros(200))[0])
    median = (decoded.probabilities.cumsum(dim=1) < 0.5).sum(dim=1)
    close(decoded.prediction, median)


def test_thresholds_in_order_keep_their_probabilities():
    logits = torch.tensor([[2.0, 0.5, -1.0]])
    above = expit(logits[0].double().numpy())
    expected = [1 - above[0], above[0] - above[1], above[1] - above[2], above[2]]
    close(Ordinal(4).decode(logits).probabilities[0], expected)
    expected = [1 - above[0], above[0] * (1 - above[1]), above[0] * above[1] * (1 - above[2]), above.prod()]
    close(Ordinal(4, "corn").decode(logits).probabilities[0], expected)


def test_every_kind_that_ships_decodes_unless_it_predicts_pixels_boxes_or_points():
    kinds = {}
    for entry in entries("task"):
        node = compose([f"+task@tasks.extra={entry.name}"])["tasks"]["extra"]
        task = build(node | {key: 2 for key in SIZE_KEYS if key in node}, "tasks.extra")
        kinds[entry.name] = task.dense or task.boxes or isinstance(task, DecodesPredictions)
    assert [name for name, found in kinds.items() if not found] == []
