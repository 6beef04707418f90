"""Training: from the parts of a run to a trained model.

Here: `Trainer` with the loop and the step, and beside it evaluation, guard, selection, checkpoints, schedules and the
observers that log. Not here: how task losses become gradients (`gradients`), how parts are built (`setup`), and the
identity, folder and record of a run (`records`, `runs`).

Contract: last.pt holds all that changes during training, so that a run that is stopped and continued equals one that
never stopped, bit by bit. A step with a loss or gradient that is not finite is never applied. Observers are notified of
everything and decide nothing.
"""
