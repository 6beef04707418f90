"""`mtlrun affinity` on runs of a small table, by the command line."""

import csv
import io
import json
import os
import shlex
from itertools import combinations, product
from pathlib import Path
from xml.etree import ElementTree

import numpy
import pytest
import torch
from helpers import read_lines, read_record, run_folders

from mtlrun.cli.main import dispatch
from mtlrun.comparison.affinity.associations import correlation_ratio, cramers_v, spearman
from mtlrun.comparison.affinity.features import linear_cka
from mtlrun.runs.restore import restore

TASKS = ["price", "size", "kind", "sold"]
TABLE = ["dataset=csv", "dataset.path=houses.csv", "dataset.predict=[price,size,kind,sold]", "backbone=mlp",
         "backbone.hidden=[8]", "trainer.epochs=4", "trainer.batch_size=32", "trainer.log_every=2",
         "trainer.baselines=false", "runtime.quiet=true", "runtime.predictions=none"]  # fmt: skip
RUNS = [
    ["model=single", "seed=0"],
    ["model=single", "seed=1"],
    ["weighting=pcgrad", "trainer.log_affinity_every=2"],
    ["model=soft"],
    ["model=cross_stitch"],
]


@pytest.fixture(scope="module")
def houses(tmp_path_factory):
    """Train the runs in a folder, and return it."""
    folder = tmp_path_factory.mktemp("houses")
    generator = numpy.random.default_rng(0)
    x, y, z = generator.normal(size=(3, 150))
    columns = {
        "x": x,
        "y": y,
        "z": z,
        "price": x + y,
        "size": x + y + 0.3 * generator.normal(size=150),
        "kind": numpy.where(z > 0, "house", numpy.where(z > -1, "flat", "hut")),
        "sold": numpy.where(z + 0.5 * generator.normal(size=150) > 0, "yes", "no"),
    }
    with open(folder / "houses.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for index, row in enumerate(zip(*columns.values(), strict=True)):
            writer.writerow(["" if name == "size" and index % 3 == 0 else cell
                             for name, cell in zip(columns, row, strict=True)])  # fmt: skip
    before = Path.cwd()
    os.chdir(folder)
    try:
        for words in RUNS:
            assert dispatch([*TABLE, *words]) == 0
    finally:
        os.chdir(before)
    return folder


@pytest.fixture
def affinity(houses, monkeypatch, mtlrun):
    """Return a function that runs `mtlrun affinity outputs ...`, and returns what it printed."""
    monkeypatch.chdir(houses)

    def run(*words, code=0):
        found, out, err = mtlrun("affinity", "outputs", *words)
        assert found == code, err
        return out if code == 0 else err

    return run


def matrices(affinity, *words):
    """Return {measure: {(task, other): value}} of the JSON."""
    (content,) = json.loads(affinity(*words, "--format", "json"))
    return {
        matrix["measure"]: {
            (a, b): value
            for a, row in zip(matrix["tasks"], matrix["values"], strict=True)
            for b, value in zip(matrix["tasks"], row, strict=True)
        }
        for matrix in content["matrices"]
    }


def folder_of(*words):
    (folder,) = [path for path in run_folders("outputs/runs") if set(words) <= set(read_record(path)["overrides"])]
    return folder


def test_labels_are_those_of_the_training_split(affinity):
    found = matrices(affinity, "--by", "data")
    assert list(found) == ["labels", "overlap"]
    restored = restore(folder_of("model=soft"), device="cpu")
    targets = {task: target.double().numpy() for task, target in restored.parts.loaders["train"].split.targets.items()}
    price, size, kind, sold = (targets[task].reshape(-1) for task in TASKS)
    has_size = ~numpy.isnan(size)
    assert found["labels"]["price", "size"] == pytest.approx(abs(spearman(price[has_size], size[has_size])))
    assert found["labels"]["kind", "price"] == pytest.approx(correlation_ratio(kind, price))
    assert found["labels"]["kind", "sold"] == found["labels"]["sold", "kind"] == pytest.approx(cramers_v(kind, sold))
    assert found["labels"]["price", "size"] > 0.9 > found["labels"]["price", "kind"]
    assert found["overlap"]["price", "size"] == has_size.mean()
    assert found["overlap"]["price", "kind"] == 1


def test_cka_is_that_of_the_features_of_the_selected_networks(affinity):
    found = matrices(affinity, "--by", "cka")["cka"]
    values = []
    for seed in (0, 1):
        restored = restore(folder_of("model=single", f"seed={seed}"), device="cpu")
        inputs = torch.cat([inputs for inputs, *_ in restored.parts.loaders["val"].batches()])
        with torch.no_grad():
            features = {task: restored.model.networks[task][0](inputs).numpy() for task in TASKS}
        values.append({pair: linear_cka(features[pair[0]], features[pair[1]]) for pair in combinations(TASKS, 2)})
    for pair in combinations(TASKS, 2):
        assert found[pair] == found[pair[::-1]] == pytest.approx((values[0][pair] + values[1][pair]) / 2, abs=1e-6)


def test_distances_and_mixing_weights_are_those_of_best_pt(affinity):
    found = matrices(affinity, "--by", "distance,mixing")
    weights = torch.load(folder_of("model=cross_stitch") / "checkpoints" / "best.pt")["model_states"][0]
    alphas = [value.abs().mean(dim=-1) for name, value in weights.items() if name.endswith("alpha")]
    mixing = torch.stack([alpha / alpha.sum(dim=1, keepdim=True) for alpha in alphas]).mean(dim=0)
    for a, b in product(range(4), repeat=2):
        assert found["mixing"][TASKS[b], TASKS[a]] == pytest.approx(float(mixing[a, b]))
    assert found["mixing"]["price", "price"] > 0.5

    (content,) = json.loads(affinity("--by", "distance", "--format", "json"))
    by_model = {matrix["config"]: matrix["values"] for matrix in content["matrices"]}
    assert set(by_model) == {"single", "soft"}
    state = torch.load(folder_of("model=soft") / "checkpoints" / "best.pt")["model_states"][0]
    price, kind = (
        torch.cat([value.reshape(-1) for name, value in state.items() if name.startswith(f"backbones.{task}.")])
        for task in ("price", "kind")
    )
    expected = (price - kind).norm() / ((price.norm() ** 2 + kind.norm() ** 2) / 2).sqrt()
    assert by_model["soft"][0][2] == pytest.approx(float(expected), rel=1e-5)


def test_cosines_and_lookahead_affinities_are_means_of_the_curves(affinity):
    (content,) = json.loads(affinity("--by", "training", "--format", "json"))
    cosine, lookahead = content["matrices"]
    lines = read_lines(folder_of("weighting=pcgrad"), "train")
    assert cosine["values"][1][0] == cosine["values"][0][1]
    assert cosine["values"][0][1] == pytest.approx(numpy.mean([line["grad_cosine/price_size"] for line in lines]))
    for a, b in product(range(4), repeat=2):
        tag = f"affinity/{TASKS[a]}/{TASKS[b]}"
        assert lookahead["values"][a][b] == pytest.approx(numpy.mean([line[tag] for line in lines]))
    total = read_record(folder_of("weighting=pcgrad"))["total_steps"]
    last = [line["affinity/sold/kind"] for line in lines if line["step"] > 2 * total / 3]
    assert lookahead["parts"]["last third"][3][2] == pytest.approx(numpy.mean(last))


def test_pairs_are_trained_by_the_printed_commands_and_their_gains_found(affinity, houses, mtlrun):
    err = affinity("--by", "performance", code=2)
    assert "gain: no run has two tasks" in err
    lines = affinity("--pairs", "pairs").splitlines()
    assert lines[0] == f"# as {folder_of('weighting=pcgrad').name} was trained:"
    commands = [shlex.split(line) for line in lines[1:]]
    assert len(commands) == 1 + 6
    for command in (commands[0], commands[1], commands[6]):
        assert command[0] == "mtlrun"
        assert mtlrun(*command[1:], "runtime.quiet=true")[0] == 0
    pairs = [folder for folder in run_folders("outputs/pairs") if len(read_record(folder)["test"]) == 2]
    # Labels that are not predicted have not become inputs.
    assert {tuple(read_record(folder)["learned"]["inputs"]["columns"]) for folder in pairs} == {("x", "y", "z")}

    found = matrices(affinity, "--by", "gain")["gain"]
    (single,) = [
        read_record(folder) for folder in run_folders("outputs/pairs") if len(read_record(folder)["test"]) == 4
    ]
    assert single["config"]["names"]["model"] == "single"
    for folder in pairs:
        record = read_record(folder)
        one, other = record["test"]
        metric = record["main_metrics"][one]
        value, alone = record["test"][one][metric], single["test"][one][metric]
        sign = 1 if record["directions"][one][metric] == "max" else -1
        assert found[other, one] == pytest.approx(sign * 100 * (value - alone) / abs(alone))
    assert found["price", "kind"] is None
    assert "no groups are suggested: groups need the affinity of every pair" in affinity(
        "--by", "gain", "--networks", "2"
    )


def test_groups_and_the_commands_that_train_them(affinity, mtlrun):
    out = affinity("--by", "labels", "--networks", "2", "--study", "groups")
    assert "groups by association of labels: {price, size} {kind, sold}, mean affinity 0." in out
    commands = [shlex.split(line)[1:] for line in out.splitlines() if line.startswith("mtlrun")]
    assert len(commands) == 2
    for command, tasks, left_out in zip(
        commands, ("price,size", "kind,sold"), ("kind,sold", "price,size"), strict=True
    ):
        assert {f"dataset.predict=[{tasks}]", f"dataset.exclude=[{left_out}]", "runtime.study=groups", "seed=0"} <= set(
            command
        )
        assert mtlrun(*command, "--cfg", "job")[0] == 0
    err = affinity("--networks", "2", "--study", "groups", code=2)
    assert "choose one measure with --by" in err


def test_screen_fits_80_columns_and_files_hold_the_same(affinity, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    files = [tmp_path / f"found{suffix}" for suffix in (".txt", ".csv", ".json", ".svg", ".png")]
    words = [word for file in files for word in ("--out", str(file))]
    out = affinity("--by", "training,labels", *words)
    assert out.splitlines() == [f"written to {file}" for file in files]
    text = files[0].read_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "lookahead: lookahead affinity" in text
    rows = list(csv.DictReader(io.StringIO(files[1].read_text())))
    (content,) = json.loads(files[2].read_text())
    values = {(row["measure"], row["task"], row["other"]): float(row["value"]) for row in rows if not row["part"]}
    for matrix in content["matrices"]:
        for a, b in combinations(range(4), 2):
            key = (matrix["measure"], matrix["tasks"][a], matrix["tasks"][b])
            assert values[key] == matrix["values"][a][b]
    svg = "".join(ElementTree.parse(files[3]).getroot().itertext())
    assert all(words in svg for words in ("association of labels", "first third", *TASKS))
    assert files[4].read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_is_refused_in_a_line(affinity, mtlrun):
    for words, problem in [
        (["--by", "labls"], "--by: labls: no such measure; did you mean 'labels'?"),
        (["--networks", "0"], "--networks: must be a whole number >= 1, found 0"),
        (["--study", "x"], "--study: give the number of networks, such as --networks 2"),
        (["--out", "x.gif"], "--out x.gif: its suffix names no format"),
        (["--out", "nowhere/x.png"], "--out nowhere/x.png: there is no folder nowhere"),
        (["--pairs", "x", "--out", "x.csv"], "--pairs only prints commands; use it without --out"),
        (["--pairs", "x", "--by", "cka", "--networks", "2"], "use it without --networks and --by"),
        (["--format", "json", "--out", "x.csv"], "--format json: with --out the suffix of the file decides"),
        (["--networks", "2", "--out", "x.csv"], "--networks: no place for groups in csv; .txt and .json have"),
        (["--networks", "2", "--format", "csv"], "--networks: no place for groups in csv; .txt and .json have"),
        (["--networks", "2", "--study", "x", "--format", "csv"], "--study prints commands, which are no csv"),
        (["--nonsense"], "unrecognized arguments: --nonsense; see: mtlrun affinity --help"),
    ]:
        err = affinity(*words, code=2)
        assert problem in err
        assert len(err.splitlines()) == 1, err
    assert mtlrun("affinity", "nowhere")[0] == 2
    assert mtlrun("affinity")[1].startswith("usage: mtlrun affinity")


def test_what_cannot_be_found_is_named_with_the_reason(affinity, houses):
    table = houses / "houses.csv"
    content = table.read_bytes()
    table.write_bytes(content.replace(b"price", b"cost"))
    try:
        out = affinity()
        err = affinity("--by", "model", code=2)
    finally:
        table.write_bytes(content)
    assert "cosine: cosine of task gradients" in out
    assert "labels: the data cannot be read: " in out
    assert "price" in out.partition("labels: the data cannot be read: ")[2].splitlines()[0]
    for measure, runs in (("distance", "3 runs"), ("mixing", "1 run"), ("cka", "2 runs")):
        assert f"{measure}: {runs} cannot be restored: " in out
        assert f"{measure}: {runs} cannot be restored: " in err
    assert len(err.splitlines()) == 1

    best = folder_of("model=single", "seed=1") / "checkpoints" / "best.pt"
    best.rename(best.with_suffix(".away"))
    try:
        out = affinity("--by", "cka")
    finally:
        best.with_suffix(".away").rename(best)
    assert f"1 run cannot be restored: {best} is gone" in out
    assert "mean over 2 runs" not in out
