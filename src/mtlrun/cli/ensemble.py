"""mtlrun ensemble <run> <run> ...: the test metrics of several finished runs together."""

from collections.abc import Callable, Sequence

from mtlrun.cli.combining import combine
from mtlrun.records.record import Record

METHODS = ("average", "vote", "stack", "bagging")
_EPILOG = """\
methods:
  average  the mean of probabilities, or of numbers in their unit; at each pixel, where there are maps
  vote     the class that most of the runs predict; a tie is decided by the mean probability
  stack    a small model of what the runs predict, fitted to the validation samples
  bagging  the average over runs that drew their training rows, as those of -m study=bagging

examples:
  mtlrun ensemble outputs/mystudy/hard-*
  mtlrun ensemble outputs/mystudy --method vote
  mtlrun compare outputs/mystudy

docs/ensembles.md says what the methods do, and what is in the record."""


def main(arguments: Sequence[str]) -> int:
    """Make an ensemble of finished runs, or show it if there is one; return the exit code."""
    return combine(
        arguments,
        "ensemble",
        "The test metrics of several finished runs together: what is predicted by all of them.",
        _EPILOG,
        folders="combined",
        methods=METHODS,
        load=_load,
    )


def _load() -> Callable[..., Record]:
    from mtlrun.deployment.combined.ensembles import ensemble

    return ensemble
