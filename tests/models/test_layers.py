"""Resizing of maps, against PyTorch's functions."""

import itertools

import pytest
import torch
from torch.nn.functional import adaptive_avg_pool2d, interpolate
from torch.utils._python_dispatch import TorchDispatchMode

from mtlrun.models.blocks.layers import resize

BEFORE = [(1, 1), (4, 6), (5, 9), (12, 9), (13, 7)]
AFTER = [(1, 1), (2, 3), (3, 5), (4, 6), (5, 7), (12, 9), (17, 20)]


@pytest.fixture(params=[False, True], ids=["plain", "deterministic"])
def deterministic(request):
    torch.use_deterministic_algorithms(request.param)
    yield request.param
    torch.use_deterministic_algorithms(False)


class Seen(TorchDispatchMode):
    """The names of the operations in a block."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func._schema.name)
        return func(*args, **(kwargs or {}))


def test_maps_are_averaged_or_interpolated(deterministic):
    for before, after in itertools.product(BEFORE, AFTER):
        maps = torch.randn(2, 3, *before, dtype=torch.float64, requires_grad=True)
        wanted = torch.randn(2, 3, *after, dtype=torch.float64)
        if before[0] >= after[0] and before[1] >= after[1]:
            expected = adaptive_avg_pool2d(maps, after)
        else:
            expected = interpolate(maps, after, mode="bilinear", align_corners=False)
        with Seen() as seen:
            found = resize(maps, after)
            (grad,) = torch.autograd.grad(found, maps, wanted, retain_graph=True)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(grad, torch.autograd.grad(expected, maps, wanted)[0])
        if deterministic:
            assert not any("adaptive" in name or "upsample" in name for name in seen.names), (before, after)


def test_the_matrices_keep_the_type_of_the_maps():
    torch.use_deterministic_algorithms(True)
    try:
        for size in ((3, 4), (9, 9)):
            assert resize(torch.ones(1, 1, 7, 7, dtype=torch.bfloat16), size).dtype == torch.bfloat16
            torch.testing.assert_close(resize(torch.ones(1, 1, 7, 7), size), torch.ones(1, 1, *size))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.gpu
def test_gradients_are_allowed_in_deterministic_mode():
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    torch.use_deterministic_algorithms(True)
    try:
        for before, after in itertools.product(BEFORE, AFTER):
            maps = torch.randn(2, 3, *before, device="cuda", requires_grad=True)
            resize(maps, after).sum().backward()
            assert maps.grad.isfinite().all()
    finally:
        torch.use_deterministic_algorithms(False)
