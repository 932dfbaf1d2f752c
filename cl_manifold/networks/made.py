"""A network that somebody's function or module class makes: its arguments are the settings."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from pydantic import Field, create_model

from cl_manifold.errors import ConfigError

from .network import Network

FIRST = (("input_shape", "classes"), ("input_shape", "outputs"))
"""What the first two arguments are called."""
_SIMPLE = (bool, int, float, str, Path, NoneType)


class Made(Network):
    """Settings of a function or class that is called with (input_shape, classes, **settings).

    Attributes:
        make: that function or class.
    """

    make: ClassVar[Callable[..., Any]]

    def build(self, input_shape: tuple[int, ...], classes: int) -> Any:
        """What it makes."""
        return type(self).make(input_shape, classes, **self._values())

    def _values(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in type(self).model_fields if key != "name"}

    def __reduce__(self) -> Any:
        """Its class is made at run time, and so must be made again in another process."""
        return _again, (self.name, type(self).make, self._values())


def network_kind(name: str, found: Any) -> type[Network]:
    """The settings of a network that is called `name` and was found as `found`.

    That is a `Network`, as it is; or what makes modules, as a `Made`: a function or a module class
    with the arguments (input_shape, classes) or (input_shape, outputs), and then only arguments
    that have a type and a default.

    Raises:
        ConfigError: it is neither.
    """
    if inspect.isclass(found) and issubclass(found, Network) and not inspect.isabstract(found):
        return found
    problem = _why_not(found)
    if problem:
        raise ConfigError(
            f"network {name!r} is {found!r}, {problem}; give a function or module class of "
            "(input_shape, classes) and of arguments with a type and a default, or a subclass of "
            "cl_manifold.networks.Network that defines build"
        )
    return _made(name, found)


def _made(name: str, found: Callable[..., Any]) -> type[Network]:
    fields: dict[str, Any] = {
        parameter.name: (
            parameter.annotation,
            Field(parameter.default, description=f"`{parameter.name}` of {name}."),
        )
        for parameter in _arguments(found)[2:]
    }
    kind = create_model("Made", __base__=Made, __module__=found.__module__, **fields)
    kind.make = staticmethod(found)
    return kind


def _again(name: str, found: Callable[..., Any], values: Mapping[str, Any]) -> Network:
    return _made(name, found)(name=name, **values)


def _arguments(found: Callable[..., Any]) -> list[inspect.Parameter]:
    return list(inspect.signature(found, eval_str=True).parameters.values())


def _why_not(found: Any) -> str:
    """Why it makes no networks, as far as that can be seen; empty where it may."""
    from torch.nn import Module

    if not callable(found) or isinstance(found, Module):
        return "which cannot make networks"
    if inspect.isclass(found) and not issubclass(found, Module):
        return "which is no module"
    try:
        arguments = _arguments(found)
    except (TypeError, ValueError, NameError, AttributeError, SyntaxError) as error:
        return f"whose arguments cannot be read ({error})"
    if tuple(argument.name for argument in arguments[:2]) not in FIRST:
        given = ", ".join(argument.name for argument in arguments) or "nothing"
        return f"which takes {given}"
    return next((why for argument in arguments[2:] if (why := _unfit(argument))), "")


def _unfit(argument: inspect.Parameter) -> str:
    """Why an argument is no setting; empty where it is one."""
    if argument.kind in (argument.VAR_KEYWORD, argument.VAR_POSITIONAL, argument.POSITIONAL_ONLY):
        return f"whose argument {argument.name} has no name of its own"
    if argument.default is argument.empty:
        return f"whose argument {argument.name} has no default"
    if argument.annotation is argument.empty:
        return f"whose argument {argument.name} has no type"
    if not _is_settable(argument.annotation):
        return f"whose argument {argument.name} has a type that no text gives"
    own = argument.name in Made.model_fields or argument.name.startswith("_")
    if own or hasattr(Made, argument.name):
        return f"whose argument {argument.name} has a name that settings use themselves"
    return ""


def _is_settable(annotation: Any) -> bool:
    """Whether values of that type can be written on the command line."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _is_settable(inside[0])
    if origin in (Union, UnionType):
        return all(map(_is_settable, inside))
    if origin is tuple:
        bare = inside[0].__origin__ if get_origin(inside[0]) is Annotated else inside[0]
        return bare is int and inside[1:] == (...,)
    return origin is Literal or annotation in _SIMPLE
