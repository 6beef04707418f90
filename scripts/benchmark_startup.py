"""How long mtlrun takes from the command to the first step, and to `--help`.

    python scripts/benchmark_startup.py
    python scripts/benchmark_startup.py --against ../another/checkout

Runs, in turns: `import torch` alone, a smoke run from the start of the process to its first optimizer step and to its
end, `mtlrun --help`, and `--help` of a Hydra program with one key; those of mtlrun also from another checkout. Prints
the median of each, and the medians of the ratios within a round, so that a machine that changes its speed slows both.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

HYDRA_PROGRAM = """
import hydra

@hydra.main(version_base="1.3", config_path=".", config_name="config")
def main(cfg):
    print(cfg.lr)

main()
"""


def seconds(arguments: Sequence[str], source: Path | None = None) -> float:
    """Return the wall time of a Python process, with the packages in `source` before the installed ones."""
    environment = os.environ if source is None else {**os.environ, "PYTHONPATH": str(source)}
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def smoke_run(source: Path, folder: Path) -> tuple[float, float]:
    """Return the seconds from the start of a process to the first step of a smoke run, and to the end of the process.

    The record counts from the import of mtlrun's command line; what Python takes until then is measured beforehand.
    """
    before = seconds(["-c", "import mtlrun"], source)
    root = folder / "outputs"
    arguments = ["trainer=smoke", "runtime.rerun=true", "runtime.quiet=true", f"runtime.root={root}"]
    whole = seconds(["-m", "mtlrun", *arguments], source)
    records = sorted(root.glob("runs/*/record.json"), key=lambda path: path.stat().st_mtime)
    return before + json.loads(records[-1].read_text())["seconds"]["to_first_step"], whole


def measure(sources: dict[str, Path], rounds: int, folder: Path) -> dict[str, list[float]]:
    """Return {name: seconds in each round}; a first round, which fills the caches of files, is left out."""
    program = folder / "program.py"
    program.write_text(HYDRA_PROGRAM)
    (folder / "config.yaml").write_text("lr: 0.1\n")
    results: dict[str, list[float]] = {}
    for number in range(rounds + 1):
        times = {
            "import torch": seconds(["-c", "import torch"]),
            "a Hydra program's --help": seconds([str(program), "--help"]),
        }
        for name, source in sources.items():
            times[f"{name}: first step"], times[f"{name}: whole smoke run"] = smoke_run(source, folder)
            times[f"{name}: --help"] = seconds(["-m", "mtlrun", "--help"], source)
        if number:
            for name, value in times.items():
                results.setdefault(name, []).append(value)
    return results


def report(results: dict[str, list[float]]) -> None:
    """Print a table of medians, and of the ratios to `import torch` or to the Hydra program."""
    print(f"{'':32} {'seconds':>8} {'ratio':>6}  middle half of the ratios")
    for name, values in results.items():
        reference = "a Hydra program's --help" if name.endswith("--help") else "import torch"
        ratios = [value / other for value, other in zip(values, results[reference], strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        print(
            f"{name:32} {statistics.median(values):8.2f} {statistics.median(ratios):6.2f}  {low:.2f} to {high:.2f}"
            f"  (to {reference})"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="how often each is measured, 2 or more")
    parser.add_argument("--against", type=Path, help="another checkout of mtlrun, with its packages in src/")
    arguments = parser.parse_args()
    sources = {"mtlrun": Path(__file__).resolve().parents[1] / "src"}
    if arguments.against is not None:
        sources[arguments.against.name] = arguments.against.resolve() / "src"
    with tempfile.TemporaryDirectory() as folder:
        report(measure(sources, arguments.rounds, Path(folder)))


if __name__ == "__main__":
    main()
