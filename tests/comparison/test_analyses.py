"""What is added to a table: intervals, rank groups, warnings, tuning, differences to a row, trade-offs."""

import json
import math

import numpy
import pandas
import pytest
import scipy.stats
from synthetic import make_record, make_study, write_records

from mtlrun.comparison.analysis_results import Contrast
from mtlrun.comparison.building import compare
from mtlrun.comparison.formats.sections import sections_of
from mtlrun.comparison.reading import read_runs
from mtlrun.comparison.run import Run
from mtlrun.comparison.samples import SampleDifference
from mtlrun.comparison.statistics.paired import Difference
from mtlrun.comparison.table import Options
from mtlrun.errors import ConfigError

CONSTANT = {"test": {"left": {"accuracy": 0.1}, "right": {"accuracy": 0.1}}}


def table_of(records, **options):
    (table,) = compare([Run(record) for record in records], Options(**options)).tables
    return table


def cells(table, key="left/accuracy"):
    return {row.name: row.cells[key] for row in table.configs}


def names(table):
    return [row.name for row in table.configs]


def test_intervals_and_rank_groups_are_in_the_cells():
    table = table_of(make_study({"equal": 0.9, "mgda": 0.901, "dwa": 0.6}, seeds=5))
    equal, mgda, dwa = names(table)
    found = cells(table)
    low, high = scipy.stats.ttest_1samp(list(found[dwa].values.values()), 0).confidence_interval()
    assert found[dwa].interval == pytest.approx((low, high))
    assert [found[name].rank_group for name in (equal, mgda, dwa)] == [1, 1, 3]
    assert any(f"ranks by left accuracy: 1: {equal}; {mgda} | 3: {dwa}" in note for note in table.notes)
    alike = table_of(make_study({"equal": 0.9, "mgda": 0.9}, seeds=4, spread=0.05))
    assert any("inside the noise, all rows share rank 1: left accuracy, right accuracy" in n for n in alike.notes)
    alone = table_of(make_study({"equal": 0.9, "mgda": 0.9}, seeds=1))
    assert not any("rank" in note for note in alone.notes if "mean rank" not in note)
    assert cells(alone)[names(alone)[0]].interval is None


def test_folds_count_and_not_the_seeds_on_them():
    records = [
        make_record(seed, test={"a": {"accuracy": 0.5 + fold / 10 + seed / 100}}, tasks=("a",),
                    changes={"dataset.num_folds": 3, "dataset.fold": fold})
        for seed in range(4) for fold in range(3)
    ]  # fmt: skip
    table = table_of(records)
    (row,) = table.configs
    cell = row.cells["a/accuracy"]
    assert row.group.independent(cell.values) == pytest.approx({0: 0.515, 1: 0.615, 2: 0.715})
    # Nadeau and Bengio: s sqrt(1/3 + 1/2)
    reach = scipy.stats.t.ppf(0.975, 2) * 0.1 * math.sqrt(1 / 3 + 1 / 2)
    assert cell.interval == pytest.approx((0.615 - reach, 0.615 + reach))


def test_rows_that_mix_configs_count_seeds_once():
    records = make_study({"equal": 0.9}, seeds=3) + make_study({"equal": 0.8}, seeds=3, changes={"optimizer.lr": 0.1})
    table = table_of(records, by=("weighting",))
    (row,) = table.configs
    assert len(row.cells["left/accuracy"].values) == 6
    assert len(row.group.independent(row.cells["left/accuracy"].values)) == 3


def test_a_mean_that_mixes_configs_unevenly_is_the_center_of_its_interval():
    records = [make_record(seed, test={"left": {"accuracy": 0.5 + seed / 10}}) for seed in range(3)]
    records += [make_record(0, test={"left": {"accuracy": value}}, changes={"optimizer.lr": lr})
                for lr, value in ((0.1, 0.8), (0.2, math.nan))]  # fmt: skip
    comparison = compare([Run(record) for record in records], Options(by=("weighting",)))
    cell = comparison.tables[0].configs[0].cells["left/accuracy"]
    assert (cell.samples, cell.n, cell.of) == (pytest.approx([0.65, 0.6, 0.7]), 3, 3)
    assert cell.mean == pytest.approx(sum(cell.interval) / 2)
    assert "mean ± standard deviation over the seeds, each the mean over its runs" in comparison.notes


