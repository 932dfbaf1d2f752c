"""Networks in every manner that information must get right, each with inputs of six samples."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

Inputs = tuple[Tensor, ...]


class Squeezed(nn.Module):
    """Drops every axis of length one, the batch's too."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.body = nn.GRU(4, 3, batch_first=True)
        self.head = nn.Parameter(torch.randn(outputs, 3))

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x)[0][:, -1] @ self.head.mT).squeeze()


class Twice(nn.Module):
    """A layer that is called twice, and a weight that is used outside its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(5, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.shared(torch.tanh(self.shared(x))))
        return self.head(hidden) + 0.1 * F.linear(hidden, self.head.weight)


class Unused(nn.Module):
    """A head that no sample of the task reaches, and one that is called for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Linear(5, 3)
        self.other = nn.Linear(5, 3)
        self.idle = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.idle(x)
        return self.used(x)


def tied() -> nn.Module:
    net = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5))
    net[2].weight = net[0].weight
    return net


class Recurrent(nn.Module):
    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.body = kind(3, 4, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0][:, -1])


class TimeFirst(nn.Module):
    """Time along axis 0 inside, as many steps as there are samples."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = nn.Linear(3, 4)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        steps = torch.tanh(self.norm(self.inside(x.transpose(0, 1))))
        return self.head(steps.cumsum(0)[-1] * x[:, :1, 0])


class FeaturesFirst(nn.Module):
    """Axis 0 of a layer's input holds as many features as there are samples."""

    def __init__(self) -> None:
        super().__init__()
        self.mixing = nn.Linear(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        every = [self.mixing(row[:, None]).tanh().sum(0) for row in x]
        return torch.stack(every)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x, x)[0].mean(1))


class Words(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 4, **options)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.words(x).tanh().mean(1))


class LowRank(nn.Module):
    """A frozen layer and a low-rank sum beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(5, 3).requires_grad_(False)
        self.down = nn.Parameter(torch.randn(2, 5))
        self.up = nn.Parameter(torch.randn(3, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ (self.up @ self.down).mT


class Square(torch.autograd.Function):
    """Without `setup_context`, which vmap needs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return 2 * ctx.saved_tensors[0] * gradients[0]


class OwnFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 5))

    def forward(self, x: Tensor) -> Tensor:
        result: Any = Square.apply(x @ self.weight.mT)
        return result


class Branching(nn.Module):
    """Which weights a sample meets depends on the sample."""

    def __init__(self) -> None:
        super().__init__()
        self.plus = nn.Parameter(torch.randn(3, 5))
        self.minus = nn.Parameter(torch.randn(3, 5))

    def forward(self, x: Tensor) -> Tensor:
        rows = [self.plus @ row if float(row[0]) > 0 else self.minus @ row.tanh() for row in x]
        return torch.stack(rows)


class ManyHeads(nn.Module):
    """In the manner of Avalanche's MultiTaskModule: one head per task label."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(5, 4)
        self.heads = nn.ModuleList(nn.Linear(4, 3) for _ in range(3))

    def forward(self, x: Tensor, task_labels: Tensor) -> Tensor:
        hidden = self.body(x).relu()
        out = hidden.new_zeros(len(x), 3)
        for label in task_labels.unique():
            mine = task_labels == label
            out[mine] = self.heads[int(label)](hidden[mine])
        return out


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(4, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.head((x + self.words(labels)).tanh())


class Rescaled(nn.Module):
    """A scalar parameter, an in-place operation on a layer's output, and one on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.first = nn.Linear(5, 4)
        self.second = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x.clone().mul_(self.scale))
        hidden.tanh_()
        return self.second(hidden).mul_(2.0)


def hooked() -> Any:
    """A user's hooks: on a layer's output, on its input, on a gradient; one refuses vmap."""
    net: Any = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4), nn.LayerNorm(4))
    net.append(nn.Linear(4, 3))
    net[0].register_forward_hook(lambda layer, inputs, output: 2 * output)
    net[2].register_forward_pre_hook(lambda layer, inputs: (inputs[0] + 1,))
    net[3].register_forward_hook(
        lambda layer, inputs, output: output * (1 + 0 * output.sum().item())
    )
    return net


