"""Nearest neighbors by cosine similarity: an exact search in blocks, whose memory does not grow with the bank."""

from collections.abc import Callable

import torch
from torch import Tensor

from nc_lightning.checks import Array, as_features, check_count
from nc_lightning.evaluation.samples import check_dimensions, check_samples
from nc_lightning.geometry import unit_sphere

BANK_ROWS, QUERY_ROWS = 2**16, 2**10
"""Rows of the bank and of the queries whose similarities are in memory at a time: 256 MiB in float32.

Few large operations are faster than many small ones, whose threads wait for each other, most of all on a busy machine.
"""

CHUNK = 32
"""Similarities that share a maximum in the search. Shorter chunks leave fewer candidates, but maxima take longer."""


@torch.no_grad()
def nearest_neighbors(queries: Array, bank: Array, k: int) -> tuple[Tensor, Tensor]:
    """Find the k rows of a bank with the largest cosine similarity to each query; exact, on any device.

    Both are read in blocks, so at most 2^26 similarities are in memory (256 MiB in float32; up to five times as much
    if many are equal and k is more than a 64th of the bank), besides the result and the normalized rows of one block,
    2^16 of the bank. A query that is itself in the bank is its own neighbor. A row of zeros has the similarity 0 to
    everything. Products on a GPU have the precision that torch is set to, see `torch.set_float32_matmul_precision`.

    Args:
        queries: Features (M, d), any floating-point dtype; they need not be normalized.
        bank: Features (N, d), N >= k.
        k: Number of neighbors.

    Returns:
        Similarities (M, k) in descending order, range [-1, 1] up to rounding, float32 or, for float64 features,
        float64; and indices (M, k) into the bank. Among equal similarities, lower indices come first.

    Raises:
        TypeError: If features are not floating point.
        ValueError: If shapes do not fit, a feature is not finite, or k is larger than the bank.

    Example:
        >>> bank = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
        >>> similarities, indices = nearest_neighbors(torch.tensor([[2.0, 0.0]]), bank, k=2)
        >>> indices.tolist(), [round(s, 4) for s in similarities[0].tolist()]
        ([[0, 2]], [1.0, 0.7071])
    """
    queries, bank = as_features(queries, "queries"), as_features(bank, "bank")
    check_count("k", k)
    check_samples(queries, None, 0, "queries")
    check_samples(bank, None, 0, "bank")
    check_dimensions(queries, bank)
    if k > len(bank):
        raise ValueError(f"k: got {k}, expected at most {len(bank)}, the number of samples in the bank")
    width = min(BANK_ROWS, len(bank) + -len(bank) % CHUNK)
    with torch.autocast(queries.device.type, enabled=False):
        blocks = queries.split(QUERY_ROWS)
        memory = unit_sphere(queries[:1]).new_empty(len(blocks[0]), width)  # new memory for each block costs time
        found = [_Nearest(k, memory[: len(rows)]) for rows in blocks]
        for start in range(0, len(bank), BANK_ROWS):
            columns = unit_sphere(bank[start : start + BANK_ROWS]).T.to(memory.dtype)
            memory[:, columns.shape[1] :] = -torch.inf
            for nearest, rows in zip(found, blocks, strict=True):
                block = memory[: len(rows)]
                torch.mm(unit_sphere(rows), columns, out=block[:, : columns.shape[1]])
                nearest.update(block, start)
    return torch.cat([n.similarities for n in found]), torch.cat([n.indices for n in found])


class _Nearest:
    """The at most k nearest neighbors of a block of queries so far, best first."""

    def __init__(self, k: int, block: Tensor) -> None:
        self.k, self.similarities = k, block.new_empty(len(block), 0)
        self.indices = torch.empty_like(self.similarities, dtype=torch.int64)

    def update(self, block: Tensor, start: int) -> None:
        """Merge the similarities (B, n) of the next n rows of the bank, whose indices begin at ``start``."""
        candidates, indices = _candidates(block, self.k)
        known = self.similarities.shape[1]
        values = torch.cat([self.similarities, candidates], 1) if known else candidates
        best = largest(values, min(self.k, values.shape[1]))
        new = indices((best - known).clamp(min=0)) + start
        if known:
            new = torch.where(best < known, self.indices.gather(1, best.clamp(max=known - 1)), new)
        self.similarities, self.indices = values.gather(1, best), new


def _candidates(block: Tensor, k: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return values (B, m) that include the k largest of each row, in order, and a function to their columns.

    The k largest values of a row lie in the k chunks with the largest maxima.
    """
    count = block.shape[1] // CHUNK
    if 2 * k > count:
        return block, lambda columns: columns
    chunks = block.view(len(block) * count, CHUNK)
    chosen = largest(chunks.amax(1).view(len(block), count), k).sort(1).values
    rows = torch.arange(len(block), device=block.device)[:, None] * count
    candidates = chunks.index_select(0, (rows + chosen).flatten()).view(len(block), -1)
    return candidates, lambda columns: chosen.gather(1, columns // CHUNK) * CHUNK + columns % CHUNK


def largest(values: Tensor, k: int) -> Tensor:
    """Return the columns (B, k) of the k largest values of each row in descending order, lower columns first in ties.

    Example:
        >>> largest(torch.tensor([[1.0, 3.0, 2.0, 3.0, 2.0]]), 3)
        tensor([[1, 3, 2]])
    """
    top, columns = values.topk(min(k + 1, values.shape[1]))
    columns = columns[:, :k]
    tied = (top[:, 1:] == top[:, :-1]).any(1)
    if tied.any():  # torch.topk returns equal values in any order
        columns[tied] = values[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
    return columns
