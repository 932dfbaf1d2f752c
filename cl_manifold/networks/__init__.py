"""Networks that a configuration can name. Any `nn.Module` works on a weight manifold.

A network of your own is named `module:object` on the command line. The object is a `Network`, a
class whose fields are its settings and whose `build` makes the module (see `Mlp`); or a function or
module class that is called with (input_shape, classes) and whose further arguments are the settings
(see `made`).
"""

from .made import network_kind
from .network import Network
from .plain import Cnn, Mlp, cnn, mlp
from .resnet import Resnet18, resnet18
from .vit import VitTiny

__all__ = [
    "Cnn",
    "Mlp",
    "Network",
    "Resnet18",
    "VitTiny",
    "cnn",
    "mlp",
    "network_kind",
    "resnet18",
]
