"""The keys of a config that all runs have, and the names that its tasks may have."""

import re
import unicodedata
from collections.abc import Sequence

from mtlrun.config.suggest import suggest

CONFIG_MODULE = "mtlrun.conf"

# The groups of conf/ that a run consists of, in the order in which they are shown.
GROUPS = ("dataset", "model", "backbone", "weighting", "optimizer", "scheduler", "trainer", "runtime")
# Chosen by name only: their keys are placed elsewhere in the config.
NAMING_GROUPS = ("experiment", "study", "task", "weighting/losses", "model@match_parameters")
OPTIONAL_KEYS = ("match_parameters", "found")
# How many values a task predicts: the keys that may be null for what the dataset knows, such as the labels of a table.
SIZE_KEYS = ("num_classes", "num_levels", "num_labels")
ROOT_KEYS = ("names", "seed", "tasks", *GROUPS)
# What the program fills in when a config is resolved.
FILLED_IN = {"names": "the names of the chosen options", "found": "what was found of the tasks in the data"}
# What a task cannot be called: names of the program, and of attributes of PyTorch's ModuleDict, which holds the heads.
_RESERVED = """
    shared weighting
    T_destination add_module apply bfloat16 buffers call_super_init children clear compile cpu cuda double dump_patches
    eval extra_repr float forward get_buffer get_extra_state get_parameter get_submodule half ipu items keys
    load_state_dict modules mtia named_buffers named_children named_modules named_parameters parameters pop
    register_backward_hook register_buffer register_forward_hook register_forward_pre_hook register_full_backward_hook
    register_full_backward_pre_hook register_load_state_dict_post_hook register_load_state_dict_pre_hook
    register_module register_parameter register_state_dict_post_hook register_state_dict_pre_hook requires_grad_
    set_extra_state set_submodule share_memory state_dict to to_empty train training type update values xpu zero_grad
"""
RESERVED = frozenset(_RESERVED.split())


def explain_task_name(name: str) -> str:
    """Return why a task cannot have this name, and what to write instead."""
    if re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII):
        reason = "the program, or PyTorch's ModuleDict, which holds the tasks' heads, has something else of this name"
    elif re.fullmatch(r"[^\W\d_]\w*", name):
        reason = "on the command line it has letters without accents only"
    else:
        reason = (
            "it has letters, digits and _ only, the first one a letter, since keys and parameters are named after it"
        )
    allowed = task_name(name)
    allowed = f"task_{allowed}" if allowed == name else allowed
    column = name if re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) else f'"{name}"'
    return (
        f"tasks.{name}: a task cannot have this name: {reason}; name it {allowed}, say, and name its column with "
        f"'+dataset.targets.{allowed}={column}'"
    )


def task_name(column: str) -> str:
    """Return a name for the task that predicts a column: its name, if a task may have it on the command line.

    >>> task_name("body mass (g)")
    'body_mass_g'
    """
    letters = unicodedata.normalize("NFKD", column.replace("ß", "ss")).encode("ascii", "ignore").decode()
    allowed = re.sub(r"\W+", "_", letters)
    allowed = allowed if allowed == column else allowed.strip("_")
    return (
        allowed
        if re.match(r"[A-Za-z]", allowed) and allowed not in RESERVED
        else f"task_{allowed.strip('_')}".rstrip("_")
    )


def unknown_task(name: str, known: Sequence[str]) -> str:
    """Return that there is no such task."""
    allowed = suggest(name, known, "the tasks are") if known else f"add it, as in +task@tasks.{name}=regression"
    return f"tasks.{name}: unknown task; {allowed}"


def how_to_add_task(name: str, value: object) -> str:
    """Return how a task is added, for a user who has set `tasks.<name>` to a value."""
    kind = value if isinstance(value, str) and value.isidentifier() else "regression"
    return f"tasks.{name}={value}: a task is added by +task@tasks.{name}={kind}"


def explain_removed(key: str, value: object) -> str | None:
    """Return what replaces a key that earlier versions had; None for any other key."""
    if key != "dataset.standardize_targets":
        return None
    tasks = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    named = " ".join(f"tasks.{task}.standardize=true" for task in tasks or ["<name>"])
    return (
        f"{key} is no longer a key: tasks learn standardized numbers by {named}, which is the default of "
        "task=regression, and their errors are in the unit of the data; leave it out"
    )
