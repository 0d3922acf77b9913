"""What an encoder and a projector are, for type hints: any module, of which help lists ours only."""

from abc import ABCMeta, abstractmethod
from typing import TYPE_CHECKING, Any, TypeAlias

from torch import Tensor, nn


class _AnyModule(ABCMeta):
    """Makes every `torch.nn.Module` an instance of the class that is asked, as duck typing has it.

    A command line that takes any module as an encoder would otherwise list all modules of torch and torchvision as its
    known subclasses, and refuse none of them either.
    """

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, nn.Module) if "_any_module" in vars(cls) else super().__subclasscheck__(subclass)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, nn.Module) if "_any_module" in vars(cls) else super().__instancecheck__(instance)


class Encoder(nn.Module, metaclass=_AnyModule):
    """Base of the encoders here: maps inputs (N, ...) to features h (N, out_features).

    An objective takes any `torch.nn.Module` that says its width as ``out_features``.

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
    """An encoder that is the module ``layers``; help lists its subclasses only."""

    layers: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """Map inputs to features h."""
        features: Tensor = self.layers(x)
        return features


class Projector(nn.Module, metaclass=_AnyModule):
    """Base of the projectors here: called with (out_features, feature_dim), one maps h to z.

    An objective takes any `torch.nn.Module` that is made so, `torch.nn.Linear` for one.

    Example:
        >>> isinstance(nn.Linear(4, 3), Projector)
        True
    """

    _any_module = True

    @abstractmethod
    def forward(self, h: Tensor) -> Tensor:
        """Map features h to projections."""


# A type checker is to see that any module is taken; at run time, help lists the subclasses of ours.
if TYPE_CHECKING:
    AnyEncoder: TypeAlias = nn.Module
    AnyProjector: TypeAlias = nn.Module
else:
    AnyEncoder, AnyProjector = Encoder, Projector
