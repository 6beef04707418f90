"""Several seeds of one config, trained in one process: a step of all of them at once, by `torch.func`.

Here: stacked models and optimizers, the joint step, and how it is chosen. Not here: the runs (`runs/together.py`) and
what is refused (`setup/together.py`).

Contract: after each step every trainer is as if it had made the step itself, up to rounding. Parameters, buffers and
the optimizer's moments of each are views of stacked tensors, so that evaluation, selection and checkpoints of a trainer
know nothing of the others.
"""
