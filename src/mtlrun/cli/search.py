"""mtlrun search ...: runs that Optuna chooses by the results of those before."""

from collections.abc import Sequence

_USAGE = """usage: mtlrun search <key>=<values> ... [hydra.sweeper.<key>=<value> ...]

  optimizer.lr='tag(log,interval(1e-4,1e-1))'  a number, on a logarithmic scale
  backbone.dropout='interval(0,0.5)'           a number
  backbone.width='range(0.5,2.5,0.5)'          one of equally spaced numbers
  trainer.batch_size='int(interval(16,64))'    a whole number
  weighting=equal,uncertainty                  a choice

keys of hydra.sweeper: trials, objectives, pruner, warmup, startup, seed; see docs/sweeps.md"""


def main(arguments: Sequence[str]) -> int:
    """Search; return the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    from mtlrun.cli.main import train_several

    return train_several(arguments, "hydra/sweeper=search")
