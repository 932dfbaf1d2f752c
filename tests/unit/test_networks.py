"""The networks that a configuration can name: shapes, settings, what is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm
from torchvision import models

from cl_manifold.errors import ConfigError
from cl_manifold.manifold.layout import layout_of, tensors_of
from cl_manifold.networks import Network, Resnet18, VitTiny, cnn, network_kind, resnet18
from cl_manifold.networks.resnet import group_norm
from cl_manifold.options import Options, options_of


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# -- resnet18 --------------------------------------------------------------------------------------


def test_with_batch_norm_and_the_large_stem_it_is_torchvisions() -> None:
    ours = resnet18((3, 40, 40), 7, 64, "imagenet", "batch").eval()
    theirs = models.resnet18(num_classes=7).eval()
    mine, yours = list(ours.state_dict().values()), list(theirs.state_dict().values())
    assert [v.shape for v in mine] == [v.shape for v in yours]
    for value, other in zip(mine, yours, strict=True):
        other.copy_(value)
    x = torch.randn(2, 3, 40, 40)
    assert torch.equal(ours(x), theirs(x))


def test_the_small_stem_keeps_the_image_and_the_stages_halve_it() -> None:
    network: Any = resnet18((1, 28, 28), 10, 4)
    sizes, x = [], torch.randn(2, 1, 28, 28)
    for part in list(network)[:5]:
        x = part(x)
        sizes.append(tuple(x.shape[1:]))
    assert sizes == [(4, 28, 28), (4, 28, 28), (8, 14, 14), (16, 7, 7), (32, 4, 4)]


def test_convolutions_start_as_torchvisions_do() -> None:
    torch.manual_seed(0)
    ours = resnet18((3, 8, 8), 2)
    for layer in ours.modules():
        if isinstance(layer, nn.Conv2d):
            fan = layer.out_channels * layer.kernel_size[0] ** 2
            assert float(layer.weight.detach().std()) == pytest.approx((2 / fan) ** 0.5, rel=0.1)


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 5, 9), (3, 33, 31), (7, 1, 1)])
@pytest.mark.parametrize("stem", ["small", "imagenet"])
@pytest.mark.parametrize("width", [5, 8])
def test_every_image_size_and_number_of_channels(
    shape: tuple[int, ...], stem: Any, width: int
) -> None:
    torch.manual_seed(1)
    network = resnet18(shape, 6, width, stem).eval()
    x = torch.randn(3, *shape)
    y = network(x)
    assert y.shape == (3, 6)
    difference = float((y[0] - y[1]).detach().abs().max())
    assert difference > 1e-3, "an image makes a difference"


def test_groups_are_large_enough_for_one_pixel() -> None:
    for channels in range(4, 130):
        norm = group_norm(channels)
        assert channels // norm.num_groups >= (4 if channels % 4 == 0 else 3), channels


def test_group_norm_leaves_nothing_off_the_manifold_and_batch_norm_has_buffers() -> None:
    grouped, batched = resnet18((1, 8, 8), 3, 4), resnet18((1, 8, 8), 3, 4, norm="batch")
    assert len(list(batched.buffers())) == 20 * 3
    assert not list(grouped.buffers())
    assert layout_of(grouped).names == set(tensors_of(grouped))
    assert sum(isinstance(layer, nn.GroupNorm) for layer in grouped.modules()) == 20


# -- vit-tiny --------------------------------------------------------------------------------------


TORCHS = {
    "norm1": "norm1",
    "norm2": "norm2",
    "self_attn.in_proj_": "qkv.",
    "self_attn.out_proj": "out",
    "linear1": "inside.0",
    "linear2": "inside.2",
}


def torchs_layer(layer: nn.Module, width: int, heads: int) -> nn.Module:
    """Torch's own layer with the same weights."""
    found = nn.TransformerEncoderLayer(
        width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
    ).double()
    names = {}
    for name in found.state_dict():
        start = next(start for start in TORCHS if name.startswith(start))
        names[name] = TORCHS[start] + name.removeprefix(start)
    assert set(names.values()) == set(layer.state_dict())
    found.load_state_dict({name: layer.state_dict()[own] for name, own in names.items()})
    return found


