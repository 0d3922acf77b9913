"""The format of a batch: inputs, or several views of them, and labels, in the forms that data loaders return."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nc_lightning.distributed.global_batch import Shares

UNLABELED = -1
"""Label of an input whose class is unknown."""

INPUT_KEYS = ("image", "images", "img", "x", "pixel_values", "input", "inputs")
"""Keys of the inputs in a dict."""

LABEL_KEYS = ("label", "labels", "y", "target", "targets")
"""Keys of the labels in a dict."""


def read_batch(batch: Any) -> tuple[list[Tensor], Tensor]:
    """Return the views of a batch, one or more, and the labels (N,).

    Args:
        batch: Tuple ``(x, y)``, optionally followed by more, such as indices; or a dict with one of `INPUT_KEYS` and
            one of `LABEL_KEYS`. Inputs are a tensor (N, ...), or a tuple of views of equal shape and type. Labels are
            class indices (N,) or (N, 1), or one-hot rows (N, C).

    Raises:
        ValueError: If the batch has another form, labels are soft or ambiguous (integers or one-hot rows follow that
            may be the labels), or inputs and labels differ in number.

    Example:
        >>> views, labels = read_batch({"pixel_values": torch.zeros(2, 3), "labels": torch.eye(4)[[3, 1]], "id": "ab"})
        >>> len(views), labels.tolist()
        (1, [3, 1])
    """
    x, labels = _pair(batch)
    if not isinstance(labels, Tensor):
        raise ValueError(f"batch: got labels of type {type(labels).__name__}, expected a tensor (N,)")
    labels = class_indices(labels)
    views = list(x) if isinstance(x, (tuple, list)) else [x]
    for view in views:
        if not isinstance(view, Tensor):
            raise ValueError(f"batch: got inputs of type {type(view).__name__}, expected a tensor (N, ...)")
    if not views or any(len(view) != len(labels) for view in views):
        sizes = ", ".join(str(len(view)) for view in views) or "none"
        raise ValueError(f"batch: got views of {sizes} inputs and {len(labels)} labels, expected equal numbers")
    kinds = [f"{view.dtype} {tuple(view.shape)}".removeprefix("torch.") for view in views]
    if len(set(kinds)) > 1:
        raise ValueError(
            f"batch: got inputs of {', '.join(kinds)}, expected views of equal shape and type; put anything "
            "else, such as a mask, after the labels"
        )
    return views, labels


def concatenate_views(batch: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Concatenate the V views of a batch, so that they share one forward pass and its BatchNorm statistics.

    Args:
        batch: Batch ``(x, y)`` or ``((x1, ..., xV), y)``, or in any other form that `read_batch` accepts.

    Returns:
        Inputs (V N, ...), labels (V N,) and instances (V N,), view after view; views of an image share an instance.

    Raises:
        ValueError: If the batch has another form, or inputs and labels differ in number.

    Example:
        >>> x, labels, instances = concatenate_views(((torch.zeros(2, 3), torch.ones(2, 3)), torch.tensor([4, 7])))
        >>> x.shape, labels.tolist(), instances.tolist()
        (torch.Size([4, 3]), [4, 7, 4, 7], [0, 1, 0, 1])
    """
    views, labels = read_batch(batch)
    instances = torch.arange(len(labels), device=labels.device)
    if len(views) == 1:
        return views[0], labels, instances
    return torch.cat(views), labels.repeat(len(views)), instances.repeat(len(views))