def test_only_seeds_are_called_seeds():
    records = make_study({"equal": 0.9, "mgda": 0.9}, seeds=3)
    (named,) = [line for line in table_of(records).warnings if "almost nothing" in line]
    assert "with 3 seeds" in named
    for over in (("seed", "optimizer.lr"), ("optimizer.lr", "seed")):
        (named,) = [line for line in table_of(records, over=over).warnings if "almost nothing" in line]
        assert "with 3 repetitions" in named


def warnings_of(*studies):
    return table_of([record for study in studies for record in study]).warnings


def test_warnings_name_what_was_not_alike():
    plain = make_study({"equal": 0.9}, seeds=12)
    assert warnings_of(plain, make_study({"mgda": 0.9}, seeds=12)) == []
    cases = {
        "clipping (trainer.clip_norm): null in 12, 1.0 in 12": {"changes": {"trainer.clip_norm": 1.0}},
        "the length of training in steps: 720 in 12, 1440 in 12": {"total_steps": 1440},
        "the batch size: 256 in 12, 32 in 12": {"changes": {"trainer.batch_size": 32}},
        "the commit of mtlrun: 00000000 in 12, 11111111 in 12": {"environment": {"mtlrun": {"commit": "1" * 40}}},
        "the version of PyTorch: 2.11.0 in 12, 2.12.0 in 12": {"environment": {"versions": {"torch": "2.12.0"}}},
        "samples of the test split": {"splits": {"test": {"fingerprint": "x"}}},
    }
    for expected, changed in cases.items():
        (found,) = warnings_of(plain, make_study({"mgda": 0.9}, seeds=12, **changed))
        assert expected in found
    by_source = [
        make_study({"mgda": 0.9}, seeds=12, changes={"weighting.grad_wrt": "shared"}),
        make_study({"cagrad": 0.9}, seeds=12, changes={"weighting.grad_wrt": "representation"}),
    ]
    assert "weighting.grad_wrt): shared in 12, representation in 12" in warnings_of(plain, *by_source)[0]
    assert warnings_of(plain, by_source[0]) == []
    dirty = make_study({"mgda": 0.9}, seeds=12, environment={"mtlrun": {"commit": "0" * 40, "dirty": True}})
    assert "12 of 24 runs were made by code with uncommitted changes" in warnings_of(plain, dirty)[0]
    diverged = make_study({"mgda": 0.9}, seeds=12)
    diverged[3] = make_record(3, weighting="mgda", status="diverged")
    assert "without the runs that diverged, which flatters mgda" in warnings_of(plain, diverged)[0]
    selection = [{"tasks": ["left", "right"], "rule": "last_mean", "epoch": 9, "step": 9, "evaluations": 10,
                  "first_epoch": 0}]  # fmt: skip
    legacy = make_study({"mgda": 0.9}, seeds=12, protocol="legacy", selection=selection)
    assert "1 of 2 rows, marked †, are test-selected" in warnings_of(plain, legacy)[0]


def test_few_seeds_are_said_to_show_little_and_how_many_would_be_needed():
    (found,) = warnings_of(make_study({"equal": 0.9, "mgda": 0.9001}, seeds=3))
    assert "with 3 seeds almost nothing is separable" in found
    assert "3.3 times its standard deviation" in found
    assert "to separate the best two rows, about" in found
    (alone,) = warnings_of(make_study({"equal": 0.9, "mgda": 0.9}, seeds=1))
    assert alone == "with one seed no difference can be told from noise"


def sweep(name, means, skills, **fields):
    """Return three seeds of a trial per learning rate, with test means and validation skills."""
    records = []
    for (lr, mean), skill in zip(means.items(), skills, strict=True):
        of_trial = {} if skill is None else {
            task: {"selected": skill, "best": skill, "best_epoch": 1, "best_step": 1} for task in ("left", "right")
        }  # fmt: skip
        records += make_study({name: mean}, changes={"optimizer.lr": lr}, skills=of_trial, **fields)
    return records


