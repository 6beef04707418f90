"""Runs: one run from start to record, and from its folder back to its model.

Here: `run()`, the page to read first; the log file; signals; the record; `restore()`. Not here: how the parts of a run
are built (`setup`) or trained (`training`).

Contract: a finished run is returned as it is; an interrupted, killed or failed one is continued from its last
checkpoint. Whatever ends a run, its record holds the reason.
"""
