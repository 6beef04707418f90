"""Baselines beside the result: what simple predictors get on the same test samples, by the same metrics.

The reference is scikit-learn, called here on the table itself, with its own metrics.
"""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from helpers import read_record, run_folders
from sklearn import metrics as reference
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from threadpoolctl import threadpool_info

from mtlrun.config.compose import compose
from mtlrun.setup.prepare import prepare
from mtlrun.tasks import Classification, Regression
from mtlrun.training.baselines import compute

KINDS = {"kind": "classification", "sick": "binary", "mass": "regression", "visits": "count", "grade": "ordinal",
         "tags": "multilabel"}  # fmt: skip
CSV = [
    "dataset=csv", "dataset.path=rows.csv", "dataset.split_column=part", "dataset.weight_column=w",
    "dataset.targets.tags=[red,blue]", "dataset.inputs=[a,b]", "dataset.scale=standard", "trainer.epochs=1",
    "backbone.hidden=[4]",
]  # fmt: skip
CSV[2:2] = [f"+task@tasks.{task}={kind}" for task, kind in KINDS.items()]
SIMPLE = [word for word in CSV if not any(name in word for name in ("tags", "visits", "grade", "mass", "kind"))]
COLUMNS = ["part", "a", "b", "w", "kind", "sick", "mass", "visits", "grade", "red", "blue"]
SPLITS = {"train": slice(0, 120), "val": slice(120, 160), "test": slice(160, 200)}


def draw(count=200):
    """Return the columns of a table; each target depends on the two inputs, and has some empty cells."""
    random = numpy.random.default_rng(1)
    a, b = random.standard_normal((2, count)).round(3)
    noise = random.standard_normal((6, count))
    columns = {
        "part": [next(name for name, rows in SPLITS.items() if n < rows.stop) for n in range(count)],
        "a": a, "b": b, "w": numpy.where(numpy.arange(count) % 6 == 0, 0, random.uniform(0.2, 4, count).round(3)),
        "kind": numpy.array(["x", "y", "z"])[numpy.digitize(a + noise[0], [-0.5, 0.7])],
        "sick": (b - a + noise[1] > 0.3).astype(int),
        "mass": (5000 + 900 * a - 300 * b + 400 * noise[2]).round(1),
        "visits": random.poisson(numpy.exp(0.6 * a)),
        "grade": numpy.digitize(a + b + noise[3], [-1, 0, 1]),
        "red": (a + noise[4] > 0).astype(int), "blue": (b + noise[5] > 1).astype(int),
    }  # fmt: skip
    columns = {name: numpy.array(values, dtype=object) for name, values in columns.items()}
    for shift, name in enumerate(COLUMNS[4:]):
        columns[name][shift :: 11 if name not in ("red", "blue") else 13] = ""
    return columns


def write(columns):
    rows = zip(*(columns[name] for name in COLUMNS), strict=True)
    Path("rows.csv").write_text("\n".join(",".join(map(str, row)) for row in [COLUMNS, *rows]) + "\n")


@pytest.fixture
def columns():
    columns = draw()
    write(columns)
    return columns


def train(mtlrun, *more, words=CSV):
    """Run a command line; return its record and what was printed."""
    before = {folder: (folder / "record.json").stat().st_mtime_ns for folder in run_folders()}
    code, out, err = mtlrun(*words, *more)
    assert code == 0, err
    written = [folder for folder in run_folders() if (folder / "record.json").stat().st_mtime_ns != before.get(folder)]
    (folder,) = written or before
    return read_record(folder), out


def count_fits(monkeypatch):
    """Return a list to which each fit adds its method."""
    fits = []
    plain = compute.fit

    def fit(method, *arguments):
        fits.append(method)
        return plain(method, *arguments)

    monkeypatch.setattr(compute, "fit", fit)
    return fits


# ------------------------------------------------------------------------------------------------------- the values


