"""mtlrun: train multi-task models, with any sharing architecture and weighting method, and compare them honestly.

>>> from mtlrun import compose, run
>>> record = run(compose(["model=mmoe", "weighting=uncertainty"]))

`backward` is what a training loop of one's own may call instead of `loss.backward()`, and `component` marks a function
that a config may name. Importing the package itself imports nothing else, PyTorch neither.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING

from mtlrun.lazy import lazy_exports

if TYPE_CHECKING:
    from mtlrun.config.compose import compose as compose
    from mtlrun.config.targets import component as component
    from mtlrun.gradients import backward as backward
    from mtlrun.library.balancing import weighting as weighting
    from mtlrun.library.tables import compare as compare
    from mtlrun.library.training import train as train
    from mtlrun.runs.run import run as run
else:
    __all__, __getattr__, __dir__ = lazy_exports(__name__)

__version__ = version("mtlrun")
