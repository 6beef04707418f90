"""The screen: what is trained, its progress, and a line for each evaluation."""

import logging
import time
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from mtlrun.config.schema import FILLED_IN
from mtlrun.records.display import as_shown, format_value, print_table
from mtlrun.records.record import Record
from mtlrun.records.text_table import TextTable
from mtlrun.training.observers.base import Metrics, Observer

logger = logging.getLogger("mtlrun.screen")

_PER_SECOND = 4  # how often the progress is drawn


class EpochLines(Observer):
    """A line of the log for each evaluation: the mean losses of the epoch so far, and the main metrics."""

    def __init__(self) -> None:
        self._main_metrics: Mapping[str, str] = {}
        self._evaluation_name, self._shows_selected = "val", True
        self._losses: list[str] = []

    def started(self, record: Record, step: int) -> None:
        self._main_metrics = record.main_metrics
        if record.protocol == "legacy":
            self._evaluation_name, self._shows_selected = "test-selected", False

    def averaged(self, step: int, epoch: int, losses: Mapping[str, float]) -> None:
        self._losses = list_losses(losses)

    def validated(self, step: int, epoch: int, metrics: Metrics, selected: bool) -> None:
        evaluation = f"{self._evaluation_name} {', '.join(list_metrics(metrics, self._main_metrics))}"
        values = "; ".join([", ".join(self._losses), evaluation] if self._losses else [evaluation])
        mark = " (selected)" if selected and self._shows_selected else ""
        logger.info("epoch %d, step %d: %s%s", epoch, step, values, mark)


