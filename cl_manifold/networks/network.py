"""What a network is to a configuration: settings, and how a module is built from them."""

from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from cl_manifold.errors import ConfigError
from cl_manifold.options import Options

if TYPE_CHECKING:
    from torch.nn import Module
else:  # torch takes a second to load
    Module = Any

Width = Annotated[int, Field(ge=1, le=100_000)]


class Network(Options):
    """A kind of network. Its fields are its settings, `network.<field>` in a configuration."""

    name: str = "mlp"
    """The network: mlp, cnn, resnet18, vit-tiny, or `package.module:object`."""

    @abstractmethod
    def build(self, input_shape: tuple[int, ...], classes: int) -> Module:
        """A module from inputs of that shape to as many outputs, initialised by torch's seed."""


def image_shape(name: str, input_shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Channels, height and width of the inputs.

    Raises:
        ConfigError: the inputs are not images.
    """
    if len(input_shape) != 3:
        raise ConfigError(
            f"network {name} reads images (channels, height, width), but the inputs have shape "
            f"{input_shape}; choose network mlp"
        )
    channels, height, width = input_shape
    return channels, height, width
