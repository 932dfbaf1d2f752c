"""What the CPU does, a GPU does alike. Run by `make gpu`."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Naive
from click.testing import CliRunner
from torch import nn
from torchvision.models import resnet18

from cl_manifold import ExactInformation, FisherInformation, Fourier, ManifoldModule, WeightManifold
from cl_manifold.cli.main import cli
from cl_manifold.manifold.likelihood import Categorical
from cl_manifold.strategies import InMemoryLoaderPlugin, WeightManifoldPlugin
from cl_manifold.streams import StreamOptions, rotated_digits
from tests.integration.test_resuming import VARIANTS, put_aside_and_resumed

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)
    )


def walked(device: str, storage: str) -> WeightManifold:
    """Three commits of made-up training, the same on every device."""
    net = small_net().to(device)
    options = {"storage": storage, "growable": True}
    manifold = WeightManifold(net, Fourier(1), **options)
    generator = torch.Generator().manual_seed(1)
    for c in (0.0, 0.3, 0.6):
        manifold.check_out(torch.tensor([c]))
        with torch.no_grad():
            for p in net.parameters():
                p.add_(0.1 * torch.randn(p.shape, generator=generator).to(device))
        manifold.commit(torch.rand(manifold.layout.blocks, generator=generator) + 0.1)
    manifold.grow_and_reembed(manifold.basis.grown())
    return manifold


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "int8"])
def test_commits_and_growth_are_those_of_the_cpu(storage: str) -> None:
    there, here = walked("cuda", storage), walked("cpu", storage)
    bound = {"float32": 1e-5, "bfloat16": 1e-2, "int8": 2e-2}[storage]
    for c in (0.0, 0.45):
        a, b = there.state(torch.tensor([c])), here.state(torch.tensor([c]))
        for name, w in a.items():
            assert w.device.type == "cuda"
            torch.testing.assert_close(w.cpu(), b[name], rtol=bound, atol=bound)


def test_information_is_that_of_the_cpu() -> None:
    net = small_net()
    x = torch.randn(32, 1, 8, 8)
    layout = WeightManifold(net, Fourier(1)).layout
    found = [
        FisherInformation()(
            copy.deepcopy(net).to(device),
            (x.to(device),),
            layout,
            Categorical(),
            torch.Generator().manual_seed(0),
        )
        for device in ("cpu", "cuda")
    ]
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("information", [FisherInformation(), ExactInformation()])
def test_a_stream_is_learned(information: FisherInformation | ExactInformation) -> None:
    stream = rotated_digits(StreamOptions(contexts=4))
    net = nn.Sequential(nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10)).cuda()
    plugin = WeightManifoldPlugin(Fourier(2), information=information)
    strategy = Naive(
        model=net,
        optimizer=torch.optim.Adam(net.parameters(), fused=True),
        train_mb_size=16,
        train_epochs=5,
        eval_mb_size=512,
        device="cuda",
        plugins=[InMemoryLoaderPlugin(), plugin],
        evaluator=EvaluationPlugin(loggers=[]),
    )
    for experience in stream.train_stream:
        strategy.train(experience)
    assert plugin.manifold is not None
    for experience, context in zip(stream.test_stream, plugin.coordinates(), strict=True):
        plugin.manifold.check_out(context)
        x, y, *_ = zip(*experience.dataset, strict=True)
        with torch.no_grad():
            answer = net.eval()(torch.stack(x).cuda()).argmax(-1).cpu()
        assert float((answer == torch.tensor(y)).float().mean()) > 0.9


def test_a_context_per_sample_runs_on_resnet() -> None:
    net = ManifoldModule(resnet18(num_classes=10).eval(), Fourier(1)).cuda().eval()
    x, contexts = torch.randn(4, 3, 32, 32).cuda(), torch.rand(4, 1)
    with torch.no_grad():
        together = net(x, contexts)
        alone = torch.cat([net(x[i : i + 1], contexts[i]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-3)


METHODS = ("weight-manifold", "naive", "replay", "online-ewc", "si", "der++", "packnet", "agem")


@pytest.mark.parametrize("strategy", METHODS)
def test_a_strategy_goes_on_bit_for_bit(strategy: str, tmp_path: Path) -> None:
    more: dict[str, Any] = {"training.device": "cuda", "strategy.name": strategy}
    more |= {"strategy.replay_samples": 40} if strategy in ("replay", "der++", "agem") else {}
    put_aside_and_resumed(tmp_path, **more)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_kind_of_manifold_goes_on_bit_for_bit(variant: str, tmp_path: Path) -> None:
    put_aside_and_resumed(tmp_path, **VARIANTS[variant], **{"training.device": "cuda"})


def test_a_run_of_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["run", "rotated-digits", "--set", "training.device=cuda", "--set", "stream.contexts=3"]
    outcome = CliRunner().invoke(cli, given, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
