"""The search: what is searched, what becomes of trials, and that it goes on where it was stopped."""

import json
import math
import random
import time
from pathlib import Path

import pytest
from helpers import read_record, run_folders, start
from hydra.core.override_parser.overrides_parser import OverridesParser

from mtlrun.errors import ConfigError
from mtlrun.records.record import Record
from mtlrun.sweeps.jobs import Job, Outcome
from mtlrun.sweeps.scheduler import Scheduler
from mtlrun.sweeps.screen import LineView
from mtlrun.sweeps.search.objectives import Objectives, Scale
from mtlrun.sweeps.search.rules import Rules
from mtlrun.sweeps.search.space import make_space
from mtlrun.sweeps.search.sweeper import SearchSweeper
from mtlrun.sweeps.search.trials import JOURNAL, Trials
from mtlrun.training.skill import Skills

TOY = ["dataset=kendall_toy", "backbone.hidden=[8]", "backbone=mlp", "trainer.epochs=2", "trainer.log_every=50"]
SCALE = Scale({"a": "accuracy", "b": "mae"}, Skills({"a": {"accuracy": "max", "loss": "min"}, "b": {"mae": "min"}}))


def space_of(*words):
    return make_space(OverridesParser.create().parse_overrides(list(words)))


def test_a_space_is_written_in_the_grammar_of_sweeps():
    space = space_of(
        "seed=1", "optimizer.lr=tag(log,interval(1e-4,1e-1))", "backbone.dropout=interval(0,0.5)",
        "trainer.batch_size=int(interval(16,64))", "backbone.width=range(0,1,0.1)", "trainer.epochs=range(1,10,3)",
        "weighting=equal,mgda", "optimizer.lr=tag(log,interval(1e-3,1e-1))",
    )  # fmt: skip
    kinds = {key: (item["name"], item["attributes"]) for key, item in space.describe().items()}
    assert kinds == {
        "optimizer.lr": ("FloatDistribution", {"step": None, "low": 1e-3, "high": 1e-1, "log": True}),
        "backbone.dropout": ("FloatDistribution", {"step": None, "low": 0.0, "high": 0.5, "log": False}),
        "trainer.batch_size": ("IntDistribution", {"step": 1, "low": 16, "high": 64, "log": False}),
        "backbone.width": ("FloatDistribution", {"step": 0.1, "low": 0.0, "high": 0.9, "log": False}),
        "trainer.epochs": ("IntDistribution", {"step": 3, "low": 1, "high": 7, "log": False}),
        "weighting": ("CategoricalDistribution", {"choices": ["equal", "mgda"]}),
    }
    corners = space.corners()
    assert all(corner[0] == "seed=1" for corner in corners)
    for word in ("optimizer.lr=0.001", "optimizer.lr=0.1", "trainer.epochs=7", "weighting=equal", "weighting=mgda"):
        assert any(word in corner for corner in corners), word


def test_what_cannot_be_searched_is_refused_in_one_line_each():
    cases = {
        "seed=0,1": "the best of several seeds is chance",
        "dataset=multidigits,scenes": "results on different datasets cannot be compared",
        "runtime.num_threads=1,2": "no hyperparameter",
        "optimizer.lr=interval(1,1)": "the interval must go up",
        "optimizer.lr=tag(log,interval(0,1))": "must be above 0, found 0",
        "optimizer.lr=tag(often,interval(0,1))": "unknown tag often; write a,b,c",
        "optimizer.lr=tag(log,range(1,9))": "only an interval may be logarithmic",
        "optimizer.lr=choice(1)": "1 values, and a search needs two or more",
        "optimizer.lr=shuffle(1,2)": "the order of choices",
        "optimizer.lr=1": "no key has several values to search over",
    }
    for word, problem in cases.items():
        with pytest.raises(ConfigError) as error:
            space_of("weighting=equal", word)
        assert len(error.value.problems) == 1
        assert problem in error.value.problems[0], word
    rules = {"trials": 0, "pruner": "often", "warmup": -1, "startup": 0.5, "seed": True}
    with pytest.raises(ConfigError) as error:
        Rules(**rules)
    assert len(error.value.problems) == 5
    for names in (["a/mea"], [], ["mean_skill", "mean_skill"]):
        with pytest.raises(ConfigError, match=r"hydra\.sweeper\.objectives"):
            Objectives(names, SCALE)


