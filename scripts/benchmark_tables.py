"""How long mtlrun takes to read a table of numbers, and how much memory, beside pandas alone.

    python scripts/benchmark_tables.py
    python scripts/benchmark_tables.py --rows 1000000 --columns 50

Writes a CSV file of random numbers, and reads it in turns in processes of their own: with `pandas.read_csv`, with the
dataset `csv` up to its three splits, and, for what both import, not at all. Prints medians of the processor time, and
of the peak memory beyond that of the imports, as a multiple of the numbers in 64 bits.
"""

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
import pandas

READERS = ("pandas", "mtlrun")


def write(path: Path, rows: int, columns: int) -> None:
    """Write a table of columns x0, x1, ... and y; after 100,000 rows they come again, since drawing them takes long."""
    random = numpy.random.default_rng(0)
    names = [f"x{number}" for number in range(columns - 1)] + ["y"]
    frame = pandas.DataFrame(random.normal(size=(min(rows, 100_000), columns)).round(6), columns=names)
    text = frame.to_csv(header=False, index=False)
    with path.open("w") as file:
        file.write(",".join(names) + "\n")
        for _ in range(max(1, rows // 100_000)):
            file.write(text)


def read(path: str, reader: str) -> tuple[float, float]:
    """Return the seconds of processor time and the MiB of peak memory, beyond the imports, of reading a table."""
    from mtlrun.datasets import SPLITS, Table
    from mtlrun.tasks import Regression  # noqa: F401

    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    if reader == "pandas":
        pandas.read_csv(path)
    else:
        table = Table(path, tasks=["y"], kinds=["mtlrun.tasks.Regression"])
        for name in SPLITS:
            table.split(name)
    seconds = time.process_time() - start
    return seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100, 100, 200_000])
    parser.add_argument("--columns", type=int, nargs="+", default=[6_000, 20_000, 50])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--read", nargs=2, metavar=("FILE", "READER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        print(*read(*arguments.read))
        return
    print("     rows columns  pandas, s  mtlrun, s  ratio  memory: pandas  mtlrun")
    for rows, columns in zip(arguments.rows, arguments.columns, strict=True):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "table.csv")
            write(path, rows, columns)
            results: dict[str, list[tuple[float, float]]] = {reader: [] for reader in READERS}
            for _ in range(arguments.rounds):
                for reader in READERS:
                    command = [sys.executable, __file__, "--read", str(path), reader]
                    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                    seconds, memory = map(float, output.split())
                    results[reader].append((seconds, memory))
        times, sizes = (
            {reader: statistics.median(pair[part] for pair in pairs) for reader, pairs in results.items()}
            for part in (0, 1)
        )
        ratio, floats = times["mtlrun"] / times["pandas"], rows * columns * 8 / 2**20
        print(
            f"{rows:9,} {columns:7,} {times['pandas']:10.2f} {times['mtlrun']:10.2f} {ratio:6.2f} "
            f"{sizes['pandas'] / floats:15.2f} {sizes['mtlrun'] / floats:7.2f}"
        )


if __name__ == "__main__":
    main()