def test_tuning_chooses_on_validation_and_reports_the_median_and_the_number_of_trials():
    records = sweep(
        "equal", {0.1: 0.8, 0.01: 0.9, 0.001: 0.7}, [0.5, 0.6, 0.9]
    )  # the best on validation is not on test
    records += sweep("mgda", {0.01: 0.95}, [0.9])
    table = table_of(records)
    equal, mgda = table.tuning.methods
    assert (table.tuning.keys, equal.trials, mgda.trials) == (["optimizer.lr"], 3, 1)
    assert (equal.best, equal.validation) == ({"optimizer.lr": 0.001}, pytest.approx(0.9))
    spread, means = equal.spreads["left/accuracy"], [row.cells["left/accuracy"].mean for row in table.configs[:3]]
    assert (spread.best, spread.median) == pytest.approx((means[2], means[0]))
    assert (spread.low, spread.high) == pytest.approx((means[2], means[1]))
    assert any("unequal budgets, in trials of optimizer.lr: 3 of equal; 1 of mgda" in line for line in table.warnings)
    (section,) = sections_of(table)
    assert section.table.rows[0][:3] == ["equal", "3", "lr=0.001"]
    even = table_of(sweep("equal", {0.1: 0.8, 0.01: 0.9}, [0.5, 0.6]) + sweep("mgda", {0.1: 0.8, 0.01: 1}, [0.5, 0.6]))
    assert not any("budgets" in line for line in even.warnings)
    assert table_of(make_study({"equal": 0.9, "mgda": 0.9})).tuning is None


def test_tuning_does_not_choose_without_validation_nor_a_trial_that_diverged():
    unknown = table_of(sweep("equal", {0.1: 0.8, 0.01: 0.9}, [0.5, None])).tuning
    assert unknown.methods[0].best is None
    assert math.isnan(unknown.methods[0].spreads["left/accuracy"].best)
    assert "no best trial" in unknown.notes[0]
    records = sweep("equal", {0.01: 0.8, 0.001: 0.7}, [0.5, 0.4])
    records += [make_record(seed, status="diverged", changes={"optimizer.lr": 1.0}) for seed in range(3)]
    (method,) = table_of(records).tuning.methods
    assert (method.trials, method.best) == (3, {"optimizer.lr": 0.01})


def test_rows_are_held_against_a_chosen_one():
    table = table_of(make_study({"equal": 0.9, "mgda": 0.9, "dwa": 0.6}, seeds=5, spread=0.02), against="equal")
    found = table.against
    assert (found.baseline, found.repetition) == ("equal", "seed")
    by_row = {(contrast.row, contrast.column): contrast for contrast in found.contrasts}
    assert len(by_row) == 4
    dwa, mgda = by_row["dwa", "left/accuracy"], by_row["mgda", "left/accuracy"]
    expected = scipy.stats.ttest_rel(*(list(cells(table)[name].values.values()) for name in ("dwa", "equal")))
    assert dwa.over_repetitions.p == pytest.approx(expected.pvalue)
    assert dwa.p == pytest.approx(min(1, 2 * expected.pvalue))  # the smaller of two
    assert dwa.verdict == "worse over repetitions"  # there is no file of predictions
    assert mgda.verdict == "inside the noise"
    assert mgda.needed > 5
    assert dwa.over_repetitions.bootstrap.high < 0
    overall = {each.row: each for each in found.overall}
    assert overall["equal"].improvement is None
    assert overall["dwa"].improvement.value == 0
    assert (found.ranks.num_blocks, found.ranked) == (10, ["equal", "mgda", "dwa"])
    assert [section.title for section in sections_of(table)] == ["against equal", "over all tasks"]
    assert "left accuracy, right accuracy: a run has no folder with predictions" in found.notes[0]


def test_gains_over_single_task_networks_are_those_of_the_deltas():
    records = make_study({"equal": 0.9, "mgda": 0.8}, spread=0.02) + make_study({"single": 0.85}, key="model")
    table = table_of(records, against="hard, equal")
    overall = {each.row: each.gain for each in table.against.overall}
    deltas = table.configs[0].cells["delta_p"].values.values()
    assert overall["hard, equal"].interval.low < sum(deltas) / 3 < overall["hard, equal"].interval.high
    assert overall["hard, mgda"].value < 0 < overall["hard, equal"].value
    assert {contrast.column for contrast in table.against.contrasts} == {
        "left/accuracy", "right/accuracy", "delta_p",  # delta_m is its negative
    }  # fmt: skip


