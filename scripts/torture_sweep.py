"""A sweep whose launcher and runs are killed again and again, against one that is left alone.

    python scripts/torture_sweep.py outputs/torture
    python scripts/torture_sweep.py outputs/torture --kills 50 --seed 1

Trains 24 short runs twice. The second time SIGKILL meets the launcher, the process that starts runs, or one of the
runs, at random moments, and the same command is given again whenever it has ended. At the end there must be 24
completed records, with the weights and metrics of the sweep that was left alone, and no run may have changed after its
end.
Exit code 1 if anything differs.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import torch

from mtlrun.records.record import Record

SWEEP = [
    "-m", "weighting=equal,uncertainty,gradnorm,mgda", "seed=range(6)", "backbone=mlp", "backbone.hidden=[32]",
    "trainer.epochs=12", "trainer.limit_batches=40", "trainer.evaluate_every=3", "runtime.checkpoint_minutes=0.01",
    "runtime.num_threads=1",
]  # fmt: skip
LAUNCHER, SERVER, RUN = "launcher", "server", "run"


def start(root: Path) -> subprocess.Popen[bytes]:
    log = open(root.with_suffix(".log"), "ab")  # noqa: SIM115 (the child has it)
    return subprocess.Popen([sys.executable, "-m", "mtlrun", *SWEEP, f"runtime.root={root}"], stdout=log, stderr=log)


def victims(launcher: subprocess.Popen[bytes]) -> dict[str, list[psutil.Process]]:
    """Return the processes of a sweep by what they are."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(launcher.pid)
        servers = process.children()
        return {LAUNCHER: [process], SERVER: servers, RUN: [run for server in servers for run in server.children()]}
    return {LAUNCHER: [], SERVER: [], RUN: []}


def completed(root: Path) -> dict[str, int]:
    """Return {run: when its record was written} of those that are completed."""
    found = {}
    for path in root.glob("runs/*/record.json"):
        record = Record.read(path.parent)
        if record is not None and record.status == "completed":
            found[path.parent.name] = path.stat().st_mtime_ns
    return found


def disturb(root: Path, kills: int, draw: random.Random) -> tuple[dict[str, int], list[str]]:
    """Train with so many kills; return {what: how often it was killed}, and the runs that changed after their end."""
    done: dict[str, int] = {}
    changed: set[str] = set()
    counts = dict.fromkeys((LAUNCHER, SERVER, RUN), 0)
    launcher = start(root)

    def look() -> None:
        for run, written in completed(root).items():
            if done.setdefault(run, written) != written:
                changed.add(run)

    while sum(counts.values()) < kills:
        wait_until = time.monotonic() + draw.uniform(0.5, 9)
        while time.monotonic() < wait_until and launcher.poll() is None:
            time.sleep(0.05)
        look()
        if launcher.poll() is None:
            kind = draw.choices((LAUNCHER, SERVER, RUN), (5, 2, 5))[0]
            targets = victims(launcher)[kind]
            if targets:
                with contextlib.suppress(psutil.NoSuchProcess):
                    draw.choice(targets).send_signal(signal.SIGKILL)
                    counts[kind] += 1
            if kind == LAUNCHER:
                launcher.wait()
        if launcher.poll() is not None:
            if launcher.returncode == 0 and len(completed(root)) == 24 and sum(counts.values()) < kills:
                print(f"all runs were completed after {sum(counts.values())} kills", flush=True)
                break
            launcher = start(root)
    while launcher.wait() != 0:
        look()
        launcher = start(root)
    look()
    return counts, sorted(changed)


def differences(disturbed: Path, undisturbed: Path) -> list[str]:
    """Return what differs between the runs of two sweeps."""
    found = []
    for folder in sorted((undisturbed / "runs").iterdir()):
        other = disturbed / "runs" / folder.name
        records = Record.read(folder), Record.read(other)
        if records[0] is None or records[1] is None or records[1].status != "completed":
            found.append(f"{folder.name}: not completed")
            continue
        if (records[0].val, records[0].test) != (records[1].val, records[1].test):
            found.append(f"{folder.name}: other metrics")
        states = [torch.load(path / "checkpoints" / "best.pt", weights_only=True) for path in (folder, other)]
        weights = [[tensor for part in state["model_states"] for tensor in part.values()] for state in states]
        if not all(torch.equal(one, two) for one, two in zip(*weights, strict=True)):
            found.append(f"{folder.name}: other weights")
        if (folder / "metrics.jsonl").read_bytes() != (other / "metrics.jsonl").read_bytes():
            found.append(f"{folder.name}: other lines in metrics.jsonl")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    roots = arguments.folder / "disturbed", arguments.folder / "undisturbed"
    for root in roots:
        shutil.rmtree(root, ignore_errors=True)
    os.makedirs(arguments.folder, exist_ok=True)
    begun = time.monotonic()
    if start(roots[1]).wait() != 0:
        print(f"the undisturbed sweep failed; see {roots[1].with_suffix('.log')}")
        return 1
    alone = time.monotonic() - begun
    begun = time.monotonic()
    counts, changed = disturb(roots[0], arguments.kills, random.Random(arguments.seed))
    seconds = time.monotonic() - begun
    found = differences(*roots)
    killed = ", ".join(f"{count} x {what}" for what, count in counts.items())
    print(f"killed: {killed}; {seconds:.0f} s, {alone:.0f} s undisturbed")
    print(f"completed: {len(completed(roots[0]))} of {len(completed(roots[1]))}; "
          f"changed after completion: {len(changed)}; different from the undisturbed sweep: {len(found)}")  # fmt: skip
    for line in [*(f"{run}: changed after it was completed" for run in changed), *found]:
        print(line)
    return int(bool(changed or found))


if __name__ == "__main__":
    sys.exit(main())