class Reference:
    """A table as scikit-learn takes it: standardized inputs, and the rows of each split that have a cell."""

    def __init__(self, columns):
        self.columns = columns
        inputs = numpy.stack([columns["a"], columns["b"]], axis=1).astype(float)
        of_train = inputs[SPLITS["train"]]
        self.inputs = (inputs - of_train.mean(axis=0)) / of_train.std(axis=0)

    def rows(self, column, split):
        rows = numpy.arange(200)[SPLITS[split]]
        there = self.columns[column][rows] != ""
        return rows[there & ((self.columns["w"][rows] > 0) | (split != "train"))]

    def labels(self, column, split):
        labels = self.columns[column][self.rows(column, split)]
        return labels.astype(str) if column == "kind" else labels.astype(float)

    def fit(self, column, model, change=lambda labels: labels, scale=1.0, **validation):
        rows = self.rows(column, "train")
        weights = self.columns["w"][rows].astype(float)
        if validation:
            val = self.rows(column, "val")
            validation = {"X_val": self.inputs[val], "y_val": change(self.labels(column, "val"))}
        labels = change(self.labels(column, "train"))
        return model.fit(self.inputs[rows], labels, sample_weight=weights / weights.mean() * scale, **validation)

    def test(self, column):
        rows = self.rows(column, "test")
        return self.inputs[rows], self.labels(column, "test")


def models(method, settings, family):
    """Return scikit-learn's model for a method, and further arguments of its fit."""
    if method == "constant":
        return (DummyRegressor() if family in ("number", "count") else DummyClassifier(strategy="prior")), {}
    if method == "linear":
        (penalty,) = settings["penalty"]
        made = {"number": Ridge(alpha=penalty), "count": PoissonRegressor(alpha=penalty, max_iter=1000)}
        return made.get(family, LogisticRegression(C=1 / penalty)), {}
    options = {"max_iter": 300, "early_stopping": True}
    if family == "class":
        return HistGradientBoostingClassifier(**options), {"val": True}
    loss = "poisson" if family == "count" else "squared_error"
    return HistGradientBoostingRegressor(loss=loss, **options), {"val": True}


@pytest.mark.parametrize("method", ["constant", "linear", "boosting"])
def test_baselines_are_scikit_learns(mtlrun, columns, method):
    record, _ = train(mtlrun, "runtime.quiet=true")
    found, settings = record["baselines"][method], record["baseline_settings"].get(method, {})
    table = Reference(columns)

    model, more = models(method, settings.get("kind"), "class")
    model = table.fit("kind", model, **more)
    inputs, labels = table.test("kind")
    assert found["kind"]["accuracy"] == pytest.approx(model.score(inputs, labels))
    expected = reference.log_loss(labels, model.predict_proba(inputs), labels=model.classes_)
    assert found["kind"]["loss"] == pytest.approx(expected, rel=1e-3)

    model, more = models(method, settings.get("sick"), "class")
    model = table.fit("sick", model, **more)
    inputs, labels = table.test("sick")
    probabilities = model.predict_proba(inputs)[:, 1]
    assert found["sick"]["auroc"] == pytest.approx(reference.roc_auc_score(labels, probabilities))
    assert found["sick"]["loss"] == pytest.approx(reference.log_loss(labels, probabilities), rel=1e-3)

    model, more = models(method, settings.get("mass"), "number")
    model = table.fit("mass", model, **more)
    inputs, labels = table.test("mass")
    expected = reference.root_mean_squared_error(labels, model.predict(inputs))
    assert found["mass"]["rmse"] == pytest.approx(expected, rel=1e-5)  # in the unit of the column

    model, more = models(method, settings.get("visits"), "count")
    if method == "linear":  # whose penalty is on a mean of losses of counts divided by their mean
        visits = table.labels("visits", "train")
        model.alpha *= visits.mean() / len(visits)
    model = table.fit("visits", model, **more)
    inputs, labels = table.test("visits")
    expected = reference.mean_absolute_error(labels, model.predict(inputs))
    assert found["visits"]["mae"] == pytest.approx(expected, rel=1e-3)

    levels = 0
    for threshold in range(3):
        of_threshold = {key: [values[threshold]] for key, values in settings.get("grade", {}).items()}
        model, more = models(method, of_threshold, "class")
        model = table.fit("grade", model, lambda labels, above=threshold: labels > above, **more)
        inputs, labels = table.test("grade")
        levels = levels + (model.predict_proba(inputs)[:, 1] > 0.5)
    assert found["grade"]["mae"] == pytest.approx(abs(levels - labels).mean())

    areas = []
    for index, column in enumerate(["red", "blue"]):
        of_label = {key: [values[index]] for key, values in settings.get("tags", {}).items()}
        model, more = models(method, of_label, "class")
        model = table.fit(column, model, **more)
        inputs, labels = table.test(column)
        areas.append(reference.roc_auc_score(labels, model.predict_proba(inputs)[:, 1]))
    assert found["tags"]["auroc"] == pytest.approx(numpy.mean(areas))


