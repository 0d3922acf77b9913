"""Blocks of rows of a large matrix, so that memory does not grow with its number of rows."""

from collections.abc import Iterator

NUMBERS_AT_ONCE = 2**22
"""Numbers of a matrix of all pairs that are in memory at a time: 32 MiB in float64."""


def row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Split the rows of a matrix into blocks of at most `NUMBERS_AT_ONCE` numbers, of at least one row.

    Example:
        >>> [block for block in row_blocks(5, columns=2**21)]
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    height = max(1, NUMBERS_AT_ONCE // max(1, columns))
    return (slice(start, min(start + height, rows)) for start in range(0, rows, height))
