"""The largest tensor and the matrix products of a block of code, to test that memory is bounded."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that an operation returns, and the number of products."""

    numel = 0
    products = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                # Of its memory: an expanded view has less than its shape says.
                self.numel = max(self.numel, leaf.untyped_storage().nbytes() // leaf.element_size())
        self.products += "mm" in func.name()
        return made