def test_a_constant_knows_the_training_split_and_the_zero_of_the_skills_knows_test(mtlrun, columns):
    record, _ = train(mtlrun, "runtime.quiet=true", "~dataset.weight_column")
    for task, metric in [("kind", "loss"), ("mass", "rmse")]:
        assert record["baselines"]["constant"][task][metric] > record["trivial"]["test"][task][metric]
    for column in COLUMNS[1:]:  # where both splits are the same, so are both constants
        columns[column] = numpy.tile(columns[column][SPLITS["test"]], 5)
    write(columns)
    record, _ = train(mtlrun, "runtime.quiet=true", "~dataset.weight_column", "runtime.study=same")
    for task in KINDS:
        expected = pytest.approx(record["trivial"]["test"][task], abs=1e-6, nan_ok=True)
        assert record["baselines"]["constant"][task] == expected


@pytest.mark.parametrize("criterion", ["frank_hall", "corn"])
def test_each_criterion_of_an_ordinal_task_has_baselines_that_know_the_order(mtlrun, columns, criterion):
    words = [word for word in CSV if not any(name in word for name in ("tags", "visits", "sick", "mass", "kind"))]
    record, _ = train(mtlrun, "runtime.quiet=true", f"tasks.grade.criterion={criterion}", words=words)
    assert record["baselines"]["linear"]["grade"]["mae"] < 0.7 * record["baselines"]["constant"]["grade"]["mae"]
    assert record["baselines"]["linear"]["grade"]["kappa"] > 0.5


@pytest.mark.parametrize("method", ["linear", "boosting"])
def test_categories_as_indices_have_the_baselines_of_categories(mtlrun, columns, method):
    """A column whose order says nothing: as a number it would be of no use."""
    columns["a"] = numpy.array(list("qaxzbvty"), dtype=object)[numpy.arange(200) % 8]
    columns["sick"] = (numpy.arange(200) % 8 % 2).astype(object)
    write(columns)
    indices = [word for word in SIMPLE if "hidden" not in word]
    record, _ = train(mtlrun, "runtime.quiet=true", "backbone=embedding_mlp", words=indices)
    if method == "linear":
        one_hot, _ = train(mtlrun, "runtime.quiet=true", words=SIMPLE)
        expected = pytest.approx(one_hot["baselines"]["linear"]["sick"]["loss"], rel=0.01)
        assert record["baselines"]["linear"]["sick"]["loss"] == expected
    assert record["baselines"][method]["sick"]["accuracy"] == 1


# ---------------------------------------------------------------------------------------------------------- the run


def test_the_result_shows_baselines_and_says_where_one_is_better_now_and_later(mtlrun, columns):
    record, out = train(mtlrun, "optimizer.lr=1e-9", words=SIMPLE)
    assert "baselines: fitted in " in out
    heading = next(line.split() for line in out.splitlines() if "constant" in line and "metric" in line)
    assert heading[-3:] == ["constant", "linear", "boosting"]
    assert heading[:3] == ["task", "metric", "test"]
    values = [record["baselines"][name]["sick"]["auroc"] for name in ("constant", "linear", "boosting")]
    (row,) = [line.split() for line in out.splitlines() if line.split()[:2] == ["auroc", "↑"]]
    assert row[-3:] == [f"{value:.4f}" for value in values]
    better = (
        f"sick auroc: constant 0.5000, linear {values[1]:.4f}, boosting {values[2]:.4f}, this run {row[2]}: a linear "
        "model is better"
    )
    assert better in out
    assert "constant, linear, boosting: simple predictors fitted to the training split, on test" in out
    assert record["seconds"]["baselines"] > 0
    _, again = train(mtlrun, "optimizer.lr=1e-9", words=SIMPLE)
    assert "is finished already" in again
    assert better in again