def test_a_row_that_is_not_there_is_refused_with_what_is():
    records = make_study({"equal": 0.9, "mgda": 0.9}) + make_study({"mmoe": 0.9}, key="model")
    with pytest.raises(ConfigError, match="--against equak: no such row"):
        table_of(records, against="equak")
    with pytest.raises(ConfigError, match="--against hard: 2 rows have it: hard, equal; hard, mgda"):
        table_of(records, against="hard")
    assert table_of(records, against="mmoe").against.baseline == "mmoe, equal"


def test_a_row_is_found_by_its_values_and_single_task_networks_are_none_of_several():
    records = make_study({"equal": 0.9, "mgda": 0.9}) + make_study({"single": 0.9}, key="model")
    for name in ("equal", "hard, equal", "equal,hard", "model=hard, weighting=equal"):
        assert table_of(records, against=name).against.baseline == "hard, equal"
    assert table_of(records, against="model=single").against.baseline == "single, equal"


def test_trade_offs_name_the_front_and_who_wins():
    means = {"equal": [0.9, 0.5], "mgda": [0.5, 0.9], "dwa": [0.4, 0.4]}
    table = table_of(make_study(means, seeds=2, trivial=CONSTANT), pareto=True)
    found = table.trade_offs
    equal, mgda, dwa = found.rows
    assert (equal.dominated_by, mgda.dominated_by, dwa.dominated_by) == ([], [], ["equal", "mgda"])
    (a, b), (c, d) = ([row.mean(column) - 0.1 for column in table.metrics] for row in table.configs[:2])
    assert found.hypervolume == pytest.approx(a * b + c * d - c * b)
    assert (equal.added, dwa.added) == (pytest.approx(a * b - c * b), 0)
    assert found.reference == [0.1, 0.1]
    assert equal.wins + mgda.wins == pytest.approx(1)
    assert equal.wins == pytest.approx((a - c) and (d - b) and (a - c) / (a - c + d - b))
    assert equal.profile[0] == 1 >= equal.profile[50] >= equal.profile[-1] == 0
    (section,) = sections_of(table)
    assert section.notes[0] == "Pareto front: equal; mgda"
    without = table_of(make_study(means, seeds=2), pareto=True).trade_offs
    assert without.reference_is == "the worst mean of each column"
    assert math.isnan(without.rows[0].wins)
    assert any("no wins and no profiles" in note for note in without.notes)
    assert table_of(make_study({"equal": 0.9}, seeds=2), pareto=True).trade_offs is None


def write_study(root, right_fractions):
    """Write four runs of each of several methods, with predictions of 200 test samples.

    Args:
        root: the folder of the study.
        right_fractions: {method: fraction of right predictions of the task `left`}; `right` is always right.
    """
    classes = numpy.arange(200) % 2
    for name, fraction in right_fractions.items():
        for seed in range(4):
            wrong = numpy.arange(200) >= round(200 * fraction) - seed  # the same for all methods, but for the fraction
            decided = numpy.where(wrong, 1 - classes, classes)
            test = {"left": {"accuracy": float((~wrong).mean())}, "right": {"accuracy": 1.0}}
            record = make_record(seed, weighting=name, test=test, trivial=CONSTANT)
            (folder,) = write_records(root, [record])
            lines = {"sample": range(200), "split": "test"}
            for task, prediction in (("left", decided), ("right", classes)):
                lines |= {f"{task}.target": classes, f"{task}.prediction": prediction}
                lines |= {f"{task}.probability.0": 1 - prediction, f"{task}.probability.1": prediction}
            pandas.DataFrame(lines).to_csv(folder / "predictions.csv", index=False)


