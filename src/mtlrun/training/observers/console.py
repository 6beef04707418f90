"""The screen: what is trained, its progress, and each validation."""

import logging
import sys
from collections.abc import Mapping
from math import isfinite
from typing import Any

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.tree import Tree

from mtlrun.config.schema import FILLED_IN
from mtlrun.records.display import format_value
from mtlrun.records.record import Record
from mtlrun.training.observers.base import Metrics, Observer

logger = logging.getLogger("mtlrun.screen")


def logging_handler(console: Console, *, quiet: bool) -> logging.Handler:
    """Return the handler that prints log lines: above the progress bar on a terminal, plain otherwise."""
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_time=False, show_path=False, show_level=False, markup=False)
    else:
        handler = logging.StreamHandler(sys.stdout)
    handler.setLevel(logging.WARNING if quiet else logging.INFO)
    return handler


class Screen(Observer):
    """Shows the config, the parameter groups, the progress and each validation.

    Args:
        console: where it is shown.
        quiet: show warnings only.
    """

    def __init__(self, console: Console, *, quiet: bool) -> None:
        self._console = console
        self._quiet = quiet
        self._progress: Progress | None = None
        self._main_metrics: Mapping[str, str] = {}
        self._evaluation_name, self._shows_selected = "val", True
        self._losses = self._validation = ""

    def started(self, record: Record, step: int) -> None:
        self._main_metrics = record.main_metrics
        if record.protocol == "legacy":
            self._evaluation_name, self._shows_selected = "test-selected", False
        if self._quiet:
            return
        self._console.print(config_tree(record))
        self._console.print(group_table(record))
        self._console.print(sample_table(record))
        self._console.print(f"{short(record.macs)} MACs per sample, all tasks together", style="dim")
        if self._console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._progress.add_task("step", total=record.total_steps, completed=step)
            self._progress.start()

    def trained(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        losses = {tag.split("/")[1]: value for tag, value in values.items() if tag.startswith("train/")}
        self._losses = "loss " + ", ".join(f"{task} {loss:.3f}" for task, loss in losses.items())
        self._advance(step)

    def validated(self, step: int, epoch: int, metrics: Metrics, selected: bool) -> None:
        shown = {
            task: metric if isfinite(metrics[task][metric]) else "loss" for task, metric in self._main_metrics.items()
        }
        numbers = (f"{task} {metric} {format_value(metrics[task][metric])}" for task, metric in shown.items())
        self._validation = f"{self._evaluation_name} {', '.join(numbers)}"
        mark = " (selected)" if selected and self._shows_selected else ""
        logger.info("epoch %d, step %d: %s%s", epoch, step, self._values(), mark)
        self._advance(step)

    def closed(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _advance(self, step: int) -> None:
        if self._progress is not None:
            self._progress.update(self._progress.task_ids[0], completed=step, description=self._values())

    def _values(self) -> str:
        """Return the last losses and metrics, as far as there are any."""
        return "; ".join(part for part in (self._losses, self._validation) if part)


def config_tree(record: Record) -> Tree:
    """Return the resolved config, a branch per group."""
    tree = Tree(f"[bold]{record.run_id}[/bold]")
    names = record.config["names"]
    for group, content in record.config.items():
        if group in FILLED_IN:
            continue
        label = f"{group}={names[group]}" if group in names else group
        if not isinstance(content, Mapping):
            tree.add(f"[cyan]{group}[/cyan]: {content}")
        elif group == "tasks":
            branch = tree.add("[cyan]tasks[/cyan]")
            for task, options in content.items():
                branch.add(escape(f"{task}: {_inline(options)}"))
        else:
            tree.add(f"[cyan]{label}[/cyan]: {escape(_inline(content))}")
    return tree


def _inline(options: Mapping[str, Any]) -> str:
    target = str(options.get("_target_", "")).rsplit(".", 1)[-1]
    arguments = []
    for key, value in options.items():
        if key not in ("_target_", "_partial_"):
            shown = _inline(value) if isinstance(value, Mapping) else "null" if value is None else value
            arguments.append(f"{key}={shown}")
    return f"{target}({', '.join(arguments)})" if target else ", ".join(arguments)


def sample_table(record: Record) -> Table:
    """Return the number of samples of each split, and of those labeled for a task that lacks some labels.

    With `trainer.limit_batches` also the number of samples that are used.
    """
    table = Table(title="samples", title_justify="left", box=None, header_style="bold")
    table.add_column("")
    for split in record.splits:
        table.add_column(split, justify="right")
    num_samples = [split["samples"] for split in record.splits.values()]
    available = [split.get("available", split["samples"]) for split in record.splits.values()]
    table.add_row("all", *(f"{count:,}" for count in available))
    if available != num_samples:
        table.add_row("used", *(f"{count:,}" for count in num_samples))
    for task in record.main_metrics:
        counts = [split["labeled"].get(task, split["samples"]) for split in record.splits.values()]
        if counts != num_samples:
            table.add_row(f"with {task}", *(f"{count:,}" for count in counts))
    return table


def group_table(record: Record) -> Table:
    """Return the parameter groups with their learning rates; every parameter is in exactly one."""
    table = Table(title="parameter groups", title_justify="left", box=None, header_style="bold")
    table.add_column("group")
    table.add_column("parameters", justify="right")
    table.add_column("learning rate", justify="right")
    for name, count in record.parameters.items():
        lr = record.learning_rates.get(name)
        table.add_row(name, f"{count:,}", "-" if lr is None else f"{lr:g}")
    table.add_row("total", f"{sum(record.parameters.values()):,}", "", style="bold")
    return table


def short(number: float) -> str:
    """Return a large number with three digits, such as 1.23 M."""
    for unit in ("", " k", " M", " G"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} T"