def slow_transformer(network: Any, x: Tensor, patch: int, heads: int, token: bool) -> Tensor:
    """Patch after patch, then torch's own layers."""
    weights = dict(network.named_parameters())
    rows = []
    for top in range(0, x.shape[2], patch):
        for left in range(0, x.shape[3], patch):
            cut = x[:, :, top : top + patch, left : left + patch]
            kernel = weights["patches.weight"]
            rows.append(torch.einsum("bchw,dchw->bd", cut, kernel) + weights["patches.bias"])
    z = torch.stack(([torch.zeros_like(rows[0])] if token else []) + rows, 1)
    z = z + weights["positions.weight"]
    for layer in network.layers:
        z = torchs_layer(layer, z.shape[-1], heads)(z)
    z = layer_norm(z, (z.shape[-1],), weights["norm.weight"], weights["norm.bias"])
    return (z[:, 0] if token else z.mean(1)) @ weights["head.weight"].T + weights["head.bias"]


@pytest.mark.parametrize("pooling", ["token", "mean"])
def test_the_transformer_against_a_slow_one(pooling: Any) -> None:
    torch.manual_seed(0)
    settings = VitTiny(patch=3, width=8, depth=2, heads=2, pooling=pooling)
    network = settings.build((2, 6, 9), 5).double()
    with torch.no_grad():
        for p in network.parameters():
            p.add_(0.2 * torch.randn_like(p))
    x = torch.randn(3, 2, 6, 9, dtype=torch.float64)
    expected = slow_transformer(network, x, 3, 2, pooling == "token")
    torch.testing.assert_close(network.train()(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(x), expected)


def test_the_source_has_as_many_weights() -> None:
    """DeiT-Ti has 5,717,416; our one row of positions is its token and its position."""
    largest = VitTiny(patch=16, width=192, depth=12, heads=3).build((3, 224, 224), 1000)
    assert count(largest) == 5_717_416 - 192
    assert count(VitTiny().build((3, 32, 32), 10)) < 800_000


def test_layers_start_different() -> None:
    network: Any = VitTiny(width=6).build((1, 8, 8), 3)
    first, second = network.layers[0].qkv.weight, network.layers[1].qkv.weight
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    ("settings", "shape", "sentence"),
    [
        (VitTiny(patch=5), (1, 28, 28), "patch is 5, but the images have 28 × 28 .*: 1, 2, 4, 7, "),
        (VitTiny(patch=4), (1, 28, 30), r"28 × 30 pixels; .*: 1, 2$"),
        (VitTiny(width=10), (1, 28, 28), "width is 10, but the 3 heads .* a multiple"),
        (VitTiny(), (784,), r"vit-tiny reads images .* have shape \(784,\); choose network mlp"),
        (Resnet18(), (784,), "resnet18 reads images"),
    ],
)
def test_what_does_not_fit_the_images_is_refused(
    settings: Network, shape: tuple[int, ...], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        settings.build(shape, 10)


def test_convolutions_of_flat_inputs_are_refused() -> None:
    with pytest.raises(ConfigError, match="cnn reads images"):
        cnn((7,), (4,), 2)


@pytest.mark.parametrize("kind", [Resnet18, VitTiny])
@pytest.mark.parametrize(
    "values", [{"width": 0}, {"norm": "layer"}, {"stem": "7"}, {"heads": -1}, {"pooling": "max"}]
)
def test_settings_out_of_range_are_refused(kind: type[Options], values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"^network\."):
        options_of(kind, values, "network")


def test_a_network_of_ones_own_is_taken_as_it_is() -> None:
    assert network_kind("resnet18", Resnet18) is Resnet18
