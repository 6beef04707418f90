"""Counting of whole numbers, such as classes."""

import torch
from torch import Tensor


def count_numbers(numbers: Tensor, size: int) -> Tensor:
    """Return how often each of the numbers 0 to `size` - 1 occurs, int64 [size].

    Nothing waits for a GPU, where `torch.bincount` reads the largest number first.

    Args:
        numbers: int64, of any shape, all of them in this range.
        size: how many different numbers there are.
    """
    numbers = numbers.flatten()
    if numbers.device.type == "cpu":
        return torch.bincount(numbers, minlength=size)
    return numbers.new_zeros(size).index_add_(0, numbers, numbers.new_ones(()).expand_as(numbers))
