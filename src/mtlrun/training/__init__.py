"""From the parts of a run to trained weights.

Here: the loop and the step, evaluation, selection, checkpoints, optimizers and schedules, and the observers that log.
Not here: how task losses become gradients (`gradients`), or what a run is called and where its record lies (`records`,
`runs`).

Contract: the whole state is in `last.pt`, so that a run that is stopped and continued equals one that never stopped,
bit by bit. A step that is not finite is never applied. Observers see everything and decide nothing.
"""
