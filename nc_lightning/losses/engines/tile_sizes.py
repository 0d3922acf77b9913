"""Sizes of the tiles of the similarity matrix: the cache of a CPU or the memory of a card decides."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

MEMORY_SHARE = 1 / 16
"""Share of a card's memory that a loss may take beyond what grows with the number of samples: 5 GiB of 80."""
UNKNOWN_MEMORY = 2**33
"""Memory in bytes that a device is taken to have if it does not say."""


class TileSizes(NamedTuple):
    """Numbers of elements and of rows.

    Attributes:
        square: Elements of the largest matrix that is one tile.
        rows: Rows of a tile.
        columns: Columns of a tile.
        cache: Elements of all tiles that are stored for the second sweep, which then need no product.
        row_block: Elements of a block of whole rows.
        positive_rows: Anchors whose positives are looked at together.
        positives: Elements of the matrix of these and of their classes.
    """

    square: int
    rows: int
    columns: int
    cache: int
    row_block: int
    positive_rows: int
    positives: int


# Found by timing: tiles and blocks stay in the cache.
CPU = TileSizes(square=2**20, rows=256, columns=2048, cache=2**22, row_block=2**19, positive_rows=64, positives=2**24)


def tile_sizes(z: Tensor) -> TileSizes:
    """Return the sizes for features on a device.

    Example:
        >>> tile_sizes(torch.zeros(4, 2)).rows
        256
    """
    if z.device.type == "cpu":
        return CPU
    return sizes_within(int(MEMORY_SHARE * _memory(z.device)) // z.element_size())


def sizes_within(elements: int) -> TileSizes:
    """Return sizes with which no engine takes more memory than for so many elements, for a device without a cache.

    A kernel costs the host more than a small tile costs the device, so tiles are as large as the memory allows.

    Example:
        >>> sizes_within(2**29).square >= 8192**2
        True
    """
    rows = min(2048, math.isqrt(elements // 16))  # as a tile on the diagonal is a square
    return TileSizes(
        square=elements // 8,  # two kinds of terms, twice, and lists of up to a sixth as many pairs
        rows=rows,
        columns=elements // (16 * rows),
        cache=elements // 2,
        row_block=elements // 8,
        positive_rows=2048,
        positives=elements // 32,
    )


def _memory(device: torch.device) -> int:
    module: Any = torch.get_device_module(device)
    if hasattr(module, "get_device_properties"):
        return int(module.get_device_properties(device).total_memory)
    if hasattr(module, "recommended_max_memory"):  # Apple's
        return int(module.recommended_max_memory())
    return UNKNOWN_MEMORY