def test_a_run_on_the_same_data_reads_what_another_has_fitted(mtlrun, columns, monkeypatch):
    fits = count_fits(monkeypatch)
    first, _ = train(mtlrun, "runtime.quiet=true", words=SIMPLE)
    assert fits == ["linear", "boosting"]
    for other in ("tasks.sick.lr=0.5", "seed=1", "backbone.hidden=[3]", "trainer.epochs=2"):
        record, out = train(mtlrun, other, words=SIMPLE)
        assert "baselines: read from outputs/.baselines" in out
        assert record["baselines"] == first["baselines"]
        assert record["baseline_settings"] == first["baseline_settings"]
    assert fits == ["linear", "boosting"]


def test_what_baselines_depend_on_makes_them_anew(mtlrun, columns, monkeypatch):
    seen = [train(mtlrun, "runtime.quiet=true", words=SIMPLE)[0]["baselines"]["linear"]]
    fits = count_fits(monkeypatch)

    def expect_new(*more):
        record, _ = train(mtlrun, "runtime.quiet=true", f"runtime.study=s{len(seen)}", *more, words=SIMPLE)
        assert fits == ["linear", "boosting"]
        assert record["baselines"]["linear"] not in seen
        seen.append(record["baselines"]["linear"])
        fits.clear()

    expect_new("tasks.sick.class_weights=[1,9]")
    expect_new("trainer.limit_batches=1", "trainer.eval_batch_size=20")
    changes = {"a label of test": ("sick", 198, 1 - columns["sick"][198]), "an input": ("a", 3, 7),
               "a weight": ("w", 2, 90), "the division": ("part", 130, "train")}  # fmt: skip
    for column, row, value in changes.values():
        columns[column][row] = value
        write(columns)
        expect_new()


@pytest.mark.parametrize(
    "content",
    ["", "{", "[1]", pytest.param("[" * 100_000, id="deep"), '{"linear": 3}', '{"linear": {"metrics": {"loss": 1}}}'],
)
def test_a_damaged_file_is_computed_again(mtlrun, columns, monkeypatch, content):
    first, _ = train(mtlrun, "runtime.quiet=true", words=SIMPLE)
    (path,) = Path("outputs/.baselines").glob("*.json")
    whole = path.read_text()
    path.write_text(content)
    fits = count_fits(monkeypatch)
    record, _ = train(mtlrun, "runtime.quiet=true", "seed=1", words=SIMPLE)
    assert fits == ["linear", "boosting"]
    assert record["baselines"] == first["baselines"]
    assert path.read_text() == whole


def test_auto_leaves_out_what_takes_long_and_true_adds_it_to_the_finished_run(mtlrun, columns, monkeypatch):
    monkeypatch.setattr(compute, "MOST_SECONDS", 0.05)  # boosting is estimated to take a little longer
    record, out = train(mtlrun, words=SIMPLE)
    assert list(record["baselines"]) == ["constant", "linear"]
    (note,) = [note for note in record["notes"] if "baseline" in note]
    assert note.startswith("no baseline boosting of sick: it would take about ")
    assert note.endswith(" s; trainer.baselines=true has it")
    assert note in out
    # Which asks for no other run.
    record, out = train(mtlrun, "trainer.baselines=true", words=SIMPLE)
    assert "is finished already" in out
    assert list(record["baselines"]) == ["constant", "linear", "boosting"]
    assert not [note for note in record["notes"] if "baseline" in note]
    assert f"boosting {record['baselines']['boosting']['sick']['auroc']:.4f}" in out
    fits = count_fits(monkeypatch)
    train(mtlrun, "trainer.baselines=true", words=SIMPLE)
    assert fits == []


def test_false_and_smoke_compute_none(mtlrun, columns):
    for word in ("trainer.baselines=false", "trainer=smoke"):
        record, out = train(mtlrun, word, words=SIMPLE)
        assert record["baselines"] == {}
        assert "baseline" not in out.replace("baselines=False", "")
    assert not Path("outputs/.baselines").exists()


