"""mtlrun: train multi-task models, with any sharing architecture and weighting method, and compare them honestly."""

from importlib.metadata import version

__version__ = version("mtlrun")
