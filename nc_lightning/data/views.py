"""Batches of one or several views."""

from typing import Any

import torch
from torch import Tensor


def concatenate_views(batch: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Turn a batch of V views into one tensor, so that they share one forward pass and one BatchNorm.

    Args:
        batch: ``(x, y)``, or ``((x1, ..., xV), y)`` with views of equal shape (N, ...).

    Returns:
        Inputs (V N, ...), labels (V N,) and instances (V N,), view after view; views of one image are one instance.

    Raises:
        ValueError: If the batch has another form, or inputs and labels differ in number.

    Example:
        >>> x, labels, instances = concatenate_views(((torch.zeros(2, 3), torch.ones(2, 3)), torch.tensor([4, 7])))
        >>> x.shape, labels.tolist(), instances.tolist()
        (torch.Size([4, 3]), [4, 7, 4, 7], [0, 1, 0, 1])
    """
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        size = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
        raise ValueError(f"batch: got a {type(batch).__name__}{size}, expected (x, y) or ((x1, ..., xV), y)")
    x, labels = batch
    if not isinstance(labels, Tensor):
        raise ValueError(f"batch: got labels of type {type(labels).__name__}, expected a tensor (N,)")
    views = list(x) if isinstance(x, (tuple, list)) else [x]
    if not views or any(len(view) != len(labels) for view in views):
        sizes = ", ".join(str(len(view)) for view in views) or "none"
        raise ValueError(f"batch: got views of {sizes} inputs and {len(labels)} labels, expected equal numbers")
    instances = torch.arange(len(labels), device=labels.device)
    if len(views) == 1:
        return views[0], labels, instances
    return torch.cat(views), labels.repeat(len(views)), instances.repeat(len(views))
