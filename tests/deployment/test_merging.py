"""`mtlrun merge`: formulas against NumPy, a model that is a run's, and what is refused."""

import json

import numpy
import pytest
import torch
from helpers import read_record
from trained_houses import find, train

from mtlrun.deployment.combined.members import find_members
from mtlrun.deployment.combined.merged_models import merge, recompute_statistics
from mtlrun.deployment.combined.merging import apply, average, task_vector_sum, ties
from mtlrun.runs.restore import restore
from mtlrun.training.evaluation import evaluate

SHAPES = {"weight": (3, 4), "bias": (3,), "scale": ()}
PRICE = ["dataset.predict=[price]", "dataset.exclude=[kind,sold]"]
REST = ["dataset.predict=[kind,sold]", "dataset.exclude=[price]"]


def draw(seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}


def as_vector(weights):
    return numpy.concatenate([weights[name].numpy().ravel() for name in SHAPES])


def ties_by_numpy(networks, initial, kept):
    """Render the paper's algorithm entry by entry."""
    changes = [as_vector(weights) - as_vector(initial) for weights in networks]
    size = len(changes[0])
    for change in changes:
        order = sorted(range(size), key=lambda entry: -abs(change[entry]))
        change[order[round(kept * size) :]] = 0
    merged = numpy.zeros(size)
    for entry in range(size):
        values = [change[entry] for change in changes]
        sign = numpy.sign(sum(values))
        agreeing = [value for value in values if value and numpy.sign(value) == sign]
        merged[entry] = numpy.mean(agreeing) if agreeing else 0
    return merged


def test_formulas_are_those_of_a_rendering_in_numpy():
    initial, networks = draw(0), [draw(seed) for seed in (1, 2, 3)]
    assert as_vector(average(networks)) == pytest.approx(numpy.mean([as_vector(each) for each in networks], axis=0))
    changes = sum(as_vector(each) - as_vector(initial) for each in networks)
    found = apply(initial, task_vector_sum(networks, initial), 0.3)
    assert as_vector(found) == pytest.approx(as_vector(initial) + 0.3 * changes)
    for kept in (0.2, 0.5, 1.0):
        expected = ties_by_numpy(networks, initial, kept)
        assert (expected == 0).any() or kept == 1.0
        assert as_vector(ties(networks, initial, kept)) == pytest.approx(expected), kept


def test_a_network_with_itself_is_itself():
    initial, network = draw(0), draw(1)
    for found in (
        average([network] * 3),
        apply(initial, task_vector_sum([network] * 3, initial), 1 / 3),
        apply(initial, ties([network] * 3, initial, kept=1.0), 1.0),
    ):
        assert as_vector(found) == pytest.approx(as_vector(network))


