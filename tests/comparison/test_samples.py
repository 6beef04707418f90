"""Metrics and paired differences from files of predictions, against scikit-learn and the standard error of a mean."""

import math
from types import SimpleNamespace

import numpy
import pandas
import pytest
import sklearn.metrics as reference
from synthetic import make_record

from mtlrun.comparison.predictions import UnusableError, read_predictions
from mtlrun.comparison.samples import SampleComparison

SIZE = 60


def draw(seed=0):
    """Return lines of the test split with a task of each kind that keeps predictions; targets depend on nothing."""
    labels, scores = numpy.random.default_rng(1), numpy.random.default_rng(seed)
    yes, chance = labels.integers(0, 2, SIZE), scores.random(SIZE).round(9)
    kind, chances = labels.integers(0, 3, SIZE), scores.dirichlet([1, 1, 1], SIZE)
    price, visits = labels.normal(50, 9, SIZE).astype("float32"), labels.poisson(2, SIZE)
    tags = labels.integers(0, 2, (SIZE, 2))
    table = {
        "sample": [f"s{index}" for index in range(SIZE)],
        "split": "test",
        "sold.target": numpy.where(yes, "NA", "no"),  # a class called NA is not a missing label
        "sold.prediction": numpy.where(chance > 0.5, "NA", "no"),
        "sold.probability.NA": chance,
        "kind.target": kind,
        "kind.prediction": chances.argmax(axis=1),
        **{f"kind.probability.{name}": chances[:, name] for name in range(3)},
        "price.target": price,
        "price.prediction": (price + scores.normal(0, 5, SIZE)).astype("float32"),
        "visits.target": visits.astype(float),
        "visits.prediction": scores.gamma(2, 1, SIZE),
        **{f"tags.target.{name}": tags[:, name] for name in range(2)},
        **{f"tags.prediction.{name}": scores.integers(0, 2, SIZE) for name in range(2)},
        **{f"tags.probability.{name}": scores.random(SIZE) for name in range(2)},
    }
    lines = pandas.DataFrame(table)
    unlabeled = lines.assign(sample="u", **{f"{task}.target": None for task in ("sold", "kind", "price", "visits")})
    unlabeled[["tags.target.0", "tags.target.1"]] = None
    val = lines.assign(split="val").head(7)
    return pandas.concat([val, lines, unlabeled.head(1)]), lines


def write(folder, table, suffix="csv"):
    folder.mkdir(parents=True, exist_ok=True)
    if suffix == "csv":
        table.to_csv(folder / "predictions.csv", index=False)
    else:
        whole = dict.fromkeys(("kind.target", "tags.target.0", "tags.target.1"), "Int64")
        table.astype(whole).to_parquet(folder / "predictions.parquet", index=False)
    return folder


def expected_metrics(lines):
    yes, chance = lines["sold.target"] == "NA", lines["sold.probability.NA"]
    decided = lines["sold.prediction"] == "NA"
    kind, found = lines["kind.target"], lines["kind.prediction"]
    chances = lines[[f"kind.probability.{name}" for name in range(3)]]
    price, predicted = (lines[f"price.{what}"].astype(float) for what in ("target", "prediction"))
    tags, of_tags, tag_chances = (
        lines[[f"tags.{what}.{name}" for name in range(2)]] for what in ("target", "prediction", "probability")
    )
    return {
        "sold": {
            "accuracy": reference.accuracy_score(yes, decided),
            "auroc": reference.roc_auc_score(yes, chance),
            "average_precision": reference.average_precision_score(yes, chance),
            "f1": reference.f1_score(yes, decided),
            "balanced_accuracy": reference.balanced_accuracy_score(yes, decided),
            "mcc": reference.matthews_corrcoef(yes, decided),
            "log_loss": reference.log_loss(yes, chance),
        },
        "kind": {
            "accuracy": reference.accuracy_score(kind, found),
            "f1": reference.f1_score(kind, found, average="macro"),
            "log_loss": reference.log_loss(kind, chances),
            "mae": reference.mean_absolute_error(kind, found),
            "kappa": reference.cohen_kappa_score(kind, found, weights="quadratic"),
        },
        "price": {
            "rmse": reference.root_mean_squared_error(price, predicted),
            "mae": reference.mean_absolute_error(price, predicted),
            "r2": reference.r2_score(price, predicted),
            "spearman": price.corr(predicted, method="spearman"),
        },
        "visits": {
            "poisson_deviance": reference.mean_poisson_deviance(lines["visits.target"], lines["visits.prediction"])
        },
        "tags": {
            "auroc": reference.roc_auc_score(tags, tag_chances),
            "map": reference.average_precision_score(tags, tag_chances),
            "f1": reference.f1_score(tags, of_tags, average="macro"),
        },
    }


