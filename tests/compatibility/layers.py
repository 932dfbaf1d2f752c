"""Small networks around one layer each, as people write them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

CLASSES, DIM, LENGTH, WORDS = 3, 8, 5, 12


class Lambda(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


def mlp(*extra: nn.Module) -> nn.Module:
    """8-16-3 with extra layers in the middle."""
    return nn.Sequential(nn.Linear(DIM, 16), *extra, nn.ReLU(), nn.Linear(16, CLASSES))


def cnn(*norm: nn.Module, channels: int = 3) -> nn.Module:
    """One convolution of eight channels, extra layers, a linear head."""
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), *norm, nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, CLASSES),
    )  # fmt: skip


def cnn1d(*norm: nn.Module) -> nn.Module:
    return nn.Sequential(
        Lambda(lambda x: x.transpose(1, 2)), nn.Conv1d(DIM, 8, 3, padding=1), *norm,
        nn.ReLU(), nn.Flatten(), nn.Linear(8 * LENGTH, CLASSES),
    )  # fmt: skip


def cnn3d(*norm: nn.Module) -> nn.Module:
    return nn.Sequential(
        Lambda(lambda x: x.unflatten(1, (1, 2, 2, 2))), nn.Conv3d(1, 4, 2, padding=1), *norm,
        nn.ReLU(), nn.Flatten(), nn.Linear(4 * 27, CLASSES),
    )  # fmt: skip


class Recurrent(nn.Module):
    """The last output of a recurrent layer, and a head."""

    def __init__(self, core: nn.Module, width: int = 8) -> None:
        super().__init__()
        self.core, self.head = core, nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.core(x)[0][:, -1])


class Cells(nn.Module):
    """A recurrent cell in a loop of Python."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell, self.head = cell, nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        state: Any = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class Attention(nn.Module):
    """Self-attention with a causal mask kept as a buffer: −∞ above the diagonal, or a boolean."""

    def __init__(self, boolean: bool | None) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(DIM, 2, batch_first=True)
        self.head = nn.Linear(DIM, CLASSES)
        above = torch.ones(LENGTH, LENGTH).triu(1).bool()
        mask = above if boolean else torch.zeros(LENGTH, LENGTH).masked_fill(above, -torch.inf)
        self.register_buffer("mask", None if boolean is None else mask)

    def forward(self, x: Tensor) -> Tensor:
        mixed, _ = self.attention(x, x, x, attn_mask=self.mask, need_weights=False)
        return self.head(mixed.mean(1))


def encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(DIM, 2, 16, batch_first=True)
    core = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    return nn.Sequential(core, Lambda(lambda h: h.mean(1)), nn.Linear(DIM, CLASSES))


class Decoder(nn.Module):
    """A decoder layer whose memory is the input itself."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerDecoderLayer(DIM, 2, 16, batch_first=True)
        self.core, self.head = nn.TransformerDecoder(layer, 1), nn.Linear(DIM, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.core(x, x).mean(1))


def words(**options: Any) -> nn.Module:
    """An embedding, averaged, and a head."""
    table = nn.Embedding(WORDS, 8, **options)
    return nn.Sequential(table, Lambda(lambda h: h.mean(1)), nn.Linear(8, CLASSES))


def bag(**options: Any) -> nn.Module:
    return nn.Sequential(nn.EmbeddingBag(WORDS, 8, **options), nn.Linear(8, CLASSES))


class Tied(nn.Module):
    """The same matrix reads words and scores them; a head answers from the scores."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.scores = nn.Embedding(WORDS, 8), nn.Linear(8, WORDS, bias=False)
        self.scores.weight = self.table.weight
        self.head = nn.Linear(WORDS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.scores(self.table(x).mean(1)))


def frozen() -> nn.Module:
    net: Any = mlp()
    net[0].requires_grad_(False)
    return net


class LowRank(nn.Module):
    """A frozen layer with a trained correction of rank two."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(DIM, 16).requires_grad_(False)
        self.down = nn.Parameter(0.1 * torch.randn(2, DIM))
        self.up = nn.Parameter(torch.zeros(16, 2))
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.base(x) + x @ self.down.T @ self.up.T))


def parametrised(how: Callable[[nn.Linear], nn.Module]) -> nn.Module:
    net: Any = mlp()
    net[0] = how(net[0])
    return net


class Complex(nn.Module):
    """A complex layer, read by the size of its numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(DIM, 16, dtype=torch.complex64)
        self.head = nn.Linear(16, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.first(x.to(torch.complex64)).abs())


def cast(dtype: torch.dtype) -> nn.Module:
    """A network in another precision; inputs and outputs stay float32."""
    core = mlp().to(dtype)
    return nn.Sequential(Lambda(lambda x: x.to(dtype)), core, Lambda(lambda h: h.float()))


def quantised() -> nn.Module:
    """Fixed features in eight bits, a trained head."""
    features = nn.Sequential(nn.Linear(DIM, 16), nn.ReLU())
    fixed = torch.ao.quantization.quantize_dynamic(features, {nn.Linear}, dtype=torch.qint8)
    return nn.Sequential(fixed, nn.Linear(16, CLASSES))


class Buffers(nn.Module):
    """Buffers only: no weights at all."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(DIM, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.table


class Counting(nn.Module):
    """An integer counter and a running mean of its own."""

    calls: Tensor
    centre: Tensor
    hidden: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.core = mlp()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("centre", torch.zeros(DIM))
        self.register_buffer("hidden", torch.ones(DIM), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
            self.centre.lerp_(x.mean(0).detach(), 0.1)
        return self.core((x - self.centre) * self.hidden)


class Idle(nn.Module):
    """Parameters that never get a gradient, and one without elements."""

    def __init__(self) -> None:
        super().__init__()
        self.core, self.spare = mlp(), nn.Linear(4, 4)
        self.nothing = nn.Parameter(torch.zeros(0, 3))
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.core(x)


class Uneven(nn.Module):
    """Convolutions down and up again with a bridge: an answer per position."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.out = nn.Conv2d(7, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.cat([x, self.up(torch.relu(self.down(x)))], 1))


class Mixer(nn.Module):
    """Mixes positions, then channels."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.across = nn.LayerNorm(DIM), nn.Linear(LENGTH, LENGTH)
        self.within, self.head = nn.Linear(DIM, DIM), nn.Linear(DIM, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.across(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return self.head((x + torch.relu(self.within(x))).mean(1))


class Several(nn.Module):
    """Answers in a tuple or a dictionary."""

    def __init__(self, pack: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.features, self.head, self.pack = nn.Linear(DIM, 16), nn.Linear(16, CLASSES), pack

    def forward(self, x: Tensor) -> Any:
        h = torch.relu(self.features(x))
        return self.pack(self.head(h), h)