@pytest.fixture(scope="module")
def apart(houses):
    """Return the folder of runs, with runs of some tasks each in another study, with BatchNorm."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(houses)
        for words in ([*PRICE, "seed=0"], [*REST, "seed=0"], [*REST, "seed=1"]):
            train(*words, "backbone.norm=batch", "runtime.study=apart")
    return houses


@pytest.fixture
def runs(apart, monkeypatch):
    """Return the runs by name, in their folder."""
    monkeypatch.chdir(apart)
    members = find_members([apart / "outputs" / "apart"])
    return {f"{','.join(m.record.main_metrics)} {m.record.config['seed']}": m for m in members}


def test_one_run_is_itself(in_houses, tmp_path):
    (member,) = find_members([find("hard-*-s1-*")])
    record = merge([member], "task_arithmetic", tmp_path / "one")
    for task, metrics in member.record.test.items():
        assert record.test[task] == pytest.approx(metrics, rel=1e-6)


def test_the_average_of_trunks_is_a_run_of_hard_sharing_like_any_other(runs, tmp_path, mtlrun):
    price, rest = runs["price 0"], runs["kind,sold 0"]
    words = ["merge", str(price.folder), str(rest.folder), "--out", str(tmp_path)]
    code, out, err = mtlrun(*words)
    assert code == 0, err
    assert "merge by average" in out
    folder = find("merge-average-2runs-*", tmp_path)
    written = (folder / "record.json").stat().st_mtime_ns
    assert mtlrun(*words)[1] == out
    assert (folder / "record.json").stat().st_mtime_ns == written
    record, restored = read_record(folder), restore(folder, device="cpu")
    parts = restored.parts
    assert list(parts.tasks) == ["price", "kind", "sold"]
    assert record["config"]["names"]["model"] == "hard"
    found = evaluate(restored.model, parts.tasks, parts.loaders["test"], parts.device)
    for task, metrics in record["test"].items():
        assert found[task] == pytest.approx(metrics, rel=1e-6, nan_ok=True), task
    code, out, err = mtlrun("evaluate", str(folder))
    assert code == 0, err
    assert "price" in out
    new = tmp_path / "new.csv"
    assert mtlrun("predict", str(folder), "--input", "houses.csv", "--out", str(new))[0] == 0
    assert new.read_text().count("\n") == 301
    ours = restored.model.state_dict()
    states = [restore(each.folder, device="cpu").model.state_dict() for each in (price, rest)]
    for name, value in ours.items():
        if name.startswith("heads"):
            (owner,) = [state for state in states if name in state]
            assert torch.equal(value, owner[name])
        elif "running" not in name and "num_batches" not in name:
            assert torch.allclose(value, (states[0][name] + states[1][name]) / 2, atol=1e-7)
    recompute_statistics(parts)
    for name, value in restored.model.state_dict().items():
        assert torch.allclose(value.float(), ours[name].float(), atol=1e-6), name


def test_statistics_of_batchnorm_are_means_over_the_batches_of_training(runs, tmp_path):
    merge([runs["price 0"], runs["kind,sold 0"]], "average", tmp_path / "merged")
    restored = restore(tmp_path / "merged", device="cpu")
    trunk = restored.model.trunk
    (name, layer), *_ = [pair for pair in trunk.named_modules() if isinstance(pair[1], torch.nn.BatchNorm1d)]
    seen = []
    layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for batch in restored.parts.loaders["train"].batches():
        trunk(batch[0])
    means = torch.stack([inputs.mean(dim=0) for inputs in seen]).mean(dim=0)
    variances = torch.stack([inputs.var(dim=0) for inputs in seen]).mean(dim=0)
    assert torch.allclose(layer.running_mean, means, atol=1e-5), name
    assert torch.allclose(layer.running_var, variances, atol=1e-5)
    assert layer.momentum is not None


def test_lambda_is_chosen_on_validation_and_said(runs, tmp_path):
    members = [runs["price 0"], runs["kind,sold 0"]]
    for method in ("task_arithmetic", "ties"):
        record = merge(members, method, tmp_path / method)
        settings = record.made_from["settings"]
        assert settings["skills"][str(settings["lambda"])] == max(settings["skills"].values())
        assert any(f"lambda {settings['lambda']:.3g} has the best mean skill of" in note for note in record.notes)
    half = merge(members, "average", tmp_path / "half")
    assert "0.5" in read_record(tmp_path / "task_arithmetic")["made_from"]["settings"]["skills"]
    assert half.val.keys() == record.val.keys()


def test_all_networks_of_one_single_task_run_are_merged_and_compared(in_houses, mtlrun, tmp_path):
    single = str(find("single-*"))
    code, _, err = mtlrun("merge", single, "--out", str(tmp_path), "--method", "ties", "--quiet")
    assert code == 0, err
    record = read_record(find("merge-ties-1run-*", tmp_path))
    network = read_record(single)["parameters"]
    assert sum(record["parameters"].values()) < sum(network.values())
    _, out, _ = mtlrun("compare", "outputs/houses", str(tmp_path), "--format", "json")
    rows = {row["name"]: row for row in json.loads(out)["tables"][0]["rows"]}
    assert rows["hard, merge by ties"]["kind"] == "made"
    assert "delta_m" in rows["hard, merge by ties"]["cells"]


def test_what_cannot_be_merged_is_refused_before_anything_is_written(runs, tmp_path, mtlrun):
    def refused(*words):
        code, out, err = mtlrun("merge", *map(str, words), "--out", str(tmp_path / "made"))
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert not (tmp_path / "made").exists()
        return err

    price, rest, other = (runs[name].folder for name in ("price 0", "kind,sold 0", "kind,sold 1"))
    assert "did not start from the same initial weights" in refused(price, other)
    assert "task kind is predicted by" in refused(rest, other)
    for words, message in (
        (["backbone.hidden=[7]"], "have trunks of other shapes"),
        (["dataset.split_seed=3"], "the runs differ in dataset.split_seed"),
        (["model=cross_stitch"], "has no single trunk for its tasks"),
    ):
        train(*PRICE, "backbone.norm=batch", *words, f"runtime.root={tmp_path / words[0]}")
        found = find("*", tmp_path / words[0])
        mtlrun("--version")  # what is printed until here
        assert message in refused(found, rest)
