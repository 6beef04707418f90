"""`mtlrun ensemble`: the metrics of several runs together, by the command line."""

import csv
import json
import shutil

import numpy
import pytest
from helpers import read_record
from sklearn.metrics import accuracy_score, log_loss, mean_squared_error, roc_auc_score
from trained_houses import ALL, find, train

from mtlrun.deployment.combined.ensembles import ensemble
from mtlrun.deployment.combined.members import Member, find_members


def hard():
    return [str(find(f"hard-equal-lr0.001-s{seed}-*")) for seed in range(3)]


def predictions(folder, split="test"):
    """Return {column: cells} of a file of predictions."""
    with open(folder / "predictions.csv", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["split"] == split]
    return {name: numpy.array([line[name] for line in lines]) for name in lines[0]}


def numbers(table, name):
    return table[name].astype(float)


def test_the_average_is_that_of_the_files_of_predictions(in_houses, mtlrun):
    code, out, err = mtlrun("ensemble", *hard(), "--name", "all")
    assert code == 0, err
    assert "average of 3 runs" in out
    assert hard()[1] in out
    record = read_record("outputs/houses/all")
    members = [predictions(folder) for folder in map(find, (f"hard-equal-lr0.001-s{seed}-*" for seed in range(3)))]
    first, test = members[0], record["test"]
    price = numpy.mean([numbers(each, "price.prediction") for each in members], axis=0)
    rmse = mean_squared_error(numbers(first, "price.target"), price) ** 0.5
    assert test["price"]["rmse"] == pytest.approx(rmse, rel=1e-5)
    sold = numpy.mean([numbers(each, "sold.probability.yes") for each in members], axis=0)
    assert test["sold"]["auroc"] == pytest.approx(roc_auc_score(first["sold.target"] == "yes", sold))
    assert test["sold"]["log_loss"] == pytest.approx(log_loss(first["sold.target"] == "yes", sold), rel=1e-5)
    labeled = first["kind.target"] != ""
    classes = ["flat", "house", "hut"]
    kind = numpy.mean([[numbers(each, f"kind.probability.{name}") for name in classes] for each in members], axis=0)
    decided = numpy.array(classes)[kind.argmax(axis=0)]
    assert test["kind"]["accuracy"] == pytest.approx(accuracy_score(first["kind.target"][labeled], decided[labeled]))
    expected = log_loss(first["kind.target"][labeled], kind[:, labeled].T, labels=classes)
    assert test["kind"]["log_loss"] == pytest.approx(expected, rel=1e-5)
    ours = predictions(find("all"))
    assert list(ours) == list(first)
    assert (ours["sample"] == first["sample"]).all()
    assert numbers(ours, "price.prediction") == pytest.approx(price, rel=1e-5)
    assert numbers(ours, "sold.probability.yes") == pytest.approx(sold, rel=1e-5)
    assert (ours["kind.prediction"] == decided).all()
    assert record["intervals"]["test"]["price"].keys() >= {"rmse", "mae"}
    single = [read_record(folder) for folder in hard()]
    assert record["macs"] == sum(each["macs"] for each in single)
    assert record["parameters"]["shared"] == sum(each["parameters"]["shared"] for each in single)
    assert record["seconds"]["train"] == pytest.approx(sum(each["seconds"]["train"] for each in single))
    assert [run["run_id"] for run in record["made_from"]["runs"]] == [each["run_id"] for each in single]


def test_one_run_or_the_same_one_twice_has_its_metrics(in_houses, tmp_path):
    for pattern in ("hard-*-s1-*", "single-*"):
        (member,) = find_members([find(pattern)])
        for method, members in (("average", [member]), ("average", [member, member])):
            record = ensemble(members, method, tmp_path / f"{pattern[0]}{len(members)}")
            for split in ("val", "test"):
                for task, metrics in getattr(member.record, split).items():
                    assert getattr(record, split)[task] == pytest.approx(metrics, rel=1e-5, abs=1e-6), (task, split)


def test_a_vote_is_the_majority_of_the_files_of_predictions(houses, monkeypatch, mtlrun, tmp_path):
    monkeypatch.chdir(tmp_path)
    shutil.copy(houses / "houses.csv", "houses.csv")
    for seed in range(3):
        train("dataset.predict=[kind,sold]", f"seed={seed}", "trainer.epochs=1")
    runs = [find(f"hard-*-s{seed}-*") for seed in range(3)]
    code, _, err = mtlrun("ensemble", *map(str, runs), "--method", "vote", "--name", "vote", "--quiet")
    assert code == 0, err
    members, ours = [predictions(folder) for folder in runs], predictions(find("vote"))
    for task in ("kind", "sold"):
        votes = [list(of_sample) for of_sample in zip(*(each[f"{task}.prediction"] for each in members), strict=True)]
        for of_sample, decided in zip(votes, ours[f"{task}.prediction"], strict=True):
            most = max(map(of_sample.count, of_sample))
            assert of_sample.count(decided) == most or most == 1
        labeled = ours[f"{task}.target"] != ""
        accuracy = (ours[f"{task}.prediction"] == ours[f"{task}.target"])[labeled].mean()
        assert read_record("outputs/houses/vote")["test"][task]["accuracy"] == pytest.approx(accuracy)


def test_the_same_command_finds_its_result_until_a_run_is_another(in_houses, mtlrun, tmp_path):
    words = ["ensemble", *hard()[:2], "--out", str(tmp_path / "made")]
    _, first, _ = mtlrun(*words)
    path = find("ensemble-average-2runs-*", tmp_path) / "record.json"
    written = path.stat().st_mtime_ns
    assert mtlrun(*words)[1] == first
    assert path.stat().st_mtime_ns == written
    record = json.loads(path.read_text())
    record["made_from"]["runs"][0]["ended"] = "2020-01-01T00:00:00+00:00"
    path.write_text(json.dumps(record))
    assert mtlrun(*words)[0] == 0
    assert path.stat().st_mtime_ns != written
    code, _, err = mtlrun("ensemble", hard()[2], "--out", str(path.parents[1]), "--name", path.parent.name)
    assert code == 2
    assert "has the record of something else" in err


