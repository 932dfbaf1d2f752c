"""Objects described by the name of their class and by their arguments. Knows no basis."""

import inspect
from importlib import import_module
from typing import Any, TypeVar

from cl_manifold.errors import ConfigError

Kind = TypeVar("Kind")
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def address_of(cls: type[Any]) -> str:
    """`package.module:Class` of a class that can be found by this name.

    Raises:
        ConfigError: it is not a module's own attribute, so that no other program would find it.
    """
    address = f"{cls.__module__}:{cls.__qualname__}"
    if vars(import_module(cls.__module__)).get(cls.__qualname__) is not cls:
        raise ConfigError(
            f"{address} cannot be found by its name; "
            "define the class at the top level of a module, or write spec()"
        )
    return address


def class_at(address: str, kind: type[Kind]) -> type[Kind]:
    """The class with that address; reads nothing but one attribute of one module.

    Raises:
        ConfigError: there is none, or it is not a `kind`.
    """
    module, _, name = address.partition(":")
    try:
        found: Any = vars(import_module(module)).get(name)
    except (ImportError, ValueError, TypeError) as error:
        raise ConfigError(
            f"the module of {address!r} cannot be imported ({error}); "
            "write package.module:Class, with the package installed or on the path"
        ) from error
    if not (inspect.isclass(found) and issubclass(found, kind)):
        raise ConfigError(
            f"{address!r} is no {kind.__name__}; write package.module:Class, "
            f"with a class that derives from {kind.__name__}"
        )
    return found


def arguments_of(thing: object) -> dict[str, Any]:
    """The arguments of the constructor, each from the attribute of the same name.

    Raises:
        ConfigError: an argument has no name, or no attribute.
    """
    cls = type(thing)
    values: dict[str, Any] = {}
    for name, parameter in inspect.signature(cls).parameters.items():
        if parameter.kind not in NAMED or name not in dir(thing):
            raise ConfigError(
                f"{cls.__name__} cannot be saved, because its argument {name} is not kept under "
                f"that name; set self.{name} in __init__, or write spec()"
            )
        values[name] = getattr(thing, name)
    return values
