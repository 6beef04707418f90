"""Tags of the curves that are about pairs of tasks: what writes and what reads metrics.jsonl agree on them here."""


def cosine_tag(task: str, other: str) -> str:
    """Return the tag of the cosine between two tasks' gradients; `task` comes first in the config."""
    return f"grad_cosine/{task}_{other}"


def affinity_tag(task: str, other: str) -> str:
    """Return the tag of the lookahead affinity: what a step on the loss of `task` does to that of `other`."""
    return f"affinity/{task}/{other}"
