"""The kept predictions of a run on its test split, and its metrics computed from them without PyTorch."""

import csv
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mtlrun.records.folder import PREDICTIONS

if TYPE_CHECKING:
    import numpy
    import pandas

    from mtlrun.tasks.resampling.base import ResampledMetrics


@dataclass(frozen=True)
class TaskPredictions:
    """What a run predicted for the labeled test samples of a task.

    Args:
        num_samples: number of them.
        samples: a hash of their ids.
        key: a hash of their ids and labels: equal for runs that can be paired by sample.
        formulas: {metric: the function that computes it, and maybe others, from how often each sample occurs}.
    """

    num_samples: int
    samples: str
    key: str
    formulas: "Mapping[str, ResampledMetrics]"


class UnusableError(Exception):
    """Predictions cannot be used; the text says why, as the end of a sentence."""


def read_predictions(folder: Path) -> dict[str, TaskPredictions]:
    """Return the predictions of a run on its test split, by task.

    Raises:
        UnusableError: there is no file of predictions, or it cannot be read.
    """
    table = _read(folder)
    names = list(table.columns)
    tasks = dict.fromkeys(name.split(".target")[0] for name in names if ".target" in name)
    found = {}
    for task in tasks:
        columns = [name.removeprefix(f"{task}.") for name in names if name.startswith(f"{task}.")]
        of_task = table[["sample", *(f"{task}.{column}" for column in columns)]]
        of_task.columns = ["sample", *columns]
        try:
            found[task] = _of_task(of_task)
        except (ValueError, KeyError, IndexError, TypeError) as error:  # written by hand, or damaged
            raise UnusableError(f"the predictions of {task} in {folder} make no sense ({error})") from error
    return found


def _read(folder: Path) -> "pandas.DataFrame":
    """Return the lines of the test split; ids, labels and names of classes are texts, as far as possible."""
    import pandas

    path = next((folder / name for name in PREDICTIONS.values() if (folder / name).exists()), None)
    if path is None:
        raise UnusableError("a run kept no predictions (runtime.predictions=none, or tasks that have none)")
    try:
        if path.suffix == ".csv":
            with open(path, newline="", encoding="utf-8") as file:
                names = next(csv.reader(file))
            texts = {name: str for name in names if not _is_probability(name)}
            table = pandas.read_csv(path, dtype=texts, keep_default_na=False, na_values=[""], encoding="utf-8")
        else:
            table = _read_parquet(path)
        return table[table["split"] == "test"]
    except ImportError as error:
        raise UnusableError(f"{path} needs pyarrow: pip install 'mtlrun[parquet]'") from error
    except (OSError, ValueError, KeyError, StopIteration) as error:
        raise UnusableError(f"{path} cannot be read ({error})") from error


def _read_parquet(path: Path) -> "pandas.DataFrame":
    import pyarrow
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    for index, field in enumerate(table.schema):
        if pyarrow.types.is_integer(field.type):  # pandas would make numbers with a fraction of them
            table = table.set_column(index, field.name, table.column(index).cast(pyarrow.string()))
    frame: pandas.DataFrame = table.to_pandas(ignore_metadata=True)
    return frame


def _is_probability(name: str) -> bool:
    return ".probability." in name


def _of_task(table: "pandas.DataFrame") -> TaskPredictions:
    """Return the predictions of one task; columns are `sample`, and those of the task without its name."""
    targets, decided, chances = (
        [name for name in table.columns if name == kind or name.startswith(f"{kind}.")]
        for kind in ("target", "prediction", "probability")
    )
    labeled = table[targets].notna().any(axis=1) & table[decided].notna().all(axis=1)
    table = table[labeled]
    samples = _hash(table["sample"])
    if not len(table):
        return TaskPredictions(0, samples, samples, {})
    if chances and len(targets) == 1:
        key = _hash([samples, *table["target"]])
        formulas = _of_classes(table, [name.removeprefix("probability.") for name in chances])
    else:
        true = _numbers(table, targets)
        key = _hash([samples, *true.astype("float32").ravel().tolist()])  # CSV has the digits that tell these apart
        of_labels = (true, _numbers(table, decided), _numbers(table, chances))
        formulas = _of_labels(*of_labels) if chances else _of_numbers(*of_labels[:2])
    return TaskPredictions(len(table), samples, key, formulas)


