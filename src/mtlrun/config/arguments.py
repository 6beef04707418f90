"""The words of a command line, made readable for Hydra: options before overrides, and quotes where it needs them."""

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from mtlrun.config.words import raise_problems
from mtlrun.errors import ConfigError

# An item of a value. Hydra's grammar has no unquoted form for one with a ~, or with a letter that is not ASCII.
_ITEM = re.compile(r"""[^,\[\]{}:"'()=\s][^,\[\]{}:"'()=]*""")
_QUOTED = re.compile(r"""("(?:\\.|[^"])*"|'(?:\\.|[^'])*')""")
# What may begin a value that is more than one text, or is quoted already.
_STRUCTURED = ("[", "{", '"', "'", "(", "$")
# Options of Hydra's that mtlrun does not have, and why.
_REFUSED = {
    "--experimental-rerun": "it runs what a pickle file contains; the command of a run is in its record.json",
    "--config-path": "mtlrun has one root config; your options go to a folder given by --config-dir",
    "--config-name": "mtlrun has one root config; name yours experiment/<name>.yaml in a folder given by --config-dir",
}
_HOME = re.compile(r"~[\w.-]*/")


def sort_arguments(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> list[str]:
    """Return the arguments with Hydra's options before the overrides, as its parser needs them.

    Raises:
        ConfigError: an option lacks its value, or mtlrun does not have it.
    """
    parsed = raise_problems(parser).parse_intermixed_args(list(arguments))
    if problems := [f"{option}: {reason}" for option, reason in _REFUSED.items() if _given(parsed, option) is not None]:
        raise ConfigError(problems)
    if parsed.config_dir is not None:
        parsed.config_dir = expand_home(parsed.config_dir)
    options: list[str] = []
    for action in parser._actions:
        value = vars(parsed).get(action.dest)
        if not action.option_strings or value is None or value is False:
            continue
        options.append(action.option_strings[0] if value is True else f"{action.option_strings[0]}={value}")
    return options + quote_overrides(parsed.overrides)


def _given(parsed: argparse.Namespace, option: str) -> Any:
    return getattr(parsed, option.lstrip("-").replace("-", "_"), None)


def quote_overrides(overrides: Sequence[str]) -> list[str]:
    """Return the overrides with quotes around texts such as ~/data.csv; what cannot be mended is left as it is."""
    return [override if _is_readable(override) else _quote(override) for override in overrides]


def sweeps(overrides: Sequence[str], sweeper: Mapping[str, Any]) -> bool:
    """Return True if Hydra makes several runs of the overrides, or of the keys that a study or experiment has it sweep.

    Args:
        overrides: of the command line.
        sweeper: the node `hydra.sweeper`; of any but Hydra's basic one nothing is known, and it may make several runs.
    """
    if not str(sweeper.get("_target_")).endswith(".BasicSweeper"):
        return True
    parser = OverridesParser.create()
    swept = [*overrides, *(f"{key}={value}" for key, value in (sweeper.get("params") or {}).items())]
    return any(parser.parse_override(override).is_sweep_override() for override in swept)


def expand_home(value: Any) -> Any:
    """Return a value of a config with the user's folder in place of a `~` that begins a path, as a shell would."""
    return os.path.expanduser(value) if isinstance(value, str) and _HOME.match(value) else value


def as_plain(value: Any) -> Any:
    """Return plain containers with every key as a text, which YAML may take for a number, and ~ expanded in paths."""
    if isinstance(value, dict):
        return {str(key): as_plain(item) for key, item in value.items()}
    return [as_plain(item) for item in value] if isinstance(value, list) else expand_home(value)


def _is_readable(override: str) -> bool:
    try:
        OverridesParser.create().parse_override(override)
    except HydraException:
        return False
    return True


def _quote(override: str) -> str:
    key, separator, value = override.partition("=")
    if not separator:
        return override
    parts = _QUOTED.split(value)  # every second one is quoted
    parts[::2] = [_ITEM.sub(lambda found: _quote_foreign(found[0]), part) for part in parts[::2]]
    candidates = [f"{key}={''.join(parts)}"]
    if not value.startswith(_STRUCTURED) and not re.search(r"""["'\\,]""", value):
        candidates.append(f'{key}="{value}"')
    return next((candidate for candidate in candidates if _is_readable(candidate)), override)


def _quote_foreign(text: str) -> str:
    stripped = text.rstrip()
    if ("~" not in stripped and stripped.isascii()) or "\\" in stripped:
        return text
    return f'"{stripped}"' + text[len(stripped) :]