def frozen(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: make().requires_grad_(False)


def numbers(*shape: int) -> Callable[[], Inputs]:
    return lambda: (torch.randn(6, *shape),)


def words() -> Inputs:
    return (torch.randint(7, (6, 3)),)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(inplace=True), nn.Linear(7, 3, bias=False))


def cnn() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, stride=2),
        nn.BatchNorm2d(4),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 4, 3, groups=2, bias=False),
        nn.GroupNorm(2, 4),
        nn.PReLU(),
        nn.Flatten(),
        nn.Linear(16, 3),
    )
    norm: Any = net[1]
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    return net


def weight_norm() -> nn.Module:
    return nn.Sequential(parametrizations.weight_norm(nn.Linear(5, 4)), nn.Tanh(), nn.Linear(4, 3))


def old_weight_norm() -> nn.Module:
    plain = nn.utils.weight_norm(nn.Linear(5, 4))
    return nn.Sequential(plain, nn.Tanh(), nn.utils.weight_norm(nn.Linear(4, 3), dim=1))


def sequences() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(2, 4, 3, groups=2),
        nn.InstanceNorm1d(4, affine=True),
        nn.Flatten(),
        nn.Linear(24, 3),
    )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Inputs]]] = {
    "mlp with in-place ReLU": (mlp, numbers(5)),
    "frozen": (frozen(mlp), numbers(5)),
    "frozen body": (
        lambda: nn.Sequential(mlp().requires_grad_(False), nn.Linear(3, 3)),
        numbers(5),
    ),
    "cnn with norms": (cnn, numbers(2, 8, 8)),
    "conv1d in groups, InstanceNorm": (sequences, numbers(2, 8)),
    "transposed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(2, 3, 2), nn.Flatten(), nn.Linear(27, 3)),
        numbers(2, 2, 2),
    ),
    "linear on sequences": (lambda: nn.Sequential(nn.Linear(5, 3), nn.Flatten()), numbers(4, 5)),
    "per position": (lambda: nn.Sequential(nn.Conv1d(2, 3, 3)), numbers(2, 5)),
    "layer called twice": (Twice, numbers(5)),
    "tied weights": (tied, numbers(5)),
    "unused heads": (Unused, numbers(5)),
    "LSTM": (lambda: Recurrent(nn.LSTM), numbers(4, 3)),
    "GRU": (lambda: Recurrent(nn.GRU), numbers(4, 3)),
    "frozen GRU": (frozen(lambda: Recurrent(nn.GRU)), numbers(4, 3)),
    "RNN": (lambda: Recurrent(nn.RNN), numbers(4, 3)),
    "time first": (TimeFirst, numbers(6, 3)),
    "features first": (FeaturesFirst, numbers(6)),
    "MultiheadAttention": (Attention, numbers(3, 4)),
    "TransformerEncoderLayer": (
        lambda: nn.Sequential(
            nn.TransformerEncoderLayer(4, 2, 6, batch_first=True), nn.Flatten(), nn.Linear(12, 3)
        ),
        numbers(3, 4),
    ),
    "Embedding": (Words, words),
    "Embedding with padding": (lambda: Words(padding_idx=2), words),
    "Embedding with max_norm": (lambda: Words(max_norm=0.8), words),
    "low rank": (LowRank, numbers(5)),
    "weight_norm": (weight_norm, numbers(5)),
    "weight_norm of old": (old_weight_norm, numbers(5)),
    "own autograd function": (OwnFunction, numbers(5)),
    "control flow": (Branching, numbers(5)),
    "one head per task label": (
        ManyHeads,
        lambda: (torch.randn(6, 5), torch.tensor([0, 2, 2, 0, 2, 0])),
    ),
    "two inputs": (TwoInputs, lambda: (torch.randn(6, 5), torch.randint(4, (6,)))),
    "in-place on a layer's output": (Rescaled, numbers(5)),
    "hooks": (hooked, numbers(5)),
}
