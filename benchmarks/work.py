"""Count what a computation asks of a device: kernels, bytes moved, and floating-point operations of matrix products."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

NO_KERNEL = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "alias", "as_strided"}
NO_KERNEL |= {"_local_scalar_dense", "_unsafe_view", "lift_fresh"}
"""Operations that run no kernel; views run none either."""


def is_kernel(func: Any) -> bool:
    """Return whether an operation of torch runs a kernel at least: sorts and decompositions run several.

    Example:
        >>> import torch
        >>> is_kernel(torch.ops.aten.add.Tensor), is_kernel(torch.ops.aten.view.default)
        (True, False)
    """
    return not func.is_view and func._schema.name.partition("::")[2] not in NO_KERNEL


class Work(TorchDispatchMode):
    """The work of all operations while this is entered.

    Bytes are those of every input and output of every kernel once, as if nothing stayed in a cache between two kernels.

    Attributes:
        kernels: Number of operations that run a kernel.
        bytes: Bytes that these read and write.
        flops: Floating-point operations of matrix products and convolutions, a multiplication and an addition each.

    Example:
        >>> import torch
        >>> with Work() as work:
        ...     product = torch.ones(2, 3) @ torch.ones(3, 4)
        >>> work.kernels, work.bytes, work.flops
        (3, 176, 48)
    """

    def __init__(self) -> None:
        super().__init__()
        self.kernels = self.bytes = self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation and add up what it takes."""
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if is_kernel(func):
            self.kernels += 1
            read, written = _sizes((args, kwargs)), _sizes(result)
            # An output that is also an input, as of an operation in place, is read and written.
            self.bytes += sum(read.values()) + sum(written.values())
            formula: Callable[..., int] | None = flop_registry.get(func._overloadpacket)
            if formula is not None:
                self.flops += formula(*args, **kwargs, out_val=result)
        return result


def _sizes(values: Any) -> dict[int, int]:
    """Bytes of each different tensor in a structure; an expanded one is as large as what it repeats."""
    tensors = (value for value in tree_leaves(values) if isinstance(value, Tensor))
    return {id(t): t.element_size() * math.prod(n for n, step in zip(t.shape, t.stride()) if step) for t in tensors}  # noqa: B905
