"""Trained runs put to use: predictions for new inputs, evaluations, ensembles, and models that are merged of runs.

What belongs here needs the folders of finished runs, and never touches these runs. Contract: a `Predictor` is made of a
run's folder alone, wherever it was copied, and without the data that the run was trained on; nothing in a folder is
executed, and what a run needs of its author's code is said, not imported from beside it. What is made from runs leaves
a record that says so (`made_from`), in a folder named after the method and the runs.

In `combined` one result is made of several runs; `exporting` is the way to files that need nothing of mtlrun.
"""
