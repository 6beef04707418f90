"""How long `mtlrun compare` takes for many records, by what it does; no run is needed.

    python scripts/benchmark_compare.py [number of records]

Writes synthetic records (20 methods, 10 learning rates, seeds) with files of curves beside them into a temporary
folder, and prints the time of the whole command in a process of its own, and of its parts in this one.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "comparison"))

from synthetic import make_record, write_records  # noqa: E402

from mtlrun.comparison.building import compare  # noqa: E402
from mtlrun.comparison.reading import read_runs  # noqa: E402


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    methods, rates = 20, 10
    records = []
    for index in range(number):
        seed, rest = divmod(index, methods * rates)
        method, rate = divmod(rest, rates)
        lr = 0.001 * (rate + 1)
        name = {"model": "single"} if method == 0 else {"weighting": f"method_{method}"}
        changes = {"optimizer.lr": lr, "tasks.left.lr": lr, "tasks.right.lr": lr}
        accuracy = 0.9 + 0.001 * method - 0.0001 * (seed % 7) * rate
        test = {task: {"accuracy": accuracy, "loss": 1 - accuracy} for task in ("left", "right")}
        records.append(make_record(seed, test=test, changes=changes, **name))
    with tempfile.TemporaryDirectory() as folder:
        write_records(folder, records, evaluations=10)
        for _ in range(2):  # the first time the files are not in memory, and Python's caches not written
            start = time.perf_counter()
            subprocess.run([sys.executable, "-m", "mtlrun", "compare", folder], check=True, capture_output=True)
            print(f"{number} records: mtlrun compare {time.perf_counter() - start:.2f} s")
        start = time.perf_counter()
        runs = read_runs([Path(folder)]).runs
        print(f"  reading {time.perf_counter() - start:.2f} s")
        start = time.perf_counter()
        compare(runs)
        print(f"  table {time.perf_counter() - start:.2f} s")


if __name__ == "__main__":
    main()
