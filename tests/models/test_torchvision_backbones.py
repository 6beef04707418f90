"""Backbones made of torchvision's networks: that they are its networks, and their weights."""

from functools import partial
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

from mtlrun.config.instantiate import build
from mtlrun.errors import ConfigError
from mtlrun.models.backbones import ConvNeXt, MobileNet, ResNet, ViT, convnext, pretrained, vit


@pytest.fixture(autouse=True)
def _forget_files():
    yield
    pretrained._open.cache_clear()
    pretrained._download.cache_clear()


@pytest.fixture
def save(tmp_path):
    """Return a function that saves a network's state_dict and returns the path."""

    def make(network):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.pth"
        torch.save(network.state_dict() if isinstance(network, nn.Module) else network, path)
        return str(path)

    return make


def perturbed(network):
    """Move everything, statistics and layer scales as well, so that a mix-up of keys shows."""
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor *= 0.8 + 0.4 * torch.rand_like(tensor)
                if tensor.numel() == max(tensor.shape):  # one number per channel
                    tensor += 0.1 * torch.rand_like(tensor)
    return network.eval()


def size(network):
    return sum(parameter.numel() for parameter in network.parameters())


def shapes(network):
    return [tuple(parameter.shape) for parameter in network.parameters()]


def stochastic_depths(network):
    return [module.p for module in network.modules() if type(module).__name__ == "StochasticDepth"]


def resnet_features(network, images):
    features = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    return network.layer4(network.layer3(network.layer2(network.layer1(features))))


@pytest.mark.parametrize(("depth", "dilated"), [(18, False), (34, True), (50, True)])
def test_resnet_is_that_of_torchvision(depth, dilated, save):
    plan = [False, dilated, dilated] if depth == 50 else None
    network = perturbed(models.get_model(f"resnet{depth}", replace_stride_with_dilation=plan))
    backbone = ResNet((3, 64, 48), depth=depth, dilated=dilated, weights=save(network)).eval()
    images = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        found, expected = backbone(images), resnet_features(network, images)
    if dilated and depth != 50:  # refused by torchvision: a dilated network sees what the plain one sees, and more
        found = found[:, :, ::4, ::4]
    assert (found - expected).abs().max() < 1e-5 * expected.abs().max()
    assert backbone.feature_shape == (expected.shape[1], *((8, 6) if dilated else (2, 2)))
    classifier = sum(parameter.numel() for parameter in network.fc.parameters())
    assert size(backbone) == size(network) - classifier


@pytest.mark.parametrize("depth", [18, 50])
def test_dilated_features_at_every_fourth_place_are_the_plain_ones(depth):
    make = partial(ResNet, (3, 24, 24), depth=depth, stem="small", width=0.25)
    plain, dilated = make().double().eval(), make(dilated=True).double().eval()
    dilated.load_state_dict(plain.state_dict())
    images = torch.randn(1, 3, 24, 24, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(dilated(images)[:, :, ::4, ::4], plain(images))
    assert [shape[1] for shape in make(dilated=True).stage_shapes] == [24, 24, 12, 12, 12]


@pytest.mark.parametrize("size", ["small", "large"])
def test_mobilenet_is_that_of_torchvision(size, save):
    network = perturbed(models.get_model(f"mobilenet_v3_{size}"))
    backbone = MobileNet((3, 64, 40), size=size, weights=save(network)).eval()
    images = torch.randn(2, 3, 64, 40)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), network.features(images))
    assert [shape[1:] for shape in backbone.stage_shapes] == [(32, 20), (16, 10), (8, 5), (4, 3), (2, 2)]


def test_small_stem_of_mobilenet_keeps_the_resolution():
    sides = [shape[1] for shape in MobileNet((1, 32, 32), stem="small").stage_shapes]
    assert sides == [32, 16, 8, 4, 2]


def test_convnext_is_that_of_torchvision(save, monkeypatch):
    monkeypatch.setitem(convnext.SIZES, "tiny", (8, (1, 2, 1, 1), 0.1))
    rows = [(8, 16, 1), (16, 32, 2), (32, 64, 1), (64, None, 1)]
    network = perturbed(models.ConvNeXt([CNBlockConfig(*row) for row in rows]))
    backbone = ConvNeXt((3, 64, 40), weights=save(network)).eval()
    images = torch.randn(2, 3, 64, 40)
    torch.testing.assert_close(backbone(images), network.features(images))
    assert backbone.stage_shapes == ((8, 16, 10), (16, 8, 5), (32, 4, 2), (64, 2, 1))


