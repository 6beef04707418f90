"""mtlrun merge <run> <run> ...: one hard-sharing model from networks that were trained apart, without training."""

from collections.abc import Sequence

from mtlrun.cli.comparing import make_parser, parse
from mtlrun.cli.ensemble import add_options, show

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
    parser = make_parser(
        "merge",
        "One model of hard sharing, from single-task networks with the same initial weights; nothing is trained.",
        _EPILOG,
        folders="merged",
    )
    parser.add_argument("--method", choices=METHODS, default="average", help="how (default: average)")
    add_options(parser)
    if not arguments:
        parser.print_usage()
        return 0
    parsed = parse(parser, arguments)
    from mtlrun.cli.main import collect_garbage
    from mtlrun.deployment.combined.made_runs import choose_folder  # imports torch, as the next two
    from mtlrun.deployment.combined.members import find_members
    from mtlrun.deployment.combined.merged_models import merge

    collect_garbage()
    members = find_members(parsed.folders)
    folder = choose_folder("merge", parsed.method, members, parsed.name, parsed.out)
    show(merge(members, parsed.method, folder, device=parsed.device), folder, quiet=parsed.quiet)
    return 0
