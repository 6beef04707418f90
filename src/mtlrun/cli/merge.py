"""mtlrun merge <run> <run> ...: one hard-sharing model from networks that were trained apart, without training."""

from collections.abc import Callable, Sequence

from mtlrun.cli.combining import combine
from mtlrun.records.record import Record

METHODS = ("average", "task_arithmetic", "ties")
_EPILOG = """\
methods:
  average          the mean of the trunks' weights
  task_arithmetic  the initial weights, and lambda times the sum of what training changed
  ties             the same with trimmed changes of elected signs, averaged where they agree
Lambda is chosen on validation.

examples:
  mtlrun merge outputs/mystudy/single-equal-lr0.001-s0-*
  mtlrun merge outputs/left outputs/right --method ties
  mtlrun compare outputs/mystudy

docs/ensembles.md says which runs can be merged, and what is in the record."""


def main(arguments: Sequence[str]) -> int:
    """Merge the networks of finished runs, or show the result if there is one; return the exit code."""
    return combine(
        arguments,
        "merge",
        "One model of hard sharing, from single-task networks with the same initial weights; nothing is trained.",
        _EPILOG,
        folders="merged",
        methods=METHODS,
        load=_load,
    )


def _load() -> Callable[..., Record]:
    from mtlrun.deployment.combined.merged_models import merge

    return merge