@pytest.mark.parametrize(("depth", "expected"), [(None, 0.1), (0.3, 0.3), (0.0, 0.0)])
def test_convnext_leaves_out_blocks_with_growing_probability(depth, expected):
    network = ConvNeXt((1, 16, 16), patch_size=2, width=0.1, stochastic_depth=depth)
    assert stochastic_depths(network) == pytest.approx([expected * index / 17 for index in range(18)])


@pytest.mark.parametrize("name", ["tiny", "small", "base"])
def test_convnext_has_the_sizes_of_torchvision(name):
    with torch.device("meta"):
        backbone, network = ConvNeXt((3, 32, 32), size=name), models.get_model(f"convnext_{name}").features
    assert shapes(backbone) == shapes(network)
    for one, two in zip(*map(stochastic_depths, (backbone, network)), strict=True):
        assert one == two


TINY = vit.Config(patch_size=4, dim=12, depth=6, heads=3)


@pytest.fixture
def tiny(monkeypatch):
    """Make vit_b_16 a tiny network, here and in torchvision's place; return torchvision's for images of a side."""
    monkeypatch.setitem(vit.SIZES, "b_16", TINY)

    def make(side):
        return perturbed(VisionTransformer(side, 4, num_layers=6, num_heads=3, hidden_dim=12, mlp_dim=48))

    return make


def expected_tokens(network, images):
    """Return what torchvision's network gives without its class token."""
    tokens = network._process_input(images) + network.encoder.pos_embedding[:, 1:]
    return network.encoder.ln(network.encoder.layers(tokens))


def test_vit_is_that_of_torchvision_without_class_token(tiny, save):
    network, images = tiny(16), torch.randn(2, 3, 16, 16)
    backbone = ViT((3, 16, 16), size="b_16", weights=save(network)).eval()
    expected = expected_tokens(network, images)
    torch.testing.assert_close(backbone(images), expected.mT.reshape(2, 12, 4, 4))
    assert backbone.stage_shapes == ((12, 4, 4),) * 4
    counts = [sum(type(module).__name__ == "EncoderBlock" for module in stage.modules()) for stage in backbone.stages]
    assert counts == [1, 2, 1, 2]


def test_vit_interpolates_positions_as_torchvision(tiny, save):
    network = tiny(24)
    backbone = ViT((3, 16, 16), size="b_16", weights=save(network))
    state = interpolate_embeddings(16, 4, network.state_dict())
    expected = state["encoder.pos_embedding"][:, 1:].mT.reshape(1, 12, 4, 4)
    torch.testing.assert_close(backbone.stages[0][0].positions.data, expected)


def test_positions_follow_the_rows_and_columns_of_an_image_that_is_not_square(tiny, save):
    network = tiny(16)
    state = network.state_dict()
    rows = torch.arange(4.0).repeat_interleave(4)  # each patch's position embedding is the number of its row
    state["encoder.pos_embedding"][0, 1:] = rows[:, None]
    positions = ViT((3, 28, 8), size="b_16", weights=save(state)).stages[0][0].positions[0, 0]
    assert positions.shape == (7, 2)
    torch.testing.assert_close(positions[:, 0], positions[:, 1])
    torch.testing.assert_close(positions[[0, -1], 0], torch.tensor([0.0, 3.0]))
    assert (positions[:, 0].diff() > 0).all()


def test_vit_takes_the_names_of_torchvisions_older_files(tiny, save):
    network = tiny(16)
    renamed = {".mlp.0.": ".mlp.linear_1.", ".mlp.3.": ".mlp.linear_2."}
    state = dict(network.state_dict())
    for new, old in renamed.items():
        state = {key.replace(new, old): value for key, value in state.items()}
    assert state.keys() != network.state_dict().keys()
    images = torch.randn(1, 3, 16, 16)
    backbone = ViT((3, 16, 16), size="b_16", weights=save(state)).eval()
    torch.testing.assert_close(backbone(images), expected_tokens(network, images).mT.reshape(1, 12, 4, 4))


@pytest.mark.parametrize("name", ["b_16", "b_32", "l_16", "l_32", "h_14"])
def test_vit_has_the_sizes_of_torchvision(name):
    config = vit.SIZES[name]
    with torch.device("meta"):
        backbone = ViT((3, 4 * config.patch_size, 4 * config.patch_size), size=name)
        network = models.get_model(f"vit_{name}", image_size=4 * config.patch_size)
    without = network.heads.head.weight.numel() + network.heads.head.bias.numel() + 2 * config.dim  # token, position
    assert size(backbone) == size(network) - without
    attention = next(module for module in backbone.modules() if isinstance(module, nn.MultiheadAttention))
    assert attention.num_heads == network.encoder.layers[0].num_heads
    assert backbone.stages[0][0].projection.kernel_size == network.conv_proj.kernel_size


