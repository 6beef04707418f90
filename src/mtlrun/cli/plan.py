"""mtlrun plan -m ...: the runs of a sweep, what is done already, what is refused, and an estimate of time and disk."""

from collections.abc import Sequence

_USAGE = """usage: mtlrun plan -m <the words of a sweep>
       mtlrun plan search <the words of a search>"""


def main(arguments: Sequence[str]) -> int:
    """Print the plan of a sweep or of a search; return the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    from mtlrun.cli.main import train_several

    if arguments[0] == "search":
        return train_several(arguments[1:], "hydra/sweeper=search", "hydra/launcher=plan")
    return train_several(arguments, "hydra/launcher=plan")