class Bench:
    """A search whose runs are a function of their learning rate, written into the files that a run writes."""

    def __init__(self, names=("mean_skill",), trials=12, startup=3, pruner="median", words=()):
        self.words = words or ["lr=tag(log,interval(1e-4,1))", "kind=x,y"]
        self.names, self.options = names, {"trials": trials, "startup": startup, "pruner": pruner}
        self.trained = []
        self.open()

    def open(self):
        """Begin, or begin again after whatever was left, as a new process would."""
        folder = Path("outputs/runs/search-0")
        folder.mkdir(parents=True, exist_ok=True)
        rules = Rules(warmup=0, seed=0, **self.options)
        self.space = space_of("seed=0", *self.words)
        typical = self.make_job(self.space.corners()[0])
        self.trials = Trials(folder, self.space, Objectives(self.names, SCALE), rules, typical, self.make_job)

    def make_job(self, overrides):
        values = dict(word.split("=") for word in overrides)
        config = {
            "names": {"dataset": "d", "model": "m", "weighting": "w"},
            "seed": 0,
            "runtime": {"root": "outputs", "study": "runs"},
            "optimizer": {key: values[key] for key in ("lr", "kind")},
        }
        job = Job(1, config, overrides)
        record = Record.read(job.folder)
        if record is not None and record.status in ("completed", "diverged"):
            job.state, job.was_done = record.status, True
        return job

    def metrics(self, job, evaluation=5):
        """Return the metrics of an evaluation: the best learning rate is 0.01, and a kind is worse."""
        distance = abs(math.log10(float(job.config["optimizer"]["lr"])) + 2) + (job.config["optimizer"]["kind"] == "y")
        return {"a": {"accuracy": 1 - distance / 5 * evaluation / 5, "loss": distance}, "b": {"mae": 1 + distance}}

    def train(self, job, status="completed", metrics=None, evaluations=5, samples="same"):
        """Write the files of a run."""
        self.trained.append(job.run_id)
        metrics = metrics or self.metrics(job)
        job.folder.mkdir(parents=True, exist_ok=True)
        with open(job.folder / "metrics.jsonl", "w") as file:
            for number in range(1, evaluations + 1):
                line = {f"val/{t}/{m}": v for t, ms in self.metrics(job, number).items() for m, v in ms.items()}
                file.write(json.dumps({"split": "val", "step": number, "epoch": number, **line}) + "\n")
        trivial = {"a": {"accuracy": 0.5}, "b": {"mae": 4.0}}
        skills = {"a": (metrics["a"]["accuracy"] - 0.5) / 0.5, "b": 1 - metrics["b"]["mae"] / 4}
        entries = {task: {"selected": skill, "best": skill, "best_epoch": 1, "best_step": 1}
                   for task, skill in skills.items()}  # fmt: skip
        val = {"samples": 9, "labeled": {}, "fingerprint": samples, "available": 9}
        record = Record(job.run_id, job.config, status=status, val=metrics, trivial={"val": trivial}, skills=entries)
        record.splits = {"val": val}
        record.write(job.folder)
        job.state = status

    def finish(self, **how):
        """Train a trial after the other to the end."""
        while (job := self.trials.next_job()) is not None:
            if job.state == "waiting":
                self.train(job, **how)
            self.trials.ended(job)

    @property
    def study(self):
        return self.trials._study

    def states(self):
        return [trial.state.name for trial in self.study.trials]


