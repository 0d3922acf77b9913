"""Types of encoder and projector: they accept any module, while --help lists only those of this package."""

from abc import ABCMeta, abstractmethod
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor, nn


class _AnyModule(ABCMeta):
    """Metaclass that makes every `torch.nn.Module` an instance of the class, like duck typing.

    With `torch.nn.Module` as the type, the command line would list all modules of torch and torchvision in --help.
    """

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, nn.Module) if "_any_module" in vars(cls) else super().__subclasscheck__(subclass)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, nn.Module) if "_any_module" in vars(cls) else super().__instancecheck__(instance)


class Encoder(nn.Module, metaclass=_AnyModule):
    """Base class of the encoders, which map inputs (N, ...) to features h (N, out_features).

    An objective accepts any `torch.nn.Module`; the attribute saves it from a forward pass to size the projector.

    Attributes:
        out_features: Width of h.

    Example:
        >>> isinstance(nn.Flatten(), Encoder), issubclass(int, Encoder)
        (True, False)
    """

    _any_module = True
    out_features: int

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map inputs to features h."""


class _LayeredEncoder(Encoder):
    """Encoder that applies the module ``layers``; --help lists only its subclasses."""

    layers: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs to features h."""
        features: Tensor = self.layers(x)
        return features


class Projector(nn.Module, metaclass=_AnyModule):
    """Base class of the projectors, which map h to z and are made from (out_features, feature_dim).

    An objective accepts any `torch.nn.Module` made from these, such as `torch.nn.Linear`.

    Example:
        >>> isinstance(nn.Linear(4, 3), Projector)
        True
    """

    _any_module = True

    @abstractmethod
    def forward(self, h: Tensor) -> Tensor:
        """Map features h to projections."""


# Type checkers should accept any module; at run time, --help lists the subclasses of these classes.
if TYPE_CHECKING:
    AnyEncoder: TypeAlias = nn.Module
    AnyProjector: TypeAlias = nn.Module
else:
    AnyEncoder, AnyProjector = Encoder, Projector
