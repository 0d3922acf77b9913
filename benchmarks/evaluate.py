"""Time the exact search for the nearest neighbors of 10,000 queries in 50,000 features against other libraries.

    pip install faiss-cpu
    python -m benchmarks.evaluate [--bank 50000] [--queries 10000] [--feature_dim 512] [--k 20] [--rounds 5]

All are timed in alternation, and the ratio to ours is reported as the median over rounds. Features are random on the
unit sphere, float32. Every method has the same threads, returns similarities and indices, and is checked to find the
same neighbors first.

    ours      nearest_neighbors, which also normalizes both
    naive     one expression of torch: all similarities, then their k largest
    sklearn   NearestNeighbors of scikit-learn, brute, cosine
    faiss     IndexFlatIP of faiss-cpu; left out if it is not installed

Memory is the peak of resident memory in one call, minus the memory before; each call runs in its own process for it
(Linux only). It includes the result.
"""

import argparse
import importlib.util
import statistics
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from benchmarks import device as of_device
from benchmarks import results
from benchmarks.loss_memory import peak_of
from nc_lightning.evaluation import nearest_neighbors
from nc_lightning.geometry import unit_sphere

Search = Callable[[Tensor, Tensor, int], tuple[Any, Any]]


def naive(queries: Tensor, bank: Tensor, k: int) -> tuple[Any, Any]:
    """All similarities at once."""
    found = (queries @ bank.T).topk(k)
    return found.values, found.indices


def sklearn(queries: Tensor, bank: Tensor, k: int) -> tuple[Any, Any]:
    """The brute-force search of scikit-learn."""
    index = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(bank.numpy())
    distances, indices = index.kneighbors(queries.numpy())
    return 1 - distances, indices


def faiss(queries: Tensor, bank: Tensor, k: int) -> tuple[Any, Any]:
    """The exact index of faiss."""
    library: Any = importlib.import_module("faiss")
    library.omp_set_num_threads(torch.get_num_threads())
    index = library.IndexFlatIP(bank.shape[1])
    index.add(bank.numpy())
    found: tuple[Any, Any] = index.search(queries.numpy(), k)
    return found


def searches() -> dict[str, Search]:
    """The methods that are installed, ours first."""
    found: dict[str, Search] = {"ours": nearest_neighbors, "naive": naive, "sklearn": sklearn}
    return found | ({"faiss": faiss} if importlib.util.find_spec("faiss") else {})


def check_agreement(queries: Tensor, bank: Tensor, k: int) -> None:
    """Raise unless all find the same neighbors, except where rounding decides."""
    expected = nearest_neighbors(queries, bank, k)
    for name, search in searches().items():
        similarities, indices = (np.asarray(found) for found in search(queries, bank, k))
        np.testing.assert_allclose(similarities, expected[0], atol=1e-5, err_msg=name)
        assert (indices == np.asarray(expected[1])).mean() > 0.999, name


def features(count: int, feature_dim: int, seed: int) -> Tensor:
    """Random features on the unit sphere."""
    return unit_sphere(torch.randn(count, feature_dim, generator=torch.Generator().manual_seed(seed)))


def extra_mebibytes(search: Search, queries: Tensor, bank: Tensor, k: int) -> float:
    """Peak memory of a call, minus the memory before."""
    search(queries[:50], bank[:100], min(k, 100))  # allocates what the method always needs
    return peak_of(lambda: search(queries, bank, k))


def main() -> None:
    """Print time and memory of each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bank", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--feature_dim", type=int, default=512)
    parser.add_argument("--k", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    results.add_argument(parser)
    parser.add_argument("--only", help="print the memory of one method, measured in this process")
    arguments = parser.parse_args()
    k, dim = arguments.k, arguments.feature_dim
    queries, bank = features(arguments.queries, dim, 0), features(arguments.bank, dim, 1)
    if arguments.only:
        print(extra_mebibytes(searches()[arguments.only], queries, bank, k))
        return
    check_agreement(queries[:200], bank, k)
    rounds = []
    for _ in range(arguments.rounds):
        calls = {name: partial(search, queries, bank, k) for name, search in searches().items()}
        rounds.append({name: of_device.seconds(call, queries.device, at_least=0) for name, call in calls.items()})
    machine = of_device.name_of(queries.device)
    print(f"{arguments.queries} queries in {arguments.bank} x {dim}, k = {k}, {machine}")
    table: list[dict[str, float | str | None]] = []
    for name in searches():
        size = f"--queries {arguments.queries} --bank {arguments.bank} --feature_dim {dim} --k {k}"
        command = [sys.executable, "-m", "benchmarks.evaluate", "--only", name, *size.split()]
        memory = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        ratio = results.spread([r[name] / r["ours"] for r in rounds])
        took = statistics.median(r[name] for r in rounds)
        print(f"{name:>8}  time / ours {ratio}  {memory:.0f} MiB  {took:.2f} s")
        table.append({"search": name, "time / ours: median (range)": ratio, "memory in MiB": round(memory)})
    fastest = results.spread([min(t for name, t in r.items() if name != "ours") / r["ours"] for r in rounds])
    print(f"fastest other / ours: {fastest}")
    results.write(arguments.json, machine, table)


if __name__ == "__main__":
    main()
