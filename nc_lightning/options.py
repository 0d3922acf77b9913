"""Keyword arguments that a constructor passes on, known to type checkers, notebooks and the command line.

A constructor writes ``**kwargs: Unpack[Options]`` with a `TypedDict`. Type checkers and editors take its keys for
arguments. At runtime `Unpack` hides it from jsonargparse, which follows the calls of the parent constructors instead,
where the defaults and descriptions are; and `SignatureWithOptions` shows both in notebooks, `help` and the docs.
"""

import inspect
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from typing_extensions import Unpack as Unpack
else:

    class Unpack:
        """Annotation of ``**kwargs`` that keeps its `TypedDict`, and is `Any` to programs that read annotations."""

        def __class_getitem__(cls, options: Any) -> Any:
            """Return the annotation for a `TypedDict`."""
            return Annotated[Any, options]


class SignatureWithOptions:
    """Descriptor for the ``__signature__`` of classes with ``**kwargs: Unpack[Options]``.

    The options follow the other parameters, by keyword only, with the default of the first parent that has it.

    Example:
        >>> from typing_extensions import Required, TypedDict
        >>> class Base:
        ...     __signature__ = SignatureWithOptions()
        ...     def __init__(self, encoder, beta=5.0): ...
        >>> class Options(TypedDict, total=False):
        ...     encoder: Required[str]
        ...     beta: float
        >>> class Child(Base):
        ...     def __init__(self, mine=1, **kwargs: Unpack[Options]): ...
        >>> inspect.signature(Child)
        <Signature (mine=1, *, encoder: str, beta: float = 5.0)>
    """

    def __get__(self, instance: object, owner: type) -> Signature:
        """Return the signature of the class."""
        if instance is not None:
            raise AttributeError("__signature__")
        own, *parents = [_parameters(cls) for cls in owner.__mro__ if "__init__" in vars(cls)]
        last = next(reversed(own.values()), None)
        if last is None or last.kind is not Parameter.VAR_KEYWORD or get_origin(last.annotation) is not Annotated:
            return Signature(list(own.values()))
        del own[last.name]
        for name, annotation in get_type_hints(get_args(last.annotation)[1]).items():
            default = next((of_parent[name].default for of_parent in parents if name in of_parent), Parameter.empty)
            own.setdefault(name, Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation))
        return Signature(list(own.values()))


def _parameters(cls: type) -> dict[str, Parameter]:
    _, *parameters = inspect.signature(vars(cls)["__init__"]).parameters.values()
    return {parameter.name: parameter for parameter in parameters}