def class_indices(labels: Tensor) -> Tensor:
    """Convert labels to class indices (N,), from one-hot rows (N, C) or a column (N, 1) of integers.

    Raises:
        ValueError: If rows are not one-hot, or labels have another shape.

    Example:
        >>> class_indices(torch.tensor([[0.0, 1.0], [1.0, 0.0]])).tolist(), class_indices(torch.tensor([[5]])).tolist()
        ([1, 0], [5])
        >>> class_indices(torch.tensor([[0.3, 0.7]]))
        Traceback (most recent call last):
        ...
        ValueError: labels: got soft labels (1, 2), expected class indices (N,) or one-hot rows; use them before mixing
    """
    if labels.ndim == 1:
        return labels
    if labels.ndim != 2:
        raise ValueError(
            f"labels: got shape {tuple(labels.shape)}, expected (N,); several views are ((x1, ..., xV), y)"
        )
    if labels.shape[1] == 1:
        if labels.is_floating_point():
            raise ValueError(f"labels: got {labels.dtype} {tuple(labels.shape)}, expected integers (N,); cast them")
        return labels[:, 0]
    ones = labels == 1
    if labels.shape[1] > 1 and bool(((ones | (labels == 0)).all(1) & (ones.sum(1) == 1)).all()):
        return ones.to(torch.uint8).argmax(1)
    raise ValueError(
        f"labels: got soft labels {tuple(labels.shape)}, expected class indices (N,) or one-hot rows; use them before "
        "mixing"
    )


def set_name(name: str, dataloader_idx: int) -> str:
    """Return the name of a data set in logs: the split, with the number of the loader after the first.

    Example:
        >>> set_name("val", 0), set_name("val", 1)
        ('val', 'val_1')
    """
    return f"{name}_{dataloader_idx}" if dataloader_idx else name


def _pair(batch: Any) -> tuple[Any, Any]:
    """Return the inputs and the labels, of any type."""
    if hasattr(batch, "_asdict"):  # a named tuple, whose fields may be in any order
        fields = batch._asdict()
        if _known(fields, INPUT_KEYS) and _known(fields, LABEL_KEYS):
            batch = fields
    if isinstance(batch, Mapping):
        inputs, labels = _known(batch, INPUT_KEYS), _known(batch, LABEL_KEYS)
        if len(inputs) != 1 or len(labels) != 1:
            raise ValueError(
                f"batch: got a {type(batch).__name__} with the keys {', '.join(map(str, batch))}, expected one of "
                f"{', '.join(INPUT_KEYS)} and one of {', '.join(LABEL_KEYS)}"
            )
        return batch[inputs[0]], batch[labels[0]]
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        size = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
        raise ValueError(
            f"batch: got a {type(batch).__name__}{size}, expected (x, y), ((x1, ..., xV), y) or a dict of both"
        )
    for other in batch[2:]:
        if not _is_index(other, batch[1]):
            raise ValueError(
                f"batch: got a {type(batch).__name__} of {len(batch)} with several integer vectors that may be the "
                "labels, expected (x, y), or (x, y, index); return a dict with image and label"
            )
    return batch[0], batch[1]


def _is_index(other: Any, labels: Any) -> bool:
    """Check whether integers after the labels are indices: few are equal, and equal ones have equal labels."""
    other, labels = _vector(other), _vector(labels)
    if other is None or labels is None or other.is_floating_point() or other.dtype == torch.bool:
        return True
    if len(other) != len(labels) or bool((other == labels).all()):
        return True
    different = len(other.unique())
    return 2 * different >= len(other) and torch.stack([other, labels]).unique(dim=1).shape[1] == different


def _vector(tensor: Any) -> Tensor | None:
    """Return a tensor as (N,) if it can be labels, as indices or one-hot rows; else None."""
    if not isinstance(tensor, Tensor):
        return None
    try:
        return class_indices(tensor)
    except ValueError:
        return None


def _known(fields: Mapping[Any, Any], keys: tuple[str, ...]) -> list[str]:
    return [key for key in keys if key in fields]


class StepFeatures(NamedTuple):
    """Features of a batch, as returned by a step.

    Attributes:
        z: Features (N, d).
        labels: Labels (N,).
        instances: Sample ids (N,), equal for views of the same sample; None if not returned.
        shares: Shard sizes of the global batch, which saves gathering them again; None if not returned.
    """

    z: Tensor
    labels: Tensor
    instances: Tensor | None
    shares: Shares | None


def step_features(outputs: Any) -> StepFeatures | None:
    """Read the features from the output of a step; None if it returns no features."""
    if isinstance(outputs, dict) and "z" in outputs and "labels" in outputs:
        labels = outputs["labels"]
        if isinstance(labels, Tensor) and labels.ndim == 2:
            labels = class_indices(labels)
        return StepFeatures(outputs["z"], labels, outputs.get("instances"), outputs.get("shares"))
    return None
