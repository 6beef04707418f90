"""Baselines: what simple predictors get on the test split, by the same metrics as the model.

Here: `compute_baselines`, and what it needs: the predictors (`predictors`), how long they take (`cost`), and their
results on disk (`cache`).
Not here: the constant predictions that skills are measured from, which know the split that they are evaluated on
(`training.constants`); baselines know the training split, and validation to choose by.

Contract: nothing here changes a run, and nothing depends on its model, seed, device or number of threads.
"""
