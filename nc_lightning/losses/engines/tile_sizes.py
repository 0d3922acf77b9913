"""Tile sizes of the similarity matrix, chosen for the cache of a CPU or the memory of a GPU."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

MEMORY_SHARE = 1 / 16
"""Share of a GPU's memory that a loss may use for tiles: 5 GiB of 80."""
UNKNOWN_MEMORY = 2**33
"""Assumed memory in bytes of a device that does not report it."""


class TileSizes(NamedTuple):
    """Sizes in elements and rows.

    Attributes:
        square: Elements of the largest matrix that is computed as one tile.
        rows: Rows of a tile.
        columns: Columns of a tile.
        cache: Elements of the tiles stored for the second sweep, which saves recomputing their products.
        row_block: Elements of a block of whole rows.
        positive_rows: Anchors whose positives are computed together.
        positives: Elements of the matrix of these anchors and their classes.
    """

    square: int
    rows: int
    columns: int
    cache: int
    row_block: int
    positive_rows: int
    positives: int


# Chosen by timing: tiles and blocks stay in the cache.
CPU = TileSizes(square=2**20, rows=512, columns=2048, cache=2**22, row_block=2**19, positive_rows=128, positives=2**24)


def tile_sizes(z: Tensor) -> TileSizes:
    """Return the tile sizes for the device of the features.

    Example:
        >>> tile_sizes(torch.zeros(4, 2)).rows
        512
    """
    if z.device.type == "cpu":
        return CPU
    return sizes_within(int(MEMORY_SHARE * _memory(z.device)) // z.element_size())


def sizes_within(elements: int) -> TileSizes:
    """Return the largest tile sizes with which no engine uses more memory than ``elements`` take, for a GPU.

    Launching a kernel costs more than computing a small tile, so tiles are as large as the memory allows.

    Example:
        >>> sizes_within(2**29).square >= 8192**2
        True
    """
    rows = min(2048, math.isqrt(elements // 16))  # tiles on the diagonal are square
    return TileSizes(
        square=elements // 8,  # two kinds of terms, twice, and lists of pairs up to a sixth as long
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
