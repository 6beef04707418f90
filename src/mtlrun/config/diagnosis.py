"""Diagnosis of a command line that Hydra refused: each override is tried separately, and every problem is named.

Hydra stops at the first problem. This is slow, and runs only after a composition has failed.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mtlrun.config.schema import GROUPS, NAMING_GROUPS, ROOT_KEYS
from mtlrun.config.suggest import suggest

# Keys that choose an option; all others set a value.
_CHOOSABLE = (*GROUPS, *NAMING_GROUPS)

Compose = Callable[[Sequence[str]], DictConfig]


def diagnose(error: Exception, overrides: Sequence[str], compose: Compose) -> tuple[list[str], list[str]]:
    """Find the overrides that make a composition fail.

    Args:
        error: the exception that Hydra raised.
        overrides: the user's overrides.
        compose: composes a list of overrides as Hydra would, and raises Hydra's exceptions.

    Returns:
        One sentence per problem (the message of `error` if no single override causes it), and the valid overrides.
    """
    problems: list[str] = []
    parsed: list[Override] = []
    for text in overrides:
        try:
            parsed.append(OverridesParser.create().parse_override(text))
        except HydraException:
            problems.append(_unreadable(text))
    sound, option_problems = _try_options(parsed, compose)
    problems += option_problems
    with contextlib.suppress(HydraException, OmegaConfBaseException):
        more_sound, value_problems = _try_values(parsed, sound, compose)
        sound += more_sound
        problems += value_problems
    return problems or [_first_line(error)], sound


def _unreadable(text: str) -> str:
    if "=" not in text:
        return f"{text}: not understood; write key=value (see: mtlrun --help)"
    return f"{text}: not understood; a value with spaces, commas, brackets or colons must be quoted: key='\"a: b\"'"


def _single(override: Override) -> Iterator[str]:
    """Yield the override once for each value that it sweeps over, as in the runs of a sweep."""
    line = override.input_line or ""
    if not override.is_sweep_override():
        yield line
        return
    key = line.split("=", 1)[0]
    with contextlib.suppress(HydraException):  # a sweep over a sampler has no values to enumerate
        yield from (f"{key}={value}" for value in override.sweep_string_iterator())


def _try_options(parsed: Sequence[Override], compose: Compose) -> tuple[list[str], list[str]]:
    """Compose once with each chosen option of a group; return the valid choices, and the problems."""
    sound, problems = [], []
    for override in parsed:
        group = override.key_or_group
        if group not in _CHOOSABLE or override.is_delete():
            continue
        for text in _single(override):
            try:
                compose([text])
                sound.append(text)
            except (HydraException, OmegaConfBaseException) as error:
                problems.append(_explain_option(text, group, error))
    return sound, problems


def _explain_option(text: str, group: str, error: Exception) -> str:
    options = re.search(r"Available options in '[^']*':\n((?:\t.*\n?)+)", str(error))
    if not options:
        return f"{text}: {_first_line(error)}"
    names = [line.strip() for line in options.group(1).splitlines()]
    names = [name for name in names if not name.startswith("_")]  # keys that options share; not an option
    chosen = text.split("=", 1)[-1]
    text, group = text.split("@")[-1], group.split("@")[0]
    return f"{text}: there is no {group} named '{chosen}'; {suggest(chosen, names, 'available')}"


def _try_values(parsed: Sequence[Override], choices: Sequence[str], compose: Compose) -> tuple[list[str], list[str]]:
    """Try every other override separately, on top of these choices; return the valid ones, and the problems."""
    swept = {item.key_or_group for item in parsed if item.is_sweep_override() and item.key_or_group in _CHOOSABLE}
    # Like Hydra: overrides outside the sweep apply to the groups' defaults, before any option of the sweep is chosen.
    fixed = [text for text in choices if text.split("=", 1)[0] not in swept]
    last = {text.split("=", 1)[0]: text for text in choices}
    base = compose(fixed)
    sound, problems = [], []
    for override in parsed:
        if override.key_or_group in _CHOOSABLE and not override.is_delete():
            continue
        beneath = list(last.values()) if override.is_sweep_override() else fixed
        for text in _single(override):
            try:
                compose([*beneath, text])
                sound.append(text)
            except (HydraException, OmegaConfBaseException) as error:
                problem = _explain_key(text, override, base, error)
                if override.key_or_group.split(".")[0] in swept:
                    problem += f"; this is tried on the default before the sweep's own options: write ++{text}"
                problems.append(problem)
    return sound, problems


def _explain_key(text: str, override: Override, base: DictConfig, error: Exception) -> str:
    """Follow the key through the config to the first unknown name."""
    key = override.key_or_group
    node: Any = DictConfig({name: value for name, value in base.items_ex(resolve=False) if name != "hydra"})
    passed: list[str] = []
    for name in key.split("."):
        if not isinstance(node, Mapping | DictConfig) or name not in node:
            where = ".".join(passed)
            if not passed:
                return f"{text}: unknown key '{name}'; {suggest(name, ROOT_KEYS[1:])}"
            if not isinstance(node, Mapping | DictConfig):
                return f"{text}: {where} is a value and has no key '{name}'"
            names = [str(item) for item in node if item != "_target_"]
            return f"{text}: {where} has no key '{name}'; {suggest(name, names)}{_option_hint(where, base)}"
        passed.append(name)
        node = OmegaConf.select(node, name) if isinstance(node, DictConfig) else node[name]
    value = override.value()
    if isinstance(node, DictConfig) and isinstance(value, dict):
        for name in value:
            if name not in node:  # Hydra only lets a mapping change existing keys
                return f"{text}: {key} has no key '{name}' yet; add it as in +{key}.{name}=..."
    return f"{text}: {_first_line(error)}"


def _option_hint(where: str, base: DictConfig) -> str:
    """Return the chosen option, since a key may belong to another one: `weighting.c` is cagrad's."""
    group = where.split(".")[0]
    chosen = base.hydra.runtime.choices.get(group) if group in GROUPS else None
    return f" (with {group}={chosen})" if chosen else ""


def _first_line(error: BaseException) -> str:
    cause = error.__cause__ if error.__cause__ is not None else error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
