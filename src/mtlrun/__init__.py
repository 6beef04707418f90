"""mtlrun: train multi-task models, with any sharing architecture and weighting method, and compare them honestly.

    record = mtlrun.train(model="mmoe", weighting="uncertainty")     the run of a command line
    model = mtlrun.load("outputs/runs/...")                          predictions of its model
    table = mtlrun.compare("outputs")                                all runs, as a table of pandas
    balance = mtlrun.weighting("cagrad", c=0.4)                      for a training loop of one's own

`compose` makes a config of words, and `run` trains it; `backward` is the engine below `weighting`; `component` marks a
function that a config may name. docs/library.md has more. Importing the package itself imports nothing else, PyTorch
neither.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING

from mtlrun.lazy import lazy_exports

if TYPE_CHECKING:
    from mtlrun.config.compose import compose as compose
    from mtlrun.config.targets import component as component
    from mtlrun.gradients import backward as backward
    from mtlrun.library.balancing import weighting as weighting
    from mtlrun.library.loading import load as load
    from mtlrun.library.tables import compare as compare
    from mtlrun.library.training import train as train
    from mtlrun.runs.run import run as run
else:
    __all__, __getattr__, __dir__ = lazy_exports(__name__)

__version__ = version("mtlrun")
