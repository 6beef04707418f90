"""`mtlrun.weighting` and TorchJD, an implementation by others, make the same update of the same small network."""

import pytest
import torch
from small import Network, assert_same_grads, batch, losses_of

import mtlrun

torchjd = pytest.importorskip("torchjd")

# Name, keys, aggregator of TorchJD, factor by which ours is longer. docs/library.md maps the names.
PAIRS = {
    "equal": ({"reduction": "mean"}, lambda: torchjd.aggregation.Mean(), 1),
    "upgrad": ({}, lambda: torchjd.aggregation.UPGrad(), 1),
    "dualproj": ({}, lambda: torchjd.aggregation.DualProj(), 1),
    "config": ({}, lambda: torchjd.aggregation.ConFIG(), 1),
    "aligned_mtl": ({}, lambda: torchjd.aggregation.AlignedMTL(scale_mode="min"), 1),
    "mgda": ({"head_loss": "unweighted"}, lambda: torchjd.aggregation.MGDA(epsilon=1e-7, max_iters=3000), 1),
    "cagrad": ({"rescale": 0}, lambda: torchjd.aggregation.CAGrad(c=0.4), 3),
    "imtl_g": ({}, lambda: torchjd.aggregation.IMTLG(), 1),
    "fairgrad": ({"alpha": 1.0, "max_norm": None}, lambda: torchjd.aggregation.FairGrad(1.0), 1),
}


def test_a_small_network_gets_the_gradients_that_torchjd_gives():
    """Theirs takes shared and task-specific parameters by its `mtl_backward`, and trains heads by unweighted losses."""
    for name, (keys, make, factor) in PAIRS.items():
        ours, theirs = Network(), Network()
        features, losses = losses_of(theirs, batch(0))
        torchjd.autojac.mtl_backward(list(losses.values()), features=features)
        torchjd.autojac.jac_to_grad(theirs.trunk.parameters(), make())
        for parameter in theirs.trunk.parameters():
            parameter.grad *= factor
        mtlrun.weighting(name, **keys).backward(losses_of(ours, batch(0))[1])
        if name == "equal":  # of ours, heads are trained by the weighted loss
            for parameter in theirs.heads.parameters():
                parameter.grad /= 3
        try:
            assert_same_grads(ours, theirs, rtol=1e-2, atol=2e-3)
        except AssertionError as error:
            raise AssertionError(name) from error


def test_two_conflicting_tasks_under_pcgrad():
    """Of two tasks, whatever the order that is drawn."""
    ours, theirs = Network(), Network()
    names = ["seg", "depth"]
    features, losses = losses_of(theirs, batch(0), names)
    torchjd.autojac.mtl_backward([losses["seg"], -losses["depth"]], features=features)
    torchjd.autojac.jac_to_grad(theirs.trunk.parameters(), torchjd.aggregation.PCGrad())
    _, losses = losses_of(ours, batch(0), names)
    mtlrun.weighting("pcgrad").backward({"seg": losses["seg"], "depth": -losses["depth"]})
    assert torch.nn.utils.get_total_norm([parameter.grad for parameter in ours.trunk.parameters()]) > 0
    assert_same_grads(ours, theirs)