def test_images_have_a_constant_alone(quick):
    record = read_record(quick())
    assert record["seconds"]["baselines"] < 1
    assert list(record["baselines"]) == ["constant"]
    assert set(record["baselines"]["constant"]) == {"left", "right"}
    assert not Path("outputs/.baselines").exists()


def test_a_stop_during_baselines_stops_at_once_and_the_same_command_completes_the_run(mtlrun, columns, monkeypatch):
    plain = compute.fit

    def interrupted(method, *arguments):
        if method == "boosting":
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(10**6):  # a fit that goes on, as far as it knows
                pass
        return plain(method, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(compute, "fit", interrupted)
        code, _, err = mtlrun(*SIMPLE)
    assert code == 143, err
    (folder,) = run_folders()
    record = read_record(folder)
    assert record["status"] == "interrupted"
    fits = count_fits(monkeypatch)
    record, _ = train(mtlrun, "runtime.quiet=true", words=SIMPLE)
    assert fits == ["boosting"]  # what was fitted is known
    assert record["status"] == "completed"
    whole, _ = train(mtlrun, "runtime.quiet=true", "runtime.study=whole", words=SIMPLE)
    assert (whole["test"], whole["steps"]) == (record["test"], record["steps"])


def test_a_run_does_not_fail_by_a_baseline(mtlrun, columns, monkeypatch):
    def fail(method, *_):
        raise numpy.linalg.LinAlgError("singular")

    monkeypatch.setattr(compute, "fit", fail)
    record, _ = train(mtlrun, words=SIMPLE)
    assert record["status"] == "completed"
    assert list(record["baselines"]) == ["constant"]
    assert "no baseline linear of sick: LinAlgError: singular" in record["notes"]


def test_a_run_does_not_fail_by_what_goes_wrong_before_a_fit(mtlrun, columns, monkeypatch):
    def fail(*_):
        raise TypeError("of a kind of one's own")

    monkeypatch.setattr(compute, "constant_metrics", fail)
    record, out = train(mtlrun, words=SIMPLE)
    assert record["status"] == "completed"
    assert record["baselines"] == {}
    assert "no baselines: TypeError: of a kind" in out


@pytest.mark.parametrize("num_threads", [None, 2])
def test_scikit_learn_takes_one_thread_unless_more_are_given(columns, monkeypatch, num_threads):
    config = compose(SIMPLE)
    parts = prepare(config)
    parts = replace(parts, runtime=replace(parts.runtime, num_threads=num_threads))
    seen = []

    def fit(*arguments):
        seen.append({(info["user_api"], info["num_threads"]) for info in threadpool_info()})
        return plain(*arguments)

    plain = compute.fit
    monkeypatch.setattr(compute, "fit", fit)
    before = threadpool_info()
    compute.compute_baselines(parts, config["tasks"], True, Path("cache"))
    assert seen == [{("openmp", num_threads or 1), ("blas", 1)}] * 2
    assert threadpool_info() == before


def test_under_the_legacy_protocol_there_is_a_constant_alone(columns):
    """Whose validation split is the test split: nothing may be chosen by it."""
    config = compose(SIMPLE)
    parts = prepare(config)
    parts.dataset.protocol = "legacy"
    assert list(compute.compute_baselines(parts, config["tasks"], True, Path("cache")).metrics) == ["constant"]


class Quantiles(Regression):
    """A task whose head predicts other numbers than its kind's."""

    @property
    def output_size(self):
        return 3

    def loss(self, prediction, target):
        return super().loss(prediction[:, :1], target)

    def metric_inputs(self, prediction, target):
        return super().metric_inputs(prediction[:, :1], target)


def test_a_kind_that_predicts_other_numbers_has_a_constant_alone(columns):
    config = compose([*CSV, "trainer.baselines=true"])
    parts = prepare(config)
    parts.tasks["mass"] = Quantiles(standardize=True)
    parts.tasks["mass"].fit([parts.loaders["train"].split.targets["mass"]])
    found = compute.compute_baselines(parts, config["tasks"], True, Path("cache"))
    assert set(found.metrics["constant"]) == set(KINDS)
    assert set(found.metrics["linear"]) == set(found.metrics["boosting"]) == set(KINDS) - {"mass"}
    assert found.notes == [
        "task mass has no baseline but a constant, since Quantiles has 1 observations of a sample, and its head "
        "predicts 3 numbers"
    ]


def test_a_task_without_labels_has_none(columns, mtlrun):
    columns["sick"][SPLITS["test"]] = ""
    write(columns)
    record, _ = train(mtlrun, "runtime.quiet=true")
    assert "sick" not in record["baselines"]["constant"]
    assert set(record["baselines"]["linear"]) == set(KINDS) - {"sick"}


def test_baselines_leave_the_tasks_and_the_random_numbers_alone(columns):
    config = compose([*CSV, "tasks.kind.class_weights=balanced"])
    parts = prepare(config)
    assert isinstance(parts.tasks["kind"], Classification)
    before = {
        name: {key: value.clone() for key, value in task.state_dict().items()} for name, task in parts.tasks.items()
    }
    torch.manual_seed(3)
    numpy.random.seed(3)
    expected = torch.rand(3), numpy.random.random(3)
    torch.manual_seed(3)
    numpy.random.seed(3)
    compute.compute_baselines(parts, config["tasks"], True, Path("cache"))
    assert torch.equal(torch.rand(3), expected[0])
    assert (numpy.random.random(3) == expected[1]).all()
    for name, task in parts.tasks.items():
        assert all(torch.equal(value, before[name][key]) for key, value in task.state_dict().items())


def test_two_processes_that_write_at_once_leave_a_whole_file(tmp_path):
    from mtlrun.training.baselines.cache import Cache

    cache = Cache(tmp_path / "folder", "key")
    results = {"linear": {"metrics": {"loss": 0.5, "r2": float("nan")}, "settings": {"penalty": [1.0]}}}
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / ".key.json.tmp").write_text("of a process that was killed")
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            for _ in range(200):
                cache.write(results)
            os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    path = tmp_path / "folder" / "key.json"
    assert sorted(path.parent.iterdir()) == [path.parent / ".lock", path]
    assert json.loads(path.read_text())["linear"]["settings"] == {"penalty": [1.0]}
    assert cache.read(["loss", "r2"])["linear"]["metrics"]["loss"] == 0.5
    assert cache.read(["loss"]) == {}  # the kind of task had other metrics then


