"""Count the work of a computation on a device: kernels, bytes moved, floating-point operations, least time."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

NO_KERNEL = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "alias", "as_strided"}
NO_KERNEL |= {"_local_scalar_dense", "_unsafe_view", "lift_fresh"}
"""Operations that run no kernel; views run none either."""


class Roofline(NamedTuple):
    """The limits of a device.

    Attributes:
        bytes: Bytes moved per second.
        flops: Floating-point operations per second of a matrix product.
        launch: Seconds of host time per kernel launch.
    """

    bytes: float
    flops: float
    launch: float = 0.0


def is_kernel(func: Any) -> bool:
    """Return whether an operation of torch runs at least one kernel: sorts and decompositions run several.

    Example:
        >>> is_kernel(torch.ops.aten.add.Tensor), is_kernel(torch.ops.aten.view.default)
        (True, False)
    """
    return not func.is_view and func._schema.name.partition("::")[2] not in NO_KERNEL


class Work(TorchDispatchMode):
    """The work of all operations on a device inside this context.

    Bytes count every input and output of every kernel once, as if no cache kept anything between kernels.

    Args:
        device: Device of the counted operations.

    Attributes:
        each: Bytes and floating-point operations of each kernel; the latter only for matrix products and convolutions.

    Example:
        >>> with Work() as work:
        ...     product = torch.ones(2, 3) @ torch.ones(3, 4)
        >>> work.kernels, work.bytes, work.flops
        (3, 176, 48)
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = torch.device(device)
        self.each: list[tuple[int, int]] = []

    @property
    def kernels(self) -> int:
        """Number of operations that run a kernel."""
        return len(self.each)

    @property
    def bytes(self) -> int:
        """Bytes read and written."""
        return sum(moved for moved, _ in self.each)

    @property
    def flops(self) -> int:
        """Floating-point operations of matrix products and convolutions; a multiply-add counts as two."""
        return sum(flops for _, flops in self.each)

    def least_seconds(self, limits: Roofline) -> float:
        """Seconds of the kernels in sequence if each reaches a limit of the device."""
        of_kernels = sum(max(moved / limits.bytes, flops / limits.flops) for moved, flops in self.each)
        return max(of_kernels, self.kernels * limits.launch)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and count its work."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if is_kernel(func) and self._is_there((args, kwargs, result)):
            formula: Callable[..., int] | None = flop_registry.get(func._overloadpacket)
            flops = 0 if formula is None else formula(*args, **kwargs, out_val=result)
            # An in-place operation reads and writes its output; one that is named out is only written.
            read = {name: value for name, value in kwargs.items() if name != "out"}
            self.each.append((_bytes((args, read)) + _bytes(result), flops))
        return result

    def _is_there(self, values: Any) -> bool:
        return any(tensor.device.type == self.device.type for tensor in _tensors(values))


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _bytes(values: Any) -> int:
    """Bytes of all distinct tensors in a structure; an expanded tensor counts only its stored elements."""
    different = {id(tensor): tensor for tensor in _tensors(values)}
    return sum(t.element_size() * math.prod(_sizes(t)) for t in different.values())


def _sizes(tensor: Tensor) -> list[int]:
    return [size for size, step in zip(tensor.shape, tensor.stride(), strict=True) if step > 0]