def test_keys_of_vit_replace_those_of_the_size():
    backbone = ViT((1, 12, 18), patch_size=6, dim=10, depth=5, heads=5, mlp_ratio=1.5, dropout=0.25)
    assert backbone.stage_shapes == ((10, 2, 3),) * 4
    blocks = [module for module in backbone.modules() if type(module).__name__ == "EncoderBlock"]
    assert (len(blocks), blocks[0].num_heads, blocks[0].mlp[0].out_features) == (5, 5, 15)
    assert {module.p for module in backbone.modules() if isinstance(module, nn.Dropout)} == {0.25}


SMALL = {
    "resnet18": partial(ResNet, (1, 16, 16), stem="small"),
    "resnet50": partial(ResNet, (1, 16, 16), depth=50, stem="small"),
    "mobilenet": partial(MobileNet, (1, 16, 16), stem="small"),
    "convnext": partial(ConvNeXt, (1, 16, 16), patch_size=2),
    "vit": partial(ViT, (1, 16, 16)),
}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("width", [0.5, 1.5])
def test_width_is_a_factor_on_all_channels(name, width):
    with torch.device("meta"):
        plain, other = SMALL[name](), SMALL[name](width=width)
    near = 4 if name == "mobilenet" else 0  # multiples of 8
    pairs = list(zip(plain.state_dict().items(), other.state_dict().values(), strict=True))
    assert len(pairs) > 50
    for (key, before), after in pairs:
        if before.dim() and after.shape[0] > 1:
            assert after.shape[0] == pytest.approx(width * before.shape[0], abs=2 * near), key
    assert size(other) / size(plain) == pytest.approx(width**2, rel=0.12)


def test_width_is_rounded_to_whole_heads():
    backbone = ViT((1, 8, 8), dim=12, heads=4, depth=4, width=0.8)
    assert backbone.feature_shape[0] == 8
    assert ViT((1, 8, 8), dim=12, heads=4, depth=4, width=0.01).feature_shape[0] == 4


@pytest.mark.parametrize(
    ("make", "input_shape"),
    [
        (partial(ResNet, stem="small"), (1, 5, 7)),
        (partial(ResNet, depth=34, dilated=True, width=0.25), (2, 33, 20)),
        (MobileNet, (2, 33, 20)),
        (partial(MobileNet, size="large", width=0.5, stem="small"), (1, 9, 6)),
        (partial(ConvNeXt, patch_size=1, width=0.25), (5, 8, 13)),
        (ViT, (2, 8, 20)),
    ],
)
def test_images_of_other_sizes_give_maps_and_gradients(make, input_shape):
    backbone = make(input_shape)
    state = torch.random.get_rng_state()
    found = backbone.stage_shapes
    assert torch.equal(torch.random.get_rng_state(), state)
    assert backbone.training
    features, cache = torch.randn(3, *input_shape), {}
    for index, shape in enumerate(found):
        features = backbone.stage(index, features, cache)
        assert features.shape == (3, *shape)
        assert len(shape) == 3
    features.square().mean().backward()
    assert all(parameter.grad is not None for parameter in backbone.parameters())


@pytest.mark.parametrize("name", SMALL)
def test_networks_are_initialized_as_by_torchvision(name):
    backbone = SMALL[name](width=0.5)
    weights = [module.weight for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    first = weights[0]  # the one that is ours, as torchvision's takes 3 channels
    fan_in, fan_out = first[0].numel(), first.shape[0] * first[0, 0].numel()
    expected = {"ConvNeXt": 0.02, "ViT": fan_in**-0.5}.get(type(backbone).__name__, (2 / fan_out) ** 0.5)
    assert first.std().item() == pytest.approx(expected, rel=0.25)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            assert (module.bias == 0).all()


RESNET = partial(ResNet, (3, 32, 32))
MOBILENET = partial(MobileNet, (3, 32, 32))


def test_a_weights_file_is_read_once_for_many_independent_networks(save, monkeypatch):
    path, calls = save(models.mobilenet_v3_small()), []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: calls.append(kwargs) or load(*args, **kwargs))
    first, second = MOBILENET(weights=path), MOBILENET(weights=path)
    assert len(calls) == 1
    assert calls[0]["weights_only"]
    with torch.no_grad():
        for tensor in first.state_dict().values():
            tensor.zero_()
    for one, two in zip(second.state_dict().values(), MOBILENET(weights=path).state_dict().values(), strict=True):
        assert torch.equal(one, two)
    assert second.stages[0][0][0].weight.abs().sum() > 0


