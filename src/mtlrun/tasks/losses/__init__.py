"""Parts that the losses of several task kinds are made of.

Here: the focal loss, class weights, sample weights, and the matching, loss and decoding of boxes.
Not here: a loss that is one call to PyTorch (in the task's file), or weights of tasks (`weightings`).

Contract: pure functions of predictions and targets, differentiable in the predictions, that never wait for a GPU unless
their docstring says so.
"""