def test_metrics_from_a_file_are_those_of_scikit_learn_and_alike_from_csv_and_parquet(tmp_path):
    table, lines = draw()
    by_csv = read_predictions(write(tmp_path / "csv", table))
    by_parquet = read_predictions(write(tmp_path / "parquet", table, "parquet"))
    for task, metrics in expected_metrics(lines).items():
        assert by_csv[task].num_samples == SIZE
        assert by_csv[task].key == by_parquet[task].key
        once = numpy.ones((1, SIZE))
        for found in (by_csv, by_parquet):
            values = {name: found[task].formulas[name](once)[name][0] for name in metrics}
            assert values == pytest.approx(metrics)


def runs(root, name, **fields):
    """Return {seed: run} of two seeds with the predictions of `draw`, and records with the metrics of these."""
    found = {}
    for seed in range(2):
        table, lines = draw(seed=[seed, len(name)])
        metrics = expected_metrics(lines)
        directions = dict.fromkeys(("loss", "rmse", "mae", "log_loss", "poisson_deviance"), "min")
        directions = {metric: directions.get(metric, "max") for of_task in metrics.values() for metric in of_task}
        record = make_record(seed, weighting=name, tasks=tuple(metrics), test=metrics, directions=directions, **fields)
        folder = write(root / record.run_id, table)
        found[seed] = SimpleNamespace(record=record, folder=folder, table=table, lines=lines)
    return found


def test_interval_over_samples_is_that_of_the_mean_of_paired_differences(tmp_path):
    first, second = runs(tmp_path, "mgda"), runs(tmp_path, "equal")
    comparison = SampleComparison()
    found = comparison.compare(first, second, "kind", "accuracy", "max")
    right = [
        numpy.mean([each.lines["kind.target"] == each.lines["kind.prediction"] for each in method.values()], axis=0)
        for method in (first, second)
    ]
    gains = right[0] - right[1]
    error = gains.std() / math.sqrt(SIZE)
    assert (found.num_samples, found.num_repetitions) == (SIZE, 2)
    assert found.gain == pytest.approx(gains.mean())
    assert found.interval == pytest.approx((gains.mean() - 1.96 * error, gains.mean() + 1.96 * error), abs=0.25 * error)
    back = comparison.compare(second, first, "kind", "accuracy", "max")
    assert (back.gain, *back.interval) == pytest.approx((-found.gain, -found.interval.high, -found.interval.low))
    down = comparison.compare(first, second, "price", "rmse", "min")
    rmse = [numpy.mean([each.record.test["price"]["rmse"] for each in method.values()]) for method in (first, second)]
    assert down.gain == pytest.approx(rmse[1] - rmse[0])
    by_chance = comparison.compare(first, {1: second[0], 5: second[1]}, "kind", "accuracy", "max")
    assert by_chance.num_repetitions == 2  # one shared repetition makes no pairs, as in the test over repetitions
    alone = {5: first[0]}
    assert comparison.compare(alone, second, "kind", "accuracy", "max").num_samples == SIZE  # none is shared: all count


def test_a_difference_of_all_samples_is_found_and_one_of_a_method_to_itself_is_not(tmp_path):
    first = runs(tmp_path, "mgda")
    perfect = runs(tmp_path, "equal")
    for run in perfect.values():
        run.table["kind.prediction"] = run.table["kind.target"]
        write(run.folder, run.table)
        run.record.test["kind"]["accuracy"] = 1.0
    found = SampleComparison().compare(perfect, first, "kind", "accuracy", "max")
    assert found.interval.low > 0.3
    assert found.p < 0.005
    same = SampleComparison().compare(first, first, "kind", "accuracy", "max")
    assert (same.gain, same.interval, same.p) == (0, (0, 0), 1)


def test_why_there_is_nothing_over_test_samples(tmp_path):
    first, second = runs(tmp_path, "mgda"), runs(tmp_path, "equal")

    def reason(task="kind", metric="accuracy", **changed):
        first[0] = SimpleNamespace(**(vars(first[0]) | changed))
        found = SampleComparison().compare(first, second, task, metric, "max")
        assert isinstance(found, str)
        return found

    kept = first[0]
    assert "cannot be computed" in reason(metric="loss")
    second[1].record.test["kind"]["accuracy"] = 0.5
    assert "in the record" in reason()
    second[1].record.test["kind"]["accuracy"] = 0.0
    assert "legacy" in reason(record=make_record(protocol="legacy", tasks=("kind",)))
    assert "groups" in reason(record=make_record(bootstrap={"groups": True}, tasks=("kind",)))
    assert "kept no predictions" in reason(record=kept.record, folder=tmp_path)
    other, _ = draw(seed=[0, 4])
    other["sample"] += "x"
    first[0] = kept
    second = runs(tmp_path, "equal")
    assert "not tested on the same samples" in reason(folder=write(tmp_path / "others", other))
    (tmp_path / "others" / "predictions.csv").write_text("sample\n")
    assert "cannot be read" in reason()
    with_unknown_class = "sample,split,a.target,a.prediction,a.probability.0,a.probability.1\n1,test,0,9,.5,.5\n"
    (tmp_path / "others" / "predictions.csv").write_text(with_unknown_class)
    with pytest.raises(UnusableError, match="make no sense"):
        read_predictions(tmp_path / "others")