def test_a_search_that_is_killed_again_and_again_makes_the_same_trials():
    undisturbed = Bench()
    undisturbed.finish()
    expected = undisturbed.trained
    best = undisturbed.trials.describe_best(lambda job: "again " + " ".join(job.overrides))
    assert len(expected) == 12
    assert len(set(expected)) == 12, "and draws nothing twice"
    assert best[0] == "best of 12 completed trials by mean_skill on validation:"
    assert "kind=x" in best[1]
    lr = float(best[1].split("lr=")[1].split(",")[0])
    assert 0.001 < lr < 0.1
    assert f"lr={lr!r} kind=x" in best[2]

    Path("outputs").rename("undisturbed")
    bench = Bench()
    chance = random.Random(0)
    while (job := bench.trials.next_job()) is not None:
        if chance.random() < 0.3:
            bench.open()  # nothing of the run is there
            continue
        if job.state == "waiting":
            bench.train(job)
        if chance.random() < 0.3:
            with open("outputs/runs/search-0/" + JOURNAL, "ab") as file:
                file.write(b'{"op_code":6,"wor')  # the power was cut
            bench.open()
            continue
        bench.trials.ended(job)
    assert bench.trained == expected
    assert bench.states().count("COMPLETE") == 12
    assert bench.states().count("FAIL") > 2
    assert "RUNNING" not in bench.states()
    assert bench.trials.describe_best(lambda job: "again " + " ".join(job.overrides)) == best

    # The same command adds nothing, more trials add the rest, and all have their place.
    before = bench.states()
    bench.open()
    assert bench.trials.next_job() is None
    assert bench.states() == before
    assert [job.state for job in bench.trials.finished] == ["completed"] * 12
    bench.options["trials"] = 15
    bench.open()
    numbers = [job.number for job in bench.trials.finished]
    assert sorted(numbers) == list(range(1, 13))
    bench.finish()
    assert len(bench.trained) == 15
    assert bench.trials.total == 15


def test_what_has_no_finite_value_is_a_failed_trial():
    bench = Bench(trials=5, names=("a/accuracy", "b/mae"))
    ends = ["failed", "diverged", "nan", "completed", "refused"]
    for end in ends:
        job = bench.trials.next_job()
        if end == "refused":
            job.state, job.error = "refused", "mgda and soft"
        elif end == "nan":
            bench.train(job, metrics={"a": {"accuracy": math.nan, "loss": 1.0}, "b": {"mae": 1.0}})
        else:
            bench.train(job, status=end)
        bench.trials.ended(job)
        assert job.state == ("failed" if end == "nan" else end)
        assert end != "nan" or job.error == "no value for the search: a/accuracy is nan"
    assert bench.states() == ["FAIL", "FAIL", "FAIL", "COMPLETE", "FAIL"]
    assert all(trial.values is None for trial in bench.study.trials[:3])
    # Again: what failed is tried again as a sweep would; what diverged, has no value or was refused would end the same.
    bench.open()
    states = {job.number: job.state for job in bench.trials.finished}
    assert states == {2: "diverged", 3: "failed", 4: "completed", 5: "refused"}
    job = bench.trials.next_job()
    assert job.number == 1
    bench.train(job)
    bench.trials.ended(job)
    assert bench.trials.next_job() is None
    assert bench.states() == ["FAIL", "FAIL", "FAIL", "COMPLETE", "FAIL", "COMPLETE"]


def test_runs_on_other_samples_are_not_compared():
    bench = Bench(trials=3)
    for samples in ("same", "other", "same"):
        job = bench.trials.next_job()
        bench.train(job, samples=samples)
        bench.trials.ended(job)
    assert bench.states() == ["COMPLETE", "FAIL", "COMPLETE"]
    bench.open()
    (failed,) = (job for job in bench.trials.finished if job.state == "failed")
    assert failed.error == "no value for the search: it was validated on other samples than the trials before it"
    assert bench.trials.next_job() is None


def test_several_objectives_give_the_pareto_set():
    bench = Bench(names=("a/accuracy", "b/mae"), trials=10)
    assert [direction.name for direction in bench.study.directions] == ["MAXIMIZE", "MINIMIZE"]
    found = {}
    while (job := bench.trials.next_job()) is not None:
        accuracy, mae = math.sin(7 * job.number), math.cos(3 * job.number)
        found[job.run_id] = accuracy, mae
        bench.train(job, metrics={"a": {"accuracy": accuracy, "loss": 1.0}, "b": {"mae": mae}})
        bench.trials.ended(job)
    efficient = [
        run
        for run, (accuracy, mae) in found.items()
        if not any(a >= accuracy and m <= mae and (a, m) != (accuracy, mae) for a, m in found.values())
    ]
    assert 1 < len(efficient) < 10
    lines = bench.trials.describe_best(lambda job: job.run_id)
    assert lines[0] == f"Pareto set, {len(efficient)} of 10 completed trials by a/accuracy, b/mae on validation:"
    assert sorted(line.split()[1] for line in lines if "again" in line) == sorted(efficient)
    assert bench.trials.find_hopeless([]) == []


