"""mtlrun plan -m ...: the runs of a sweep, what is done already, what is refused, and an estimate of time and disk."""

from collections.abc import Sequence

_USAGE = "usage: mtlrun plan -m <the words of a sweep>"


def main(arguments: Sequence[str]) -> int:
    """Print the plan of a sweep; return the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    from mtlrun.cli.main import train

    multirun = [] if {"-m", "--multirun"} & set(arguments) else ["-m"]
    return train([*multirun, *arguments, "hydra/launcher=plan"])
