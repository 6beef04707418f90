"""The result of a finished run: printed when a training ends, and when the same command is given again."""

from collections.abc import Mapping
from typing import Any

from mtlrun.records.display import MARK, explain_mark, make_console, result_table
from mtlrun.records.identity import run_folder
from mtlrun.records.record import Record
from mtlrun.records.stamps import find_changes


def show(record: Record, config: Mapping[str, Any], *, again: bool) -> None:
    """Print the result of a run.

    Args:
        record: of the finished run.
        config: its resolved config.
        again: True if it had finished before this command.
    """
    console = make_console()
    folder = run_folder(config)
    changes = find_changes(record.data).certain if again else {}
    for path, what in changes.items():
        console.print(
            f"{path} {what}: the result below is that of the data as it was on {record.started[:10]}; train anew with "
            "runtime.rerun=true"
        )
    legacy = record.protocol == "legacy"
    if config["runtime"]["quiet"]:
        metrics = (f"{task} {name} {record.test[task][name]:.4f}" for task, name in record.main_metrics.items())
        split = "test-selected" if legacy else "test"
        console.print(f"{folder}: {record.status}" + (f": {split} {', '.join(metrics)}" if record.test else ""))
        return
    if again:
        console.print(f"{folder} is finished already; runtime.rerun=true trains it anew")
    if record.status == "diverged":
        console.print(f"diverged at {record.error}")
        return
    if legacy:
        (entry,) = record.selection
        console.print(result_table("result (test-selected)", {f"test{MARK}": record.test}, record.directions))
        console.print(explain_mark([entry["evaluations"]]))
        console.print(f"means over epochs {entry['first_epoch']} to {entry['epoch']}; best.pt holds the last weights")
    else:
        where = "; ".join(
            f"{', '.join(entry['tasks'])} at epoch {entry['epoch']} (step {entry['step']}) by {entry['rule']}"
            for entry in record.selection
        )
        console.print(result_table("result", {"test": record.test, "val": record.val}, record.directions))
        console.print(f"selected on validation: {where}")
    console.print(f"{record.epochs} epochs, {record.steps} steps in {record.seconds['train']:.1f} s; {folder}")