@pytest.mark.parametrize("name", ["mean_skill", "a/accuracy"])
def test_a_run_below_the_median_is_given_up(name):
    bench = Bench(names=(name,), trials=20, startup=6)
    given_up = 0
    values = {}  # of each completed run, in each evaluation
    while (job := bench.trials.next_job()) is not None:
        bench.train(job, status="running", evaluations=2)
        curve = bench.trials._objectives.curve(job.folder, {"a": {"accuracy": 0.5}, "b": {"mae": 4.0}})
        others = sorted(curve[1] for curve in values.values())
        middle = len(others) // 2
        median = others and (others[middle] if len(others) % 2 else (others[middle - 1] + others[middle]) / 2)
        expected = len(values) >= 3 and max(curve) < median
        hopeless = bench.trials.find_hopeless([job])
        assert hopeless == ([job] if expected else [])
        assert bench.trials.find_hopeless([job]) == [], "there is nothing new"
        if hopeless:
            given_up += 1
            assert job.error == "worse than the median of the trials after 2 evaluations"
            job.state = "pruned"
        else:
            bench.train(job)
            values[job.run_id] = bench.trials._objectives.curve(job.folder, {"a": {"accuracy": 0.5}, "b": {"mae": 4.0}})
            assert len(values[job.run_id]) == 5
            if name == "mean_skill":
                selected = [entry["selected"] for entry in read_record(job.folder)["skills"].values()]
                assert values[job.run_id][-1] == pytest.approx(sum(selected) / 2)
        bench.trials.ended(job)
    assert given_up > 2
    assert bench.states().count("PRUNED") == given_up
    bench.open()
    assert [job.state for job in bench.trials.finished].count("pruned") == given_up
    assert bench.trials.next_job() is None


class TwoPlaces:
    """An executor with two places, where the first job takes longer than all others together."""

    def __init__(self, train):
        self.train, self.running, self.most, self.order = train, [], 0, []

    def has_room(self, job):
        return len(self.running) < 2

    def start(self, job):
        self.running.append(job)
        self.order.append(job.number)
        self.most = max(self.most, len(self.running))

    def wait(self, seconds):
        job = self.running.pop()
        self.train(job)
        return [(job, Outcome(0))]

    def stop(self, job, *, at_once):
        raise AssertionError("nothing is pruned")

    def shares(self, job):
        return True


def test_a_trial_is_asked_for_when_a_place_is_free_and_not_before():
    bench = Bench(trials=6, pruner=None)
    known = []  # how many trials had been told of when each was asked for
    ask = bench.trials.next_job

    def next_job():
        known.append(bench.states().count("COMPLETE"))
        return ask()

    bench.trials.next_job = next_job
    executor = TwoPlaces(bench.train)
    lines = []
    jobs = list(bench.trials.finished)
    Scheduler(jobs, executor, LineView(["mtlrun"], lines.append), lambda: None, bench.trials).run()
    assert executor.order == [1, 2, 3, 4, 5, 6]
    assert executor.most == 2
    assert known == [0, 0, 1, 2, 3, 4, 5], "the first runs all the time; the last question finds that there is no more"
    assert len(jobs) == 6
    assert lines[0] == "6 runs"
    assert lines[-1] == "6 completed"


