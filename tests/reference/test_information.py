"""Fisher information against a slow loop over samples with plain autograd."""

import pytest
import torch
from torch import Tensor, nn

from cl_manifold.manifold.information import draw_labels, fisher_information
from cl_manifold.manifold.layout import Granularity, Layout, layout_of


class TwicePerForward(nn.Module):
    """A layer that is called twice, and a weight that is used outside its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(5, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.shared(torch.tanh(self.shared(x))))
        return self.head(hidden) + nn.functional.linear(hidden, self.head.weight)


class Unused(nn.Module):
    """A head that no sample of the task reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(5, 3)
        self.other = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


def tied() -> nn.Module:
    net = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5))
    net[2].weight = net[0].weight
    return net


def frozen_body() -> nn.Module:
    net = nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 3))
    return net.requires_grad_(False)[:2].append(nn.Linear(7, 3))


NETWORKS = {
    "frozen body": (frozen_body, (5,)),
    "mlp with in-place ReLU": (
        lambda: nn.Sequential(nn.Linear(5, 7), nn.ReLU(inplace=True), nn.Linear(7, 3)),
        (5,),
    ),
    "cnn with norms": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, padding=1, stride=2),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, groups=2, bias=False),
            nn.GroupNorm(2, 4),
            nn.Flatten(),
            nn.Linear(16, 3),
        ),
        (2, 8, 8),
    ),
    "linear on sequences": (lambda: nn.Sequential(nn.Linear(5, 3), nn.Flatten()), (4, 5)),
    "layer called twice": (TwicePerForward, (5,)),
    "tied weights": (tied, (5,)),
    "unused head": (Unused, (5,)),
}


def slow(net: nn.Module, x: Tensor, labels: Tensor, layout: Layout) -> Tensor:
    squares = torch.zeros(layout.size)
    named = dict(net.named_parameters())
    for xb, yb in zip(x, labels, strict=True):
        loss = nn.functional.cross_entropy(net(xb[None]), yb[None])
        entries = [e for e in layout.trained if named[e.name].requires_grad]
        found = torch.autograd.grad(
            loss, [named[e.name] for e in entries], allow_unused=True, materialize_grads=True
        )
        for e, g in zip(entries, found, strict=True):
            squares[e.start : e.start + e.size] += g.reshape(-1) ** 2 / len(x)
    blocks = [part.mean(-1) for _, part in layout.by_block(squares)]
    return torch.cat(blocks)


@pytest.mark.parametrize("granularity", ["tensor", "row", "weight"])
@pytest.mark.parametrize("name", NETWORKS)
def test_equals_a_loop_over_samples(name: str, granularity: Granularity) -> None:
    make, shape = NETWORKS[name]
    net = make().double().eval()
    layout = layout_of(net, granularity)
    x = torch.randn(6, *shape)
    labels = draw_labels(net(x), torch.Generator().manual_seed(3))
    found = fisher_information(net, net, x, layout, torch.Generator().manual_seed(3))
    trained = sum(e.blocks for e in layout.trained)
    torch.testing.assert_close(found[:trained], slow(net, x, labels, layout)[:trained])


def test_buffers_are_held_like_the_average_parameter() -> None:
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)).double().eval()
    layout = layout_of(net)
    found = fisher_information(net, net, torch.randn(8, 5), layout)
    sizes = torch.tensor([float(e.size) for e in layout.trained])
    mean = (found[: len(sizes)] * sizes).sum() / sizes.sum()
    torch.testing.assert_close(found[len(sizes) :], mean.expand(2))


def test_labels_come_from_the_model() -> None:
    logits = torch.tensor([[0.0, 1.0, -30.0]]).repeat(20_000, 1)
    labels = draw_labels(logits, torch.Generator().manual_seed(0))
    share = torch.bincount(labels, minlength=3) / len(labels)
    torch.testing.assert_close(share.double(), logits[0].softmax(0), atol=0.01, rtol=0)


def test_gradients_of_the_module_are_left_alone() -> None:
    net = nn.Linear(5, 3).double()
    fisher_information(net, net, torch.randn(4, 5), layout_of(net))
    assert net.weight.grad is None
    assert not net._forward_hooks
