"""The words of a command line that cannot be meant as they stand: spaces around =, dashes before keys, bare names."""

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from mtlrun.config.options import shipped
from mtlrun.config.schema import GROUPS, NAMING_GROUPS, ROOT_KEYS
from mtlrun.config.suggest import suggest
from mtlrun.errors import ConfigError

_KEY = r"[+~]*[A-Za-z_][\w.@/]*"


def mend_words(arguments: Sequence[str], parser: argparse.ArgumentParser) -> tuple[list[str], dict[str, str]]:
    """Return the words as they must have been meant, and {meant: problem} for each that has to be written so.

    Args:
        arguments: of the command line.
        parser: Hydra's, which knows the options.
    """
    mended: list[str] = []
    problems: dict[str, str] = {}

    def mend(taken: str, meant: str, reason: str) -> None:
        mended.append(meant)
        problems[meant] = f"{taken}: {reason}; write {_quoted(meant)}"

    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        following = rest[0] if rest else ""
        is_value = bool(following) and "=" not in following and not following.startswith("-")
        if word.startswith("-"):
            action = _option(word, parser)
            if action is not None:
                mended.append(word)
                if "=" not in word and action.nargs is None and rest:
                    mended.append(rest.pop(0))
            elif re.fullmatch(rf"-+{_KEY}(=.*)?", word, re.DOTALL):
                key, separator, value = word.lstrip("-").partition("=")
                if separator:
                    mend(word, f"{key}={value}", "a key has no dashes")
                elif is_value and _is_key(key):
                    value = rest.pop(0)
                    mend(f"{word} {value}", f"{key}={value}", "a key has no dashes")
                else:
                    options = [name for name in parser._option_string_actions if name.startswith("--")]
                    problems[word] = f"{word}: there is no such option; {suggest(word, options, 'the options are')}"
            else:
                mended.append(word)
        elif spaced := re.fullmatch(rf"({_KEY})\s+=\s*(.*)", word, re.DOTALL):
            mend(word, f"{spaced[1]}={spaced[2]}", "no spaces stand around the =")
        elif re.fullmatch(_KEY, word) and following.startswith("="):
            taken = [word, rest.pop(0)]
            if taken[1] == "=" and rest and "=" not in rest[0] and not rest[0].startswith("-"):
                taken.append(rest.pop(0))
            mend(" ".join(taken), "".join(taken), "no spaces stand around the =")
        elif re.fullmatch(rf"{_KEY}=", word) and is_value:
            value = rest.pop(0)
            mend(f"{word} {value}", word + value, "no spaces stand around the =")
        elif "=" in word and word.endswith(",") and is_value:
            taken = [word]
            while taken[-1].endswith(",") and rest and "=" not in rest[0]:
                taken.append(rest.pop(0))
            mend(" ".join(taken), "".join(taken), "no spaces stand between the values")
        elif (colon := re.fullmatch(rf"({_KEY}):\s*(.*)", word)) and _is_key(colon[1]) and (colon[2] or is_value):
            value = colon[2] or rest.pop(0)
            mend(word if colon[2] else f"{word} {value}", f"{colon[1]}={value}", "a key has an = behind it")
        else:
            mended.append(word)
    return mended, problems


def join_problems(misspelled: Mapping[str, str], others: Sequence[str]) -> list[str]:
    """Return a line for each problem: those of `mend_words`, and others, which a misspelled word may have as well."""
    rest, joined = list(others), []
    for meant, problem in misspelled.items():
        same = [other for other in rest if other.startswith(f"{meant}: ")]
        rest = [other for other in rest if other not in same]
        reason = problem.rpartition("; write ")[0]
        joined += [f"{reason}; {other.removeprefix(f'{meant}: ')}" for other in same] or [problem]
    return joined + rest


def explain_bare_word(word: str) -> str | None:
    """Return what to write for a word that is the name of an option of a group; None if it is none."""
    groups = [group for group in GROUPS if word in shipped(group)]
    return f"{word}: not understood; write {' or '.join(f'{group}={word}' for group in groups)}" if groups else None


def check_config_dir(folder: str | Path) -> None:
    """Raise ConfigError unless the folder of the user's YAML, given by --config-dir, is one that has some."""
    if problem := find_problem_of_folder(folder):
        raise ConfigError(problem)


def find_problem_of_folder(folder: str | Path) -> str | None:
    """Return why a folder given by --config-dir has none of the user's YAML; None if it has."""
    expected = "name a folder that has <group>/<name>.yaml, such as dataset/mine.yaml"
    reason = None
    try:
        if not str(folder):
            reason = "no folder is named"
        elif not os.path.lexists(folder):
            reason = f"there is no such folder, as seen from {Path.cwd()}"
        elif not Path(folder).is_dir():
            reason = "this is no folder"
        elif not any(path.suffix == ".yaml" for path in Path(folder).rglob("*")):
            reason = "there is no YAML file in it"
    except OSError as error:
        reason = f"it cannot be looked at ({error.strerror})"
    return None if reason is None else f"--config-dir={folder}: {reason}; {expected}"


def choose_foreign(overrides: Sequence[str]) -> bool:
    """Return True if overrides choose an option that mtlrun does not ship: the user's YAML has it, or should."""
    for override in overrides:
        key, _, names = override.lstrip("+").partition("=")
        group = key.partition("@")[0]
        chooses = group in (*GROUPS, *NAMING_GROUPS) or "/" in group
        if chooses and not {*names.split(",")} <= {*shipped(group)}:
            return True
    return False


def raise_problems(parser: argparse.ArgumentParser, help_command: str = "mtlrun --help") -> argparse.ArgumentParser:
    """Let a parser raise ConfigError, where it would print how it is used and end the program; return it.

    Args:
        parser: which is changed.
        help_command: what shows its help.
    """

    def error(message: str) -> NoReturn:
        raise ConfigError(f"{message.removeprefix('argument ')}; see: {help_command}")

    parser.error = error  # type: ignore[method-assign]
    return parser


def _option(word: str, parser: argparse.ArgumentParser) -> Any:
    """Return the action of an option, which may be abbreviated as argparse allows; None if there is no such option."""
    known = parser._option_string_actions
    name = word.partition("=")[0]
    if name in known:
        return known[name]
    if name.startswith("--"):
        return next((action for option, action in known.items() if option.startswith(name)), None)
    together = [known.get(f"-{letter}") for letter in name[1:]]  # -rm is -r -m, and -cjob is -c job
    if "=" not in word and together and together[0] is not None:
        return together[0] if together[0].nargs is None else together[-1]
    return None


def _is_key(word: str) -> bool:
    root = re.split(r"[.@]", word.lstrip("+~"))[0]
    return root in (*ROOT_KEYS[1:], *NAMING_GROUPS, "match_parameters", "hydra")


def _quoted(word: str) -> str:
    return f"'{word}'" if re.search(r"[\s'\"$&|;<>(){}\[\]*?#!\\]", word) and "'" not in word else word