def test_the_command_shows_the_tests_in_all_formats_for_readers_and_everything_in_json(mtlrun, tmp_path):
    write_study(tmp_path / "study", {"equal": 0.8, "mgda": 0.9, "dwa": 0.795})
    asked = ["compare", str(tmp_path / "study"), "--against", "equal", "--pareto", "--intervals"]
    code, out, err = mtlrun(*asked)
    assert (code, err) == (0, "")
    lines = {tuple(line.split()[2:3]): line for line in out.splitlines() if line.startswith(" left accuracy")}
    # Paired differences are the same for all seeds: p = 2^(1 - 4), by the sign test, is no proof.
    assert "inside the noise" in lines["mgda",]
    assert "0.7925 [0.7822, 0.8028]" in out
    assert "Pareto front: mgda" in out
    assert "mean [95 % interval by Student's t] over the seeds" in out
    (table,) = json.loads(mtlrun(*asked, "--format", "json")[1])["tables"]
    contrasts = {(each["row"], each["column"]): each for each in table["against"]["contrasts"]}
    mgda, dwa = contrasts["mgda", "left/accuracy"], contrasts["dwa", "left/accuracy"]
    assert mgda["over_repetitions"]["p"] == 0.125
    assert mgda["over_samples"]["interval"][0] > 0
    assert dwa["p_samples"] > 0.02 > mgda["p_samples"]
    assert mgda["over_samples"]["num_samples"] == 200
    assert contrasts["dwa", "right/accuracy"]["verdict"] == "inside the noise"
    assert [row["row"] for row in table["trade_offs"]["rows"] if not row["dominated_by"]] == ["mgda"]
    (row,) = [row for row in table["rows"] if row["name"] == "equal"]
    assert row["cells"]["left/accuracy"]["interval"] == pytest.approx([0.7822, 0.8028], abs=1e-4)
    markdown = mtlrun(*asked, "--format", "markdown")[1]
    assert "#### against equal" in markdown
    assert "| left accuracy" in markdown
    latex = mtlrun(*asked, "--format", "latex")[1]
    assert "% against equal\n\\begin{tabular}{llrrrrrr}" in latex
    lines = mtlrun(*asked[:2], "--intervals", "--format", "csv")[1].splitlines()
    (line,) = [dict(zip(lines[0].split(","), each.split(","), strict=True)) for each in lines if ",equal," in each]
    assert float(line["left/accuracy low"]) == pytest.approx(row["cells"]["left/accuracy"]["interval"][0])
    code, _, err = mtlrun(*asked, "--format", "csv")
    assert (code, err) == (2, "mtlrun: --against: csv has no place for what it adds; --format json has everything\n")
    code, _, err = mtlrun(*asked[:2], "--against", "nobody")
    assert code == 2
    assert "--against nobody: no such row" in err


def test_a_run_whose_metric_is_undefined_does_not_stop_the_test_over_samples(tmp_path):
    write_study(tmp_path, {"equal": 0.8, "mgda": 0.9})
    runs = read_runs([tmp_path]).runs
    next(run for run in runs if run.lookup("weighting") == "mgda").record.test["left"]["accuracy"] = math.nan
    (table,) = compare(runs, Options(against="equal")).tables
    (contrast,) = [each for each in table.against.contrasts if each.column == "left/accuracy"]
    assert contrast.why_not == ""
    assert (contrast.over_samples.num_repetitions, contrast.over_repetitions.counts) == (3, (3, 3))


def test_a_difference_has_to_survive_seeds_and_test_samples():
    over_seeds = Difference(0.1, 0.01, (5, 5), True, 0.001, None)

    def verdict(p=0.01, gain=0.1, p_samples=0.01, difference=over_seeds, sampled=True):
        samples = SampleDifference(gain, (0, 1), p_samples, 100, 5) if sampled else None
        return Contrast("a", "b", "c", difference, samples, "", p, p_samples).verdict

    assert verdict() == "better"
    assert verdict(difference=Difference(-0.1, 0.01, (5, 5), True, 0.001, None), gain=-0.1) == "worse"
    assert verdict(p=0.06) == "inside the noise"
    assert verdict(p_samples=0.06) == "inside the noise of the test samples"
    assert verdict(gain=-0.1) == "inside the noise of the test samples"
    assert verdict(sampled=False) == "better over repetitions"
    assert verdict(p=None) == "too few repetitions"
    assert verdict(difference=None) == "no value"
