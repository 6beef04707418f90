"""The Python API: what a notebook, or a training loop of one's own, calls; `import mtlrun` offers all of it.

Here: `weighting`, which makes a `LossBalancer` for a loop of one's own; `train`, the run of a command line; `load`, the
model of a finished run; `compare`, all runs as a table of pandas. Not here: anything that computes, since each of
these is a door to a room below.

Contract: the words of the command line mean the same here, with the same checks, and whatever is wrong is an exception
of `mtlrun.errors`. Nothing is imported before it is used.
"""