def test_a_row_of_its_own_beside_the_runs_with_deltas_and_costs(in_houses, mtlrun, tmp_path):
    folder = tmp_path / "made"
    assert mtlrun("ensemble", *hard(), "--out", str(folder), "--quiet")[0] == 0
    _, out, _ = mtlrun("compare", "outputs/houses/", str(folder), "--format", "json", "--against", "hard")
    (table,) = json.loads(out)["tables"]
    rows = {(row["kind"], row["name"]): row for row in table["rows"]}
    made, trained = rows["made", "hard, average of 3 runs"], rows["config", "hard"]
    assert made["runs"][0]["run_id"].startswith("ensemble-average-3runs-")
    assert trained["counts"] == {"completed": 3}
    assert {"delta_m", "delta_p", "parameters"} <= made["cells"].keys()
    assert made["cells"]["parameters"]["mean"] == 3 * trained["cells"]["parameters"]["mean"]
    assert made["cells"]["price/rmse"]["place"] == 0
    assert "seconds_per_step" not in made["cells"]
    contrasts = {(contrast["row"], contrast["column"]): contrast for contrast in table["against"]["contrasts"]}
    assert contrasts["hard, average of 3 runs", "price/rmse"]["over_samples"]["num_samples"] > 0
    assert not any("without a single-task baseline" in note for note in table["notes"])
    for words in (
        ["compare", "--group-by", "weighting"],
        ["compare", "--raw"],
        ["report"],
        ["status"],
        ["affinity", "--by", "model"],
    ):
        code, out, err = mtlrun(words[0], "outputs/houses", str(folder), *words[1:])
        assert code == 0, (words, err)
        assert "average" in out or words[0] in ("report", "affinity"), words
    code, out, _ = mtlrun("compare", str(folder))
    assert code == 0
    assert "price rmse" in out


def test_what_does_not_belong_together_is_refused_before_anything_is_written(in_houses, mtlrun, tmp_path):
    train(ALL, "dataset.split_seed=7", "runtime.root=others")
    train("dataset.predict=[price,kind]", "dataset.exclude=[sold]", "runtime.root=others", "model=single")
    mtlrun("--version")  # what is printed until here

    def refused(*words):
        code, out, err = mtlrun("ensemble", *words, "--out", str(tmp_path / "made"))
        assert (code, out, err.count("\n")) == (2, "", 1), err
        assert not (tmp_path / "made").exists()
        return err

    run, other, fewer = hard()[0], str(find("hard-*", "others")), str(find("single-*", "others"))
    assert "predicts numbers, not classes" in refused(*hard(), "--method", "vote")
    assert "have not the same data: their train splits differ" in refused(run, other)
    assert "have not the same tasks: price, kind, sold and price, kind" in refused(run, fewer)
    shutil.copytree(run, tmp_path / "copy")
    record = read_record(run)
    (tmp_path / "copy" / "record.json").write_text(json.dumps(record | {"status": "interrupted"}))
    assert "not completed" in refused(str(tmp_path / "copy"))
    (tmp_path / "copy" / "record.json").write_text(json.dumps(record))
    (tmp_path / "copy" / "checkpoints" / "best.pt").unlink()
    assert "best.pt is gone" in refused(str(tmp_path / "copy"))
    assert "there is no such folder" in refused("nowhere")
    assert "--name a/b: must be the name of a folder" in refused(run, "--name", "a/b")


def test_an_ensemble_is_no_run_to_be_restored_extended_or_put_together(in_houses, mtlrun, tmp_path):
    assert mtlrun("ensemble", hard()[0], "--out", str(tmp_path), "--name", "one", "--quiet")[0] == 0
    one = str(tmp_path / "one")
    assert "made from runs" in mtlrun("ensemble", one)[2]
    for command in (["evaluate", one], ["predict", one, "--input", "houses.csv", "--out", "new.csv"]):
        code, _, err = mtlrun(*command)
        assert (code, "an ensemble has no weights of its own" in err) == (2, True), command
    assert "it was made from other runs, and not trained" in mtlrun("extend", one, "trainer.epochs=9")[2]
    member = find_members([find("single-*")])[0]
    assert isinstance(member, Member)
    assert member.record.made_from is None


def test_maps_are_combined_pixel_by_pixel(tmp_path, mtlrun):
    words = ["dataset=scenes", "dataset.size=16", "dataset.num_train=8", "dataset.num_val=4", "dataset.num_test=6",
             "backbone=convnet", "trainer.epochs=1", "trainer.batch_size=4", "runtime.quiet=true"]  # fmt: skip
    for seed, size in ((0, 1024), (1, 4)):
        assert mtlrun(*words, f"seed={seed}", f"trainer.eval_batch_size={size}", "runtime.study=s")[0] == 0
    runs = [member for member in find_members([tmp_path / "outputs"]) if member.folder.parent.name == "s"]
    once = ensemble(runs[:1], "average", tmp_path / "once")
    for task, metrics in runs[0].record.test.items():
        assert once.test[task] == pytest.approx(metrics, rel=1e-4, abs=1e-5)
    both = ensemble(runs, "average", tmp_path / "both")
    other = ensemble(runs[::-1], "average", tmp_path / "reversed")
    for task, metrics in both.test.items():
        assert other.test[task] == pytest.approx(metrics, rel=1e-4, abs=1e-5)
        assert metrics != once.test[task]
