"""MTI-Net."""

from functools import partial

import pytest
import torch

from mtlrun.models import MTINet
from mtlrun.models.backbones import MLP, LeNet, SegNet
from mtlrun.models.blocks.layers import Resize
from mtlrun.models.mti_net import pick_stages

LENET = partial(LeNet, (1, 16, 16), channels=(3, 4), features=8, dropout=0.0)


@pytest.mark.parametrize(
    ("shapes", "count", "expected"),
    [
        # a ResNet with a small stem: the last four stages, without the stem of the first layer's size
        ([(64, 8, 8), (64, 8, 8), (128, 4, 4), (256, 2, 2), (512, 1, 1)], 4, [4, 3, 2, 1]),
        ([(64, 8, 8), (64, 8, 8), (128, 4, 4), (256, 2, 2), (512, 1, 1)], 2, [4, 3]),
        # dilated: of one size the deepest stage
        ([(64, 8, 8), (64, 8, 8), (128, 4, 4), (256, 4, 4), (512, 4, 4)], 4, [4, 1]),
        # an encoder and a decoder: the decoder's, which grow
        ([(4, 4, 4), (6, 2, 2), (6, 1, 1), (6, 2, 2), (4, 4, 4), (4, 8, 8)], 3, [3, 4, 5]),
        ([(4, 4, 4), (6, 2, 2), (6, 1, 1), (6, 2, 2), (4, 4, 4), (4, 8, 8)], 4, [2, 3, 4, 5]),
        # from maps to vectors: the vector is the coarsest
        ([(3, 6, 6), (4, 1, 1), (8,)], 4, [2, 1, 0]),
        # one size only: the last stages, the deepest as the coarsest
        ([(12,), (10,), (8,)], 2, [2, 1]),
        ([(9, 7, 7)] * 6, 4, [5, 4, 3, 2]),
    ],
)
def test_scales_are_the_last_stages_of_different_size_from_coarse_to_fine(shapes, count, expected):
    assert pick_stages(shapes, count) == expected


def test_a_backbone_of_one_stage_is_refused(tasks):
    with pytest.raises(ValueError, match=r"mti_net needs a backbone of two or more stages, found 1; use .*pad_net"):
        MTINet(tasks, lambda: MLP((4,), hidden=[8]))


def test_scales_pass_on_to_finer_ones_and_join_in_the_head(tasks):
    model = MTINet(tasks, LENET).eval()
    inputs = torch.randn(2, 1, 16, 16)
    fine = model.trunk.stages[0](inputs)
    middle = model.trunk.stages[1](fine)
    coarse = model.trunk.stages[2](middle)
    handed, distilled = None, {task: [] for task in tasks}
    for index, (scale, shared) in enumerate(zip(model.scales, [coarse, middle, fine], strict=True)):
        features = {}
        for task in tasks:
            given = shared
            if handed is not None:
                given = torch.cat([shared, Resize(shared.shape[2:])(handed[task])], dim=1)
            features[task] = scale.branches[task](given)
        for task in tasks:
            distilled[task].append(Resize(fine.shape[2:])(scale.distillations[task](features)))
        if index < 2:
            handed = model.propagations[index](features)
    for task in tasks:
        expected = model.heads[task](torch.cat(distilled[task], dim=1))
        torch.testing.assert_close(model(inputs).predictions[task], expected)


def test_first_predictions_of_each_scale_are_supervised(maps, dense_tasks, make_inputs):
    model = MTINet(dense_tasks, maps.make, auxiliary_weight=0.3)
    model.train()
    seen = []
    for scale in model.scales:
        scale.auxiliary_heads["heat"].register_forward_hook(
            lambda _, given, found: seen.append((given[0].shape, found))
        )
    output = model(make_inputs(maps))
    assert [supervised.weight for supervised in output.auxiliary] == [0.3, 0.3]
    assert [tuple(shape) for shape, _ in seen] == [(4, 8, 4, 5), (4, 6, 8, 10)]
    for (_, found), supervised in zip(seen, output.auxiliary, strict=True):
        assert supervised.predictions["heat"] is found
        assert list(supervised.predictions) == list(dense_tasks)
    seen.clear()
    model.eval()(make_inputs(maps))
    assert not seen


@pytest.mark.parametrize(("channels", "widths"), [(None, [8, 4, 3]), (5, [5, 5, 5])])
def test_channels_set_the_width_of_the_tasks_features(tasks, channels, widths):
    model = MTINet(tasks, LENET, channels=channels)
    assert [scale.shape[0] for scale in model.scales] == widths
    assert model.heads["kind"][1].in_features == sum(widths)


@pytest.mark.parametrize(("scales", "stages"), [(2, [2, 1]), (3, [2, 1, 0])])
def test_num_scales_sets_the_number_of_scales(tasks, scales, stages):
    model = MTINet(tasks, LENET, num_scales=scales)
    assert model.stages == stages
    assert len(model.scales) == len(model.propagations) + 1 == scales


def test_an_encoder_and_decoder_gives_the_scales_of_its_decoder(dense_tasks):
    model = MTINet(dense_tasks, lambda: SegNet((3, 8, 8), channels=(4, 6), convolutions=(1, 1)))
    assert [scale.shape[1:] for scale in model.scales] == [(2, 2), (4, 4), (8, 8)]
    assert model(torch.randn(2, 3, 8, 8)).predictions["heat"].shape == (2, 2, 8, 8)


def test_dense_tasks_are_refused_where_a_scale_is_a_vector(dense_tasks):
    with pytest.raises(ValueError, match="needs feature maps, found vectors of 8 features"):
        MTINet(dense_tasks, LENET)


@pytest.mark.parametrize(
    ("argument", "wrong", "bounds"),
    [("num_scales", 1, ">= 2"), ("channels", 0, ">= 1, or null"), ("auxiliary_weight", 0.0, "> 0")],
)
def test_arguments_out_of_bounds_are_refused(mlp, tasks, argument, wrong, bounds):
    with pytest.raises(ValueError, match=f"{argument} must be {bounds}, found {wrong}"):
        MTINet(tasks, mlp.make, **{argument: wrong})