@pytest.mark.slow
def test_a_search_on_the_command_line_finds_and_goes_on(mtlrun):
    words = [*TOY, "optimizer.lr=tag(log,interval(1e-4,1e2))", "weighting=equal,uncertainty", "runtime.study=mine"]
    code, out, err = mtlrun("search", *words, "hydra.sweeper.trials=3")
    assert code == 0, err
    assert out.startswith("3 runs\n")
    assert out.count("completed in") == 3
    records = {folder.name: read_record(folder) for folder in run_folders()}
    assert len(records) == 3
    skill = {name: sum(task["selected"] for task in record["skills"].values()) / 2 for name, record in records.items()}
    best = max(skill, key=skill.get)
    assert f"{skill[best]:.6g}  {best}: optimizer.lr=" in out
    again = out.split("again:  mtlrun ")[1].split("\n")[0]
    assert again.split()[-2:] == records[best]["overrides"][-2:]
    before = sorted(Path().rglob("*"))
    code, out, err = mtlrun("plan", "search", *words, "hydra.sweeper.trials=4")
    assert code == 0, err
    assert out.splitlines()[:2] == ["optimizer.lr: 0.0001 to 100, logarithmic", "weighting: equal, uncertainty"]
    assert "4 trials by mean_skill on validation, 3 of them ended already; 4 are drawn at random" in out
    assert "GiB of checkpoints if no trial is stopped early" in out
    assert sorted(Path().rglob("*")) == before, "nothing is trained"
    code, out, err = mtlrun("search", *words, "hydra.sweeper.trials=4")
    assert code == 0, err
    assert out.startswith("4 runs, 3 of them finished already\n")
    assert out.count("completed in") == 1
    assert len(run_folders()) == 4
    assert len(list(Path("outputs/mine").glob("search-*/" + JOURNAL))) == 1


def test_a_search_is_refused_before_anything_is_on_disk(mtlrun, monkeypatch):
    for options, problem in (
        ({"objectives": "mean"}, "must be a list such as [mean_skill]"),
        ({"trials": None}, "must be a whole number of at least 1"),
    ):
        with pytest.raises(ConfigError) as error:
            SearchSweeper(**options)
        assert problem in str(error.value)
    for words, problem in {
        ("optimizer.lr=interval(-1,1)", "optimizer.beta=1,2"): "optimizer has no key 'beta'",
        ("optimizer.lr=0.1,0.2", "trainer.epochs=range(1,4)", "backbone.width=range(0.5,1.25,0.25)"): (
            "hydra.sweeper.trials=20: the space has 18 runs only; train all by mtlrun -m"
        ),
        ("optimizer.lr=interval(-1,1)",): "1 of 2 runs are refused; to train the others: hydra.launcher.illegal=skip",
    }.items():
        code, out, err = mtlrun("search", *TOY, *words)
        assert (code, out) == (2, ""), words
        assert problem in err
    monkeypatch.setattr("mtlrun.sweeps.search.sweeper.version", lambda name: "4.8.0")
    code, out, err = mtlrun("search", *TOY, "optimizer.lr=interval(0,1)")
    assert (code, out) == (2, "")
    assert "a search needs Optuna 4.9 or later, found 4.8.0: pip install 'mtlrun[search]'" in err
    assert not Path("outputs").exists()


@pytest.mark.slow
def test_a_bad_run_is_stopped_and_a_killed_search_goes_on(mtlrun):
    # With this seed the good learning rate comes first.
    words = [*TOY, "trainer.epochs=30", "trainer.batch_size=2", "optimizer.lr=1e-9,3e-2", "hydra.sweeper.seed=5",
             "hydra.sweeper.trials=2", "hydra.sweeper.startup=2", "hydra.launcher.workers=1"]  # fmt: skip
    process = start("search", *words)
    deadline = time.monotonic() + 200
    while not list(Path("outputs/runs").glob("*/checkpoints/last.pt")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.communicate()
    code, out, err = mtlrun("search", *words)
    assert code == 0, err
    assert "2/2 hard-equal-lr1e_09-s0-kendall_toy-" in out
    assert "pruned: worse than the median of the trials after" in out
    assert "1 completed, 1 pruned" in out
    records = {read_record(folder)["status"]: read_record(folder) for folder in run_folders()}
    assert records["completed"]["config"]["optimizer"]["lr"] == 0.03
    assert records["completed"]["resumed"] == 1
    assert records["interrupted"]["steps"] < records["interrupted"]["total_steps"]
    assert "best of 1 completed trials by mean_skill" in out
