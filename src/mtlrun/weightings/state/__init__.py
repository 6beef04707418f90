"""State that several weightings keep between steps, per task.

Here: modules whose buffers hold K numbers or K vectors, and how they are updated if only some tasks are active.
Not here: state of one method (in its file), or solvers, which keep none (`weightings.solvers`).

Contract: all of it is in `state_dict`, so that a run that is continued equals one that never stopped; a task without a
loss in a step keeps its state.
"""