# ------------------------------------------------------------------------------------------------------ comparisons


def rows_of(out):
    """Return {name of a baseline: the cells of its row in a table of `compare` that are not empty}."""
    lines = [line.split() for line in out.splitlines()]
    return {line[1]: [cell for cell in line[2:] if cell != "-"] for line in lines if line[:1] == ["baseline"]}


def test_compare_has_a_row_for_each_baseline_of_runs_on_the_same_splits(mtlrun, columns):
    for other in ("seed=0", "seed=1", "optimizer.lr=0.1"):
        record, _ = train(mtlrun, "runtime.quiet=true", other, words=SIMPLE)
    _, out, _ = mtlrun("compare", "outputs")
    expected = {name: [f"{of_tasks['sick']['auroc']:.4f}"] for name, of_tasks in record["baselines"].items()}
    assert rows_of(out) == expected
    assert list(expected) == ["constant", "linear", "boosting"]
    # On other test samples, there is no one number.
    train(mtlrun, "runtime.quiet=true", "trainer.limit_batches=1", "trainer.eval_batch_size=20", words=SIMPLE)
    _, out, _ = mtlrun("compare", "outputs")
    assert "linear" not in rows_of(out)
    assert rows_of(out)["constant"] == ["0.5000"]
    _, out, _ = mtlrun("compare", *(str(folder) for folder in run_folders() if read_record(folder)["config"]["seed"]))
    assert rows_of(out) == expected


def test_compare_averages_the_baselines_of_folds(mtlrun, columns):
    words = [word for word in SIMPLE if "split_column" not in word]
    folds = ["dataset.num_folds=3", "dataset.stratify=sick"]
    found = [train(mtlrun, "runtime.quiet=true", *folds, f"dataset.fold={n}", words=words)[0] for n in range(3)]
    values = [record["baselines"]["linear"]["sick"]["auroc"] for record in found]
    _, out, _ = mtlrun("compare", "outputs")
    assert rows_of(out)["linear"] == [f"{numpy.mean(values):.4f}", "±", f"{numpy.std(values, ddof=1):.4f}"]
