"""Arrays that grow on disk batch by batch, on each process, and their assembly in the order of the data set."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
INDICES = "indices"
"""Name of the array with the positions in the data set; -1 where a loader does not give them."""
BLOCK_ROWS = 4096
"""Number of rows that are copied at once."""


class Part(NamedTuple):
    """Rows that one process has written: a file of plain numbers, their type, and the shape of the array."""

    path: str
    dtype: str
    shape: tuple[int, ...]

    def mapped(self) -> Array:
        """Return the array, memory-mapped."""
        return _mapped(Path(self.path), np.dtype(self.dtype), self.shape)


class PartFiles:
    """Append batches of named arrays to files of this process, without keeping them.

    Args:
        folder: Folder that exists; processes may share it.
        rank: Number of this process, which is part of the file names.

    Attributes:
        folder: The folder.
        parts: What has been appended, by set and name; complete after `close`.

    Example:
        >>> import tempfile
        >>> files = PartFiles(Path(tempfile.mkdtemp()), rank=0)
        >>> for batch in np.arange(6.0).reshape(3, 2, 1):
        ...     files.append("train", {"z": batch})
        >>> files.close()
        >>> files.parts["train"]["z"].mapped().ravel().tolist()
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder, self._rank = folder, rank
        self._files: dict[str, BinaryIO] = {}
        self.parts: dict[str, dict[str, Part]] = {}

    def append(self, name_of_set: str, arrays: Mapping[str, Array]) -> None:
        """Append a batch.

        Raises:
            ValueError: If the rows of an array differ in shape from the first ones, or arrays differ in length.
            OSError: If the disk is full.
        """
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            got = ", ".join(f"{count} of {name}" for name, count in lengths.items())
            raise ValueError(f"predict: got {got} in a batch of {name_of_set}, expected equal numbers of rows")
        parts = self.parts.setdefault(name_of_set, {})
        for name, array in arrays.items():
            if name not in parts:
                path = str(self.folder / f"{self._rank}-{len(self._files)}")
                self._files[path] = open(path, "wb")  # noqa: SIM115 - until `close`
                parts[name] = Part(path, array.dtype.str, (0, *array.shape[1:]))
            part = parts[name]
            if part.shape[1:] != array.shape[1:]:
                raise ValueError(
                    f"predict: got {name} of shape {array.shape} after {part.shape}, expected rows of equal length"
                )
            self._files[part.path].write(np.ascontiguousarray(array, part.dtype).data)
            parts[name] = part._replace(shape=(part.shape[0] + len(array), *part.shape[1:]))

    def close(self) -> None:
        """Write what is buffered."""
        for file in self._files.values():
            file.close()


def assemble(shares: Sequence[Mapping[str, Part]], folder: Path) -> dict[str, Array]:
    """Return the arrays of all processes, memory-mapped, in the order of the data set.

    Of a sample that several processes have, as padding makes them, the first process's counts. If indices are missing,
    process r of W has the samples r, r + W, r + 2 W and so on, and `indices` are these. Only the indices are in memory;
    what is already in order is not copied.

    Args:
        shares: Parts of each process by name, in rank order; those without samples may be empty.
        folder: Folder for the assembled arrays.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> files = PartFiles(folder, 0), PartFiles(folder, 1)
        >>> for rank in (0, 1):
        ...     files[rank].append("train", {"z": np.array([rank, rank + 2]), "indices": np.array([-1, -1])})
        ...     files[rank].close()
        >>> assemble([file.parts["train"] for file in files], folder)["z"].tolist()
        [0, 1, 2, 3]
    """
    shares = [share for share in shares if share]
    given = [share[INDICES].mapped() for share in shares]
    if any((indices < 0).any() for indices in given):
        given = [rank + len(shares) * np.arange(len(indices)) for rank, indices in enumerate(given)]
    indices = np.concatenate(given)
    order = _order(indices, np.repeat(np.arange(len(given)), [len(own) for own in given]))
    in_order = len(shares) == 1 and bool((order == np.arange(len(indices))).all())
    arrays: dict[str, Array] = {}
    for number, name in enumerate(name for name in shares[0] if name != INDICES):
        parts = [share[name] for share in shares]
        arrays[name] = parts[0].mapped() if in_order else _gathered(parts, order, folder / f"assembled-{number}")
    return arrays | {INDICES: indices[order]}


def mapped_texts(texts: Sequence[Any], indices: Array, path: Path) -> Array:
    """Return ``texts[i]`` for each index as a memory-mapped array of strings."""
    width = max((len(str(texts[i])) for i in indices), default=1)
    with open(path, "wb") as file:
        for block in blocks(indices):
            file.write(np.array([str(texts[i]) for i in block], f"<U{width}").data)
    return _mapped(path, np.dtype(f"<U{width}"), indices.shape)


def blocks(array: Array, rows: int = BLOCK_ROWS) -> Iterator[Array]:
    """Yield the rows of an array, a few at a time."""
    for start in range(0, len(array), rows):
        yield array[start : start + rows]


def _order(indices: Array, ranks: Array) -> Array:
    """Return the rows sorted by index, those of the lowest rank alone where several ranks have an index."""
    lowest = np.full(indices.max(initial=-1) + 1, ranks.max(initial=0))
    np.minimum.at(lowest, indices, ranks)
    kept = np.flatnonzero(ranks == lowest[indices])
    return kept[np.argsort(indices[kept], kind="stable")]


def _gathered(parts: Sequence[Part], order: Array, path: Path) -> Array:
    """Write the rows of the concatenated parts in another order."""
    mapped = [part.mapped() for part in parts]
    ends = np.cumsum([len(rows) for rows in mapped])
    dtype = np.dtype(parts[0].dtype)
    with open(path, "wb") as file:
        for block in blocks(order):
            rows = np.empty((len(block), *parts[0].shape[1:]), dtype)
            share = np.searchsorted(ends, block, side="right")
            for number, part in enumerate(mapped):
                chosen = share == number
                rows[chosen] = part[block[chosen] - (ends[number] - len(part))]
            file.write(rows.data)
    return _mapped(path, dtype, (len(order), *parts[0].shape[1:]))


def _mapped(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    if 0 in shape:  # an empty file cannot be mapped
        return np.empty(shape, dtype)
    return np.memmap(path, dtype, "r", shape=shape)