def test_a_file_that_has_changed_is_read_again(save, tmp_path):
    path = save(models.mobilenet_v3_small())
    MOBILENET(weights=path)
    changed = models.mobilenet_v3_small()
    torch.save(changed.state_dict(), tmp_path / "new")
    (tmp_path / "new").replace(path)
    assert torch.equal(MOBILENET(weights=path).stages[0][0][0].weight, changed.features[0][0].weight)


def test_a_name_is_downloaded_by_torchvision(monkeypatch, tmp_path):
    network, urls = models.resnet18(), []

    def download(url, target, *args, **kwargs):
        urls.append(url)
        torch.save(network.state_dict(), target)

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    for name in ("IMAGENET1K_V1", "DEFAULT"):
        assert torch.equal(RESNET(weights=name).stages[0][0].weight, network.conv1.weight)
    assert urls == [models.ResNet18_Weights.IMAGENET1K_V1.url]


@pytest.mark.parametrize("error", [URLError("no route to host"), RuntimeError("invalid hash value"), TimeoutError()])
def test_without_network_the_file_to_fetch_is_named(error, monkeypatch, tmp_path):
    def download(*args, **kwargs):
        raise error

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", download)
    with pytest.raises(ValueError, match=r"^weights: IMAGENET1K_V1 of resnet18 could not be downloaded") as caught:
        RESNET(weights="IMAGENET1K_V1")
    (line,) = str(caught.value).splitlines()
    assert type(error).__name__ in line
    url = models.ResNet18_Weights.IMAGENET1K_V1.url
    assert f"download {url} by hand and set backbone.weights=<file>" in line


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            partial(RESNET, weights="IMAGENET"),
            r"^weights must be null, one of IMAGENET1K_V1, DEFAULT \(torchvision's for resnet18\) or the path of a "
            r"file, found 'IMAGENET'$",
        ),
        (partial(RESNET, depth=50, weights="x"), r"one of IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT \(.* for resnet50\)"),
        (partial(RESNET, weights="some/where"), r"^weights: there is no file /.*/some/where$"),
        (partial(RESNET, weights="net.pth"), r"^weights: there is no file /.*/net\.pth$"),
        (partial(RESNET, weights="DEFAULT", width=0.5), r"^weights need width=1\.0, found width=0\.5$"),
        (partial(RESNET, weights="DEFAULT", stem="small"), "^weights need stem=imagenet, found stem=small$"),
        (
            lambda: ResNet((1, 32, 32), weights="DEFAULT"),
            r"^weights need images of 3 channels, found inputs of shape \(1, 32, 32\)$",
        ),
        (lambda: MobileNet((3, 8, 8), stem="small", weights="DEFAULT"), "^weights need stem=imagenet, found"),
        (lambda: MobileNet((3, 8, 8), width=2.0, weights="DEFAULT"), "^weights need width=1.0, found"),
        (lambda: ConvNeXt((3, 32, 32), patch_size=2, weights="DEFAULT"), "^weights need patch_size=4, found"),
        (lambda: ConvNeXt((3, 32, 32), width=2.0, weights="DEFAULT"), "^weights need width=1.0, found"),
        (lambda: ViT((3, 8, 8), weights="DEFAULT"), r"^weights need a size of torchvision's \(b_16.*found size=mini$"),
        (lambda: ViT((3, 32, 32), size="b_16", heads=8, weights="x"), "^weights need heads=12, found heads=8$"),
        (lambda: ViT((3, 32, 32), size="b_16", mlp_ratio=2.0, weights="x"), "^weights need mlp_ratio=4.0, found"),
        (lambda: ViT((3, 32, 32), size="b_16", width=2.0, weights="x"), "^weights need width=1.0, found"),
        (lambda: ResNet((3, 32, 32), depth=20), r"^depth must be one of 18, 34, 50, found 20"),
        (lambda: ResNet((3, 32, 32), stem="big"), r"^stem must be one of 'imagenet', 'small', found 'big'"),
        (lambda: MobileNet((3, 32, 32), size="tiny"), r"^size must be one of 'small', 'large', found 'tiny'"),
        (lambda: ConvNeXt((3, 32, 32), size="huge"), r"^size must be one of 'tiny', 'small', 'base', found 'huge'"),
        (lambda: ViT((3, 32, 32), size="huge"), r"^size must be one of 'mini', 'b_16'"),
        (lambda: ResNet((3, 32, 32), width=0.0), r"^width must be > 0, found 0\.0"),
        (lambda: MobileNet((3, 32, 32), width=-1.0), r"^width must be > 0, found -1\.0"),
        (lambda: ConvNeXt((3, 32, 32), width=float("inf")), r"^width must be > 0 and finite, found inf"),
        (lambda: ViT((3, 32, 32), width=float("nan")), r"^width must be > 0, found nan"),
        (lambda: MobileNet((32, 32)), r"mobilenet needs images \(channels, height, width\), found .* \(32, 32\)"),
        (lambda: ConvNeXt((3,)), r"convnext .* needs images \(channels, height, width\), found .* \(3,\)"),
        (
            lambda: ConvNeXt((3, 32, 31)),
            r"convnext with patch_size=4 needs images of 32 x 32 or more, .*32, 31\)",
        ),
        (lambda: ConvNeXt((3, 32, 31), patch_size=0), r"^patch_size must be >= 1(, or null)?, found 0"),
        (
            lambda: ConvNeXt((3, 32, 32), stochastic_depth=1.0),
            r"^stochastic_depth must be in \[0, 1\), or null, fo",
        ),
        (lambda: ViT((3, 3, 4)), r"vit needs images of 4 x 4 or more, found inputs of shape \(3, 3, 4\)"),
        (
            lambda: ViT((3, 8, 10)),
            r"^patch_size must divide the height and width of images, found 4 and .*8, 10\)",
        ),
        (lambda: ViT((3, 8, 8), depth=3), r"^depth must be >= 4, found 3"),
        (lambda: ViT((3, 8, 8), patch_size=0), r"^patch_size must be >= 1(, or null)?, found 0"),
        (lambda: ViT((3, 8, 8), heads=0), r"^heads must be >= 1, or null, found 0"),
        (lambda: ViT((3, 8, 8), dim=30), r"^dim must be a multiple of heads \(4\), found 30"),
        (lambda: ViT((3, 8, 8), mlp_ratio=0.0), r"^mlp_ratio must be > 0, found 0\.0"),
        (lambda: ViT((3, 8, 8), dropout=1.0), r"^dropout must be in \[0, 1\), found 1\.0"),
    ],
)
def test_arguments_that_do_not_fit_together_are_refused(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def with_key(state, key, value):
    return dict(state) | {key: value}


def without_key(state, *keys):
    return {key: value for key, value in state.items() if key not in keys}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: without_key(state, "bn1.weight"), r"does not fit resnet18: it lacks bn1\.weight$"),
        (lambda state: without_key(state, "bn1.weight", "bn1.bias"), r"it lacks bn1\.weight and 1 more$"),
        (lambda state: with_key(state, "neck.weight", torch.zeros(1)), r"it has neck\.weight, which the network has n"),
        (
            lambda state: with_key(state, "conv1.weight", torch.zeros(64, 3, 3, 3)),
            r"does not fit resnet18: size mismatch for conv1\.weight: .*\[64, 3, 3, 3\]",
        ),
        (lambda state: {"state_dict": dict(state)}, r"holds no state_dict, \{name: tensor\}; save network"),
        (lambda state: torch.zeros(3), r"holds no state_dict"),
        (lambda state: nn.Linear(2, 2), r"cannot be read as a file of torch\.save \(UnpicklingError: "),
    ],
)
def test_files_that_do_not_fit_are_refused(change, message, tmp_path):
    path = tmp_path / "net.pth"
    torch.save(change(models.resnet18().state_dict()), path)
    with pytest.raises(ValueError, match=message) as caught:
        RESNET(weights=str(path))
    assert str(caught.value).startswith(f"weights: {path} ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_files_that_are_unreadable_are_refused(content, tmp_path):
    path = tmp_path / "net.pth"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^weights: .*net\.pth cannot be read as a file of torch\.save \(\w+"):
        RESNET(weights=str(path))


@pytest.mark.parametrize("shape", [None, (1, 16, 12), (1, 17, 11), (17, 12)])
def test_positions_that_do_not_fit_are_refused(shape, tiny, save):
    state = without_key(tiny(16).state_dict(), "encoder.pos_embedding")
    if shape is not None:
        state["encoder.pos_embedding"] = torch.zeros(shape)
    with pytest.raises(ValueError, match=r"^weights: .* does not fit vit_b_16: encoder\.pos_embedding must have the"):
        ViT((3, 16, 16), size="b_16", weights=save(state))


def test_refused_weights_are_reported_with_their_key():
    node = {"_target_": "mtlrun.models.backbones.ResNet", "weights": "IMAGENET"}
    with pytest.raises(ConfigError, match=r"^backbone\.weights must be null, one of"):
        build(node, "backbone", input_shape=(3, 32, 32))
