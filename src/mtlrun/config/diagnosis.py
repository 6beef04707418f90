"""Diagnosis of a command line that Hydra refused: each override is tried separately, and every problem is named.

Hydra stops at the first problem. This is slow, and runs only after a composition has failed.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mtlrun.config.options import shipped
from mtlrun.config.places import PLUGINS, hint_at_places, keys_of_option, unknown_root_key, usual_name
from mtlrun.config.schema import (
    GROUPS,
    NAMING_GROUPS,
    explain_removed,
    explain_task_name,
    how_to_add_task,
    unknown_task,
)
from mtlrun.config.suggest import suggest
from mtlrun.config.words import explain_bare_word

# Keys that choose an option; all others set a value.
_CHOOSABLE = (*GROUPS, *NAMING_GROUPS)

Compose = Callable[[Sequence[str]], DictConfig]


@dataclass
class Diagnosis:
    """What is wrong with a command line.

    Args:
        problems: one sentence each.
        sound: the valid overrides.
        lost: the keys, or groups, whose overrides cannot be used, so that the config lacks what they would set.
        swept: True if an override has several values.
    """

    problems: list[str] = field(default_factory=list)
    sound: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    swept: bool = False

    def independent(self, problems: Sequence[str]) -> list[str]:
        """Return the problems that the lost overrides cannot be the reason of.

        Without one of a group, nothing is known of the whole group; without one of the data, nor of what is read from
        files, and of the networks, which take their sizes from the data.
        """
        roots = {key.split(".")[0] for key in self.lost}
        if not roots <= {*GROUPS, "tasks", "seed"}:  # an experiment may set anything
            return []
        if roots & {"dataset", "tasks"}:
            others = "|".join({*GROUPS, "tasks", "seed"} - roots - {"dataset", "tasks", "backbone", "model"})
            return [problem for problem in problems if re.match(rf"({others})\b|\w+: unknown key", problem)]
        return [problem for problem in problems if re.split(r"\W", problem, maxsplit=1)[0] not in roots]

    def depends_on_lost(self, key: str) -> bool:
        """Return True if a key may be one that a lost override would have made known."""
        parents = [*self.lost, *(["tasks"] if "dataset" in self.lost else [])]
        anything = any(name in ("experiment", "study") for name in self.lost)
        return anything or any(key == parent or key.startswith(f"{parent}.") for parent in parents)


def diagnose(overrides: Sequence[str], compose: Compose, *, sweeping: bool = False) -> Diagnosis:
    """Find the overrides that make a composition fail.

    Args:
        overrides: the user's overrides.
        compose: composes a list of overrides as Hydra would, and raises Hydra's exceptions.
        sweeping: whether overrides may have several values.

    Returns:
        The problems, none if no single override causes one, and what is sound.
    """
    found = Diagnosis()
    parsed: list[Override] = []
    for text in overrides:
        try:
            parsed.append(OverridesParser.create().parse_override(text))
        except HydraException:
            found.problems.append(_unreadable(text))
            found.lost.append(_key(text))
    _try_options(parsed, compose, found)
    with contextlib.suppress(HydraException, OmegaConfBaseException):
        base = compose([text for text in found.sound if "," not in text])
        sweeping = sweeping or base.hydra.mode == RunMode.MULTIRUN
    swept = [override for override in parsed if override.is_sweep_override()]
    found.swept = bool(swept)
    if not sweeping:
        found.problems += [_missing_sweep(override) for override in swept]
    with contextlib.suppress(HydraException, OmegaConfBaseException):
        _try_values(parsed, compose, found)
    return found


def _key(text: str) -> str:
    """Return the place in the config that an override would set: `tasks.y` for `+task@tasks.y=regression`."""
    return text.lstrip("+~").partition("=")[0].rpartition("@")[2]


def _unreadable(text: str) -> str:
    key, separator, value = text.partition("=")
    if not separator:
        return explain_bare_word(text) or f"{text}: not understood; write key=value (see: mtlrun --help)"
    place = _key(text)
    if place.startswith("tasks.") and not re.fullmatch(r"[\w.]+", place, re.ASCII):
        return explain_task_name(place.removeprefix("tasks.").split(".")[0])
    if not re.fullmatch(r"[\w.@/+~-]+", key, re.ASCII):
        return f"{text}: not understood; on the command line, a key has letters without accents, digits, _ and - only"
    without_comma = re.sub(r",\s*(?=[\])}])", "", value)
    if without_comma != value:
        return f"{text}: not understood; nothing stands between the last comma and the bracket: {key}={without_comma}"
    if any(value.count(opening) != value.count(closing) for opening, closing in ("[]", "{}", "()")):
        return f"{text}: not understood; a bracket is opened and not closed, or closed and not opened"
    return f"{text}: not understood; a value with spaces, commas, brackets or colons must be quoted: key='\"a: b\"'"


def _missing_sweep(override: Override) -> str:
    text = (override.input_line or "").lstrip("+")
    key, _, value = text.partition("=")
    quoted = f"; if it is one text, quote it: {key}='\"{value}\"'" if '"' not in value and "'" not in value else ""
    listed = (
        f"; if it is a list, write '{key}=[{value}]'" if "." in key and "'" not in value and "(" not in value else ""
    )
    return f"{text}: several values are a sweep, a run for each: add -m{listed}{quoted}"


def values_of(override: Override) -> Iterator[str]:
    """Yield the override once for each value that it sweeps over, as in the runs of a sweep."""
    line = override.input_line or ""
    if not override.is_sweep_override():
        yield line
        return
    key = line.split("=", 1)[0]
    with contextlib.suppress(HydraException):  # a sweep over a sampler has no values to enumerate
        yield from (f"{key}={value}" for value in override.sweep_string_iterator())


def _try_options(parsed: Sequence[Override], compose: Compose, found: Diagnosis) -> None:
    """Compose once with each chosen option of a group; note the valid choices, and the problems."""
    for override in parsed:
        group = override.key_or_group
        if not (group in _CHOOSABLE or "/" in group) or override.is_delete():
            continue
        for text in values_of(override):
            try:
                compose([text])
                found.sound.append(text)
            except (HydraException, OmegaConfBaseException) as error:
                found.problems.append(_explain_option(text, group, error))
                found.lost.append(_key(text).split("/")[0])


def _explain_option(text: str, group: str, error: Exception) -> str:
    options = re.search(r"Available options in '[^']*':\n((?:\t.*\n?)+)", str(error))
    value = text.partition("=")[2]
    name = group.split("@")[0]
    if value == "null":
        needed = f"every run needs one; {suggest('', shipped(group), 'available')}"
        return f"{text}: {needed if group in GROUPS else 'that is the default; leave it out'}"
    if value.startswith("[") and group in GROUPS:
        return f"{text}: {explain_list(group)}"
    if value.startswith("{"):
        return f"{text}: an option of {name} is chosen by its name, and its keys are set by {name}.<key>=<value>"
    if not options:
        return f"{text}: {first_line(error)}"
    names = [line.strip() for line in options.group(1).splitlines()]
    names = [name for name in names if not name.startswith("_")]  # keys that options share; not an option
    chosen = text.split("=", 1)[-1].strip('"')
    if group == "dataset" and re.search(r"\.(csv|tsv|txt|parquet|pq)(\.gz)?$", chosen):
        return f"{text}: a table of your own is dataset=csv dataset.path={chosen}"
    text, group = text.split("@")[-1], group.split("@")[0]
    return f"{text}: there is no {group} named '{chosen}'; {suggest(chosen, names, 'available')}"


def _try_values(parsed: Sequence[Override], compose: Compose, found: Diagnosis) -> None:
    """Try every other override separately, on top of the valid choices; note the valid ones, and the problems.

    An override below a lost one is not tried: whether its key exists is not known.
    """
    choices = list(found.sound)
    swept = {item.key_or_group for item in parsed if item.is_sweep_override() and item.key_or_group in _CHOOSABLE}
    # Like Hydra: overrides outside the sweep apply to the groups' defaults, before any option of the sweep is chosen.
    fixed = [text for text in choices if text.split("=", 1)[0] not in swept]
    last = {text.split("=", 1)[0]: text for text in choices}
    base = compose(fixed)
    for override in parsed:
        if (override.key_or_group in _CHOOSABLE or "/" in override.key_or_group) and not override.is_delete():
            continue
        if found.depends_on_lost(_key(override.input_line or "")):
            continue
        beneath = list(last.values()) if override.is_sweep_override() else fixed
        for text in values_of(override):
            try:
                compose([*beneath, text])
                found.sound.append(text)
            except (HydraException, OmegaConfBaseException) as error:
                problem = _explain_key(text, override, base, error)
                if re.fullmatch(r"tasks\.\w+", override.key_or_group):  # a task that it should have added
                    found.lost.append(override.key_or_group)
                if override.key_or_group.split(".")[0] in swept:
                    problem += f"; this is tried on the default before the sweep's own options: write ++{text}"
                found.problems.append(problem)


def _explain_key(text: str, override: Override, base: DictConfig, error: Exception) -> str:
    """Follow the key through the config to the first unknown name."""
    key = override.key_or_group
    node: Any = base
    passed: list[str] = []
    for name in key.split("."):
        if not isinstance(node, Mapping | DictConfig) or name not in node:
            where = ".".join(passed)
            if not passed:
                return f"{text}: {unknown_root_key(name, base.hydra.runtime.choices)}"
            if not isinstance(node, Mapping | DictConfig):
                return f"{text}: {where} is a value and has no key '{name}'"
            if where == "tasks" and key == f"tasks.{name}" and override.is_delete():
                if node and OmegaConf.select(base, "dataset.predict") is None:
                    return f"~{unknown_task(name, list(map(str, node)))}"
                return f"~{key}: there is no such key; what dataset.predict asks for is to be left out there"
            if where == "tasks" and key == f"tasks.{name}":
                return how_to_add_task(name, override.value())
            removed = explain_removed(key, override.value())
            if removed is not None:
                return f"{text}: {removed}"
            names = [str(item) for item in node if item != "_target_"]
            elsewhere = hint_at_places(name, base.hydra.runtime.choices, where) if where in GROUPS else ""
            allowed = suggest("" if elsewhere else usual_name(name), names)
            return f"{text}: {where} has no key '{name}'; {elsewhere}{allowed}{_option_hint(where, name, base)}"
        passed.append(name)
        node = OmegaConf.select(node, name) if isinstance(node, DictConfig) else node[name]
    value = override.value()
    if isinstance(node, DictConfig) and isinstance(value, dict):
        for name in value:
            if name not in node:  # Hydra only lets a mapping change existing keys
                return f"{text}: {key} has no key '{name}' yet; add it as in +{key}.{name}=..."
    if override.is_add():
        return f"{text}: there is a key {key} already; leave out the +"
    return f"{text}: {first_line(error)}"


def _option_hint(where: str, name: str, base: DictConfig) -> str:
    """Return the chosen option, since a key may belong to another one: `weighting.c` is cagrad's."""
    path = where.split(".")
    group = "/".join(path[:2]) if path[0] == "hydra" else path[0]
    chosen = base.hydra.runtime.choices.get(group) if group in (*GROUPS, *PLUGINS) else None
    default = f"; {group}=mtlrun has it" if group in PLUGINS and name in keys_of_option(group, "mtlrun") else ""
    return f" (with {group}={chosen}{default})" if chosen else ""


def explain_list(group: str) -> str:
    """Return that one option of a group is chosen, for a user who has given a list."""
    return f"one {group} is chosen, not a list; for a run with each, write -m {group}=<name>,<name>"


def first_line(error: BaseException) -> str:
    """Return the first line of what an exception, or the one behind it, says."""
    cause = error.__cause__ if error.__cause__ is not None else error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