class Screen(Observer):
    """Shows the config, the parameter groups and, on a terminal, the progress.

    Args:
        console: where they are shown.
        quiet: show nothing.
    """

    def __init__(self, console: Console, *, quiet: bool) -> None:
        self._console = console
        self._quiet = quiet
        self._live: Live | None = None
        self._progress = ProgressLine(0, 0)
        self._main_metrics: Mapping[str, str] = {}

    def started(self, record: Record, step: int) -> None:
        if self._quiet:
            return
        self._console.print(config_tree(record))
        print_table(self._console, group_table(record), "parameter groups")
        print_table(self._console, sample_table(record), "samples")
        self._console.print(f"{short(record.macs)} MACs per sample, all tasks together", style="dim")
        if self._console.is_terminal:
            self._main_metrics = record.main_metrics
            self._progress = ProgressLine(step, record.total_steps)
            self._live = Live(self._progress, console=self._console, transient=True, refresh_per_second=_PER_SECOND)
            self._live.start()

    def trained(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        losses = {tag.split("/")[1]: value for tag, value in values.items() if tag.startswith("train/")}
        self._progress.step, self._progress.losses = step, list_losses(losses)

    def validated(self, step: int, epoch: int, metrics: Metrics, selected: bool) -> None:
        self._progress.step, self._progress.metrics = step, list_metrics(metrics, self._main_metrics)

    def closed(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


class ProgressLine:
    """One line on a terminal: step and time always, a bar and the last losses and metrics as far as there is room.

    Args:
        step: that the training starts at.
        total: number of steps.
    """

    def __init__(self, step: int, total: int) -> None:
        self.step, self.total = step, total
        self.losses: Sequence[str] = ()
        self.metrics: Sequence[str] = ()
        self._started, self._first_step = time.monotonic(), step

    def __rich_console__(self, console: Console, options: Any) -> Any:
        """Yield what Rich is to show in a line of `options.max_width` characters."""
        width = options.max_width
        words = f"step {self.step}/{self.total}  {self._time()}"
        bar = 20 if width >= 100 else 10 if width >= 60 else 0
        room = width - len(words) - (bar + 2 if bar else 0) - 2
        line = Table.grid(padding=(0, 2, 0, 0))
        cells: list[Any] = [Text(words, no_wrap=True, overflow="crop")]
        if bar:
            cells.append(ProgressBar(max(self.total, 1), self.step, width=bar))
        values = _fit([as_shown(console, value) for value in [*self.losses, *self.metrics]], room)
        if values:
            cells.append(Text(values, no_wrap=True))
        line.add_row(*cells)
        yield line

    def _time(self) -> str:
        elapsed, made = time.monotonic() - self._started, self.step - self._first_step
        left = _clock(elapsed / made * (self.total - self.step)) if made else "-:--:--"
        return f"{_clock(elapsed)}, {left} left"


def _fit(items: Sequence[str], room: int) -> str:
    """Return as many of the items as there is room for, and how many more there are."""
    for shown in range(len(items), 0, -1):
        more = f", +{len(items) - shown} more" if shown < len(items) else ""
        text = ", ".join(items[:shown]) + more
        if len(text) <= room:
            return text
    return ""


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}"


def list_losses(losses: Mapping[str, float]) -> list[str]:
    """Return the losses of the tasks in words; the first one says that they are losses."""
    return [f"{'' if index else 'loss '}{task} {loss:.3f}" for index, (task, loss) in enumerate(losses.items())]


def list_metrics(metrics: Metrics, main_metrics: Mapping[str, str]) -> list[str]:
    """Return the main metrics of the tasks in words; the loss where a metric is not finite."""
    shown = {task: metric if isfinite(metrics[task][metric]) else "loss" for task, metric in main_metrics.items()}
    return [f"{task} {metric} {format_value(metrics[task][metric])}" for task, metric in shown.items()]


def config_tree(record: Record) -> Tree:
    """Return the resolved config, a branch per group."""
    tree = Tree(Text(record.run_id, style="bold"))
    names = record.config["names"]
    for group, content in record.config.items():
        if group in FILLED_IN:
            continue
        if group == "tasks":
            branch = tree.add(Text(group, style="cyan"))
            for task, options in content.items():
                branch.add(Text(f"{task}: {_inline(options)}"))
        else:
            label = f"{group}={names[group]}" if group in names else group
            value = _inline(content) if isinstance(content, Mapping) else str(content)
            tree.add(Text.assemble((label, "cyan"), f": {value}"))
    return tree


def _inline(options: Mapping[str, Any]) -> str:
    target = str(options.get("_target_", "")).rsplit(".", 1)[-1]
    arguments = []
    for key, value in options.items():
        if key not in ("_target_", "_partial_"):
            shown = _inline(value) if isinstance(value, Mapping) else "null" if value is None else value
            arguments.append(f"{key}={shown}")
    return f"{target}({', '.join(arguments)})" if target else ", ".join(arguments)


def sample_table(record: Record) -> TextTable:
    """Return the number of samples of each split, and of those labeled for a task that lacks some labels.

    With `trainer.limit_batches` also the number of samples that are used.
    """
    num_samples = [split["samples"] for split in record.splits.values()]
    available = [split.get("available", split["samples"]) for split in record.splits.values()]
    rows = {"all": available}
    if available != num_samples:
        rows["used"] = num_samples
    for task in record.main_metrics:
        counts = [split["labeled"].get(task, split["samples"]) for split in record.splits.values()]
        if counts != num_samples:
            rows[f"with {task}"] = counts
    return TextTable(["", *record.splits], [[name, *(f"{n:,}" for n in counts)] for name, counts in rows.items()])


def group_table(record: Record) -> TextTable:
    """Return the parameter groups with their learning rates; every parameter is in exactly one."""
    rows = [
        [name, f"{count:,}", f"{record.learning_rates[name]:g}" if name in record.learning_rates else "-"]
        for name, count in record.parameters.items()
    ]
    rows.append(["total", f"{sum(record.parameters.values()):,}"])
    return TextTable(["group", "parameters", "learning rate"], rows)


def short(number: float) -> str:
    """Return a large number with three digits, such as 1.23 M."""
    for unit in ("", " k", " M", " G"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:.3g} T"
