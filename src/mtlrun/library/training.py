"""The run of a command line, from Python."""

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtlrun.cli.show import show
from mtlrun.config.aliases import canonical
from mtlrun.config.compose import compose
from mtlrun.errors import ConfigError
from mtlrun.records.display import make_console
from mtlrun.records.record import Record, finished_record

# A text that Hydra's grammar takes for a text without quotes.
_WORD = re.compile(r"[A-Za-z_/.][\w/.-]*")
# What is escaped in the name of a mapping, which cannot be quoted.
_SPECIAL = re.compile(r"[\\()\[\]{}:=, ]")
_NO_TEXTS = {"true", "false", "null", "nan", "inf"}


def train(*, overrides: Sequence[str] = (), config_dir: str | Path | None = None, **keys: Any) -> Record:
    """Train the run of a command line, or continue it, and return its record; progress and result are printed.

    It is the same run, in the same folder, as `mtlrun key=value ...`: whichever comes second finds it finished.

    >>> from mtlrun import train
    >>> record = train(dataset="kendall_toy", weighting="uncertainty", trainer={"epochs": 1, "baselines": False},
    ...                runtime={"quiet": True})  # doctest: +ELLIPSIS
    the run makes 1 step (1 epoch of 1 batch), and a network needs hundreds to learn anything; ...
    outputs/runs/hard-uncertainty-lr0.001-s0-kendall_toy-...: completed: test first rmse ..., second rmse ...
    >>> record.status
    'completed'

    Args:
        overrides: words as on the command line, which come first.
        config_dir: the folder of YAML of one's own, as given by `--config-dir`.
        keys: groups and keys of the config. `trainer={"epochs": 5}` is `trainer.epochs=5`, and so is
            `**{"trainer.epochs": 5}`. A text is a text, whatever characters it has.

    Raises:
        ConfigError, DataError: before anything is on disk; with all problems of the config.
        MtlrunError: whatever else ends a training early; see `mtlrun.runs.run.run`.
    """
    started = time.monotonic()
    words = [*overrides, *as_overrides(keys)]
    console = make_console()
    for note in canonical(words)[1]:
        console.print(note)
    config = compose(words, config_dir)
    record = finished_record(config)
    again = record is not None
    if record is None or record.lacks_baselines(config):
        from mtlrun.runs.run import run  # imports torch, which is not needed to show a finished run

        record = run(config, overrides=words, console=console, started=started)
    show(record, config, again=again)
    return record


def as_overrides(keys: Mapping[str, Any]) -> list[str]:
    """Return keys with their values as words of a command line; a mapping as one word for each of its keys.

    >>> as_overrides({"model": "hard", "trainer": {"epochs": 5}, "dataset.path": "my data.csv"})
    ['model=hard', 'trainer.epochs=5', "dataset.path='my data.csv'"]

    Raises:
        ConfigError: a value is none that a config can hold.
    """
    flat: dict[str, Any] = {}
    for key, value in keys.items():
        below = value if isinstance(value, Mapping) and "." not in key and value else {"": value}
        flat |= {f"{key}.{name}" if name else key: item for name, item in below.items()}
    return [f"{key}={_word(key, value)}" for key, value in flat.items()]


def _word(key: str, value: Any) -> str:
    """Return a value in Hydra's grammar."""
    if value is None:
        return "null"
    if hasattr(value, "item") and not isinstance(value, str):  # a number of NumPy or PyTorch
        value = value.item()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, str | Path):
        return _text(str(value))
    if isinstance(value, Mapping):
        pairs = [(_SPECIAL.sub(r"\\\g<0>", str(name)), _word(key, item)) for name, item in value.items()]
        return "{" + ",".join(f"{name}:{word}" for name, word in pairs) + "}"
    if isinstance(value, list | tuple):
        return f"[{','.join(_word(key, item) for item in value)}]"
    raise ConfigError(f"{key} must be a number, a text, a list, a mapping or None, found {type(value).__name__}")


def _text(text: str) -> str:
    """Return a text in quotes where Hydra would read something else."""
    if _WORD.fullmatch(text) and text.lower() not in _NO_TEXTS:
        return text
    escaped = re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + (r"\'" if found[2] else ""), text)
    return f"'{escaped}'"
