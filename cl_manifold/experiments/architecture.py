"""What network a configuration names: looked up, built and tried, written down, built again."""

from collections.abc import Mapping
from typing import Any

import torch
from avalanche.models import DynamicModule
from torch import Tensor, nn

from cl_manifold.errors import ClManifoldError, ConfigError, DataError
from cl_manifold.experiments.config import network_named
from cl_manifold.manifold.watching import undrawn, watching
from cl_manifold.networks import Network
from cl_manifold.options import options_of

FEW = 2
"""Samples that a network is tried on; one alone may lose its axis."""


def built(network: Network, input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    """A network, initialised by torch's random numbers and tried once.

    Raises:
        ConfigError: it cannot be built, or does not fit its inputs or outputs.
    """
    try:
        module: Any = network.build(input_shape, outputs)
    except ClManifoldError:
        raise
    except Exception as error:
        raise ConfigError(
            f"network {network.name} cannot be built for inputs of shape {input_shape} and "
            f"{outputs} outputs ({_said(error)}); choose other settings of it, or another network"
        ) from error
    if not isinstance(module, nn.Module):
        raise ConfigError(
            f"network {network.name} made {module!r}, but needs to make a torch.nn.Module"
        )
    # Avalanche's dynamic modules grow their outputs, or take task labels
    if not any(isinstance(part, DynamicModule) for part in module.modules()):
        _try(module, network.name, input_shape, outputs)
    return module


def _try(module: nn.Module, name: str, input_shape: tuple[int, ...], outputs: int) -> None:
    """Run the module on zeros, in evaluation mode; it is left as it was, also its buffers."""
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    x = torch.zeros(FEW, *input_shape, device=device)
    kept = {key: buffer.clone() for key, buffer in module.named_buffers()}
    try:
        with torch.no_grad(), watching(module):
            y: Any = module(x)
            for key, buffer in module.named_buffers():
                if key in kept and kept[key].shape == buffer.shape:
                    buffer.copy_(kept[key])
    except Exception as error:
        raise ConfigError(
            f"network {name} cannot be run on inputs of shape {tuple(x.shape)} ({_said(error)}), "
            "which is what the stream gives; make it for the input_shape that it is asked for"
        ) from error
    needed = f"needs a tensor of shape {(FEW, outputs)}, one row per input"
    if not isinstance(y, Tensor):
        raise ConfigError(
            f"network {name} returns a {type(y).__name__}, but {needed}; let forward return the "
            "outputs alone"
        )
    if tuple(y.shape) != (FEW, outputs):
        raise ConfigError(
            f"network {name} returns a tensor of shape {tuple(y.shape)} for {FEW} inputs, but "
            f"{needed}; make it with as many outputs as it is asked for"
        )


def _said(error: Exception) -> str:
    """An error of other people's code in some words."""
    first = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {first}"[:200].rstrip(": ")


def described(network: Network, module: nn.Module, shape: tuple[int, ...], outputs: int) -> Any:
    """What `rebuilt` needs to make the module again, without its weights, as values for JSON.

    Args:
        network: its name and settings.
        module: as it was built.
        shape: of one input.
        outputs: how many.
    """
    return {
        "name": network.name,
        "settings": network.model_dump(mode="json", exclude={"name"}),
        "input_shape": list(shape),
        "outputs": outputs,
        "parameters": sum(p.numel() for p in module.parameters()),
    }


def rebuilt(description: Mapping[str, Any]) -> nn.Module:
    """A module of the architecture that `described` wrote down, to load weights into.

    Draws nothing from the random streams. A name `module:object` imports that module.

    Raises:
        ConfigError: the network is not known here, or its settings are not.
        DataError: the description lacks something, or the network is no longer what it was.
    """
    try:
        name, settings = description["name"], description["settings"]
        shape, outputs = tuple(description["input_shape"]), description["outputs"]
        count = description["parameters"]
    except (KeyError, TypeError) as error:
        raise DataError(
            f"the description of a network lacks {error}; give the network.json of a run"
        ) from None
    network = options_of(network_named(name), {**settings, "name": name}, "network")
    with undrawn():
        module = built(network, shape, outputs)
    found = sum(p.numel() for p in module.parameters())
    if found != count:
        raise DataError(
            f"network {name} has {found} parameters here, but had {count} when it was written "
            "down; use the code of that time"
        )
    return module