def _hash(values: Iterable[object]) -> str:
    return hashlib.sha256("\0".join(map(str, values)).encode(errors="surrogatepass")).hexdigest()


def _numbers(table: "pandas.DataFrame", names: Sequence[str]) -> "numpy.ndarray":
    """Return columns as numbers, [num_samples, num_columns]."""
    numbers: numpy.ndarray = table[list(names)].astype(float).to_numpy()
    return numbers


def _of_classes(table: "pandas.DataFrame", names: Sequence[str]) -> "dict[str, ResampledMetrics]":
    """Return the formulas of a task with one of several classes; one name is that of yes, of a binary task."""
    import numpy

    from mtlrun.tasks.resampling.decisions import (
        accuracy,
        balanced_accuracy,
        decisions,
        f1_of_yes,
        macro_f1,
        matthews,
        quadratic_kappa,
    )
    from mtlrun.tasks.resampling.means import means
    from mtlrun.tasks.resampling.probabilities import calibration
    from mtlrun.tasks.resampling.rankings import rankings

    chances = _numbers(table, [f"probability.{name}" for name in names])
    binary = len(names) == 1
    indices = {name: index for index, name in enumerate(names)}
    if binary:
        label, decided = ((table[name] == names[0]).to_numpy().astype(int) for name in ("target", "prediction"))
        of_label, probability, outcome = numpy.where(label, chances[:, 0], 1 - chances[:, 0]), chances[:, 0], label
    else:
        label, decided = (
            numpy.array([indices[value] for value in table[name]], dtype=int) for name in ("target", "prediction")
        )
        samples = numpy.arange(len(label))
        of_label, probability, outcome = chances[samples, label], chances[samples, decided], label == decided
    with numpy.errstate(divide="ignore"):
        losses = -numpy.log(of_label)
    counted = {
        "accuracy": accuracy,
        "f1": f1_of_yes if binary else macro_f1,
        "balanced_accuracy": balanced_accuracy,
        "mcc": matthews,
    }
    num_classes = max(len(names), 2)
    found = dict.fromkeys(counted, decisions(decided, label, num_classes, counted))
    found |= dict.fromkeys(["log_loss", "ece"], calibration(losses, probability, outcome.astype(float)))
    if binary:
        ranked = rankings(chances[:, 0], label, auroc="auroc", average_precision="average_precision")
        return found | dict.fromkeys(["auroc", "average_precision"], ranked)
    # those of levels, of an ordinal task
    return found | {
        "mae": means({"mae": numpy.abs(label - decided)}),
        "kappa": quadratic_kappa(decided, label, num_classes),
    }


def _of_labels(
    target: "numpy.ndarray", decided: "numpy.ndarray", chances: "numpy.ndarray"
) -> "dict[str, ResampledMetrics]":
    """Return the formulas of a task with several labels, all [num_samples, num_labels]; NaN for a missing label."""
    import numpy

    from mtlrun.tasks.resampling.decisions import macro_f1_of_labels
    from mtlrun.tasks.resampling.rankings import rankings

    labels = numpy.nan_to_num(target, nan=-1.0)
    ranked = rankings(chances, labels, auroc="auroc", average_precision="map")
    return {"auroc": ranked, "map": ranked, "f1": macro_f1_of_labels(decided, labels)}


def _of_numbers(target: "numpy.ndarray", found: "numpy.ndarray") -> "dict[str, ResampledMetrics]":
    """Return the formulas of predicted numbers, both [num_samples, num_outputs]."""
    import numpy
    from scipy.special import xlogy

    from mtlrun.tasks.resampling.correlations import determination, rank_correlation
    from mtlrun.tasks.resampling.means import errors, means

    both = errors(found, target)
    formulas: dict[str, Callable[[numpy.ndarray], dict[str, numpy.ndarray]]] = {
        "rmse": both,
        "mae": both,
        "r2": determination(found, target),
    }
    if target.shape[1] == 1:
        number, rate = target[:, 0], found[:, 0]
        formulas["spearman"] = rank_correlation(rate, number)
        if (number >= 0).all() and (rate > 0).all():
            formulas["poisson_deviance"] = means(
                {"poisson_deviance": 2 * (xlogy(number, number / rate) - number + rate)}
            )
    return formulas
