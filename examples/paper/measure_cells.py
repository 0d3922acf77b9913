"""What the tables of a sweep leave out: accuracy of nearest neighbors, and cosines of the means of unbalanced classes.

    python examples/paper/measure_cells.py sweeps/detached
    python examples/paper/measure_cells.py sweeps/imbalance

Neighbors are the 20 training samples with the largest cosine, with equal votes, for projections z and encoder features.
Cosines are those of the training set, averaged over pairs of large and small classes, next to `scl_optimum`.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

import torch

from nc_lightning import load
from nc_lightning.data.base import LabeledDataModule
from nc_lightning.evaluation import knn_predict
from nc_lightning.geometry import scl_optimum
from nc_lightning.runs.evaluation import Features, frozen_features

NEIGHBORS = 20


def accuracy(train: Features, val: Features, layer: str, num_classes: int) -> float:
    """Return the share of validation samples whose neighbors have their label."""
    found = knn_predict(val.layers[layer], train.layers[layer], train.labels, num_classes, NEIGHBORS, temperature=None)
    return float((found == val.labels).double().mean())


def cosines(gram: torch.Tensor, counts: list[int]) -> dict[str, float]:
    """Return the mean cosines of pairs of classes, by whether they are large or small."""
    scale = gram.diagonal().sqrt()
    cosine, large = gram / (scale[:, None] * scale), torch.tensor(counts) == max(counts)
    different = ~torch.eye(len(gram), dtype=torch.bool)
    pairs = {"large, large": large[:, None] & large, "large, small": large[:, None] & ~large}
    pairs["small, small"] = ~large[:, None] & ~large
    return {name: float(cosine[mask & different].mean()) for name, mask in pairs.items()}


def main(sweep: str = "sweeps/detached") -> dict[str, dict[str, list[float]]]:
    """Print and return the measures of each setting, over its seeds."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    optima: dict[str, dict[str, float]] = {}
    for run in sorted(Path(sweep).glob("cells/*/lightning_logs/*")):
        setting = re.sub(r"-seed=\d+$", "", run.parents[1].name)
        module, data = load(run)
        if not isinstance(data, LabeledDataModule):
            raise TypeError(f"{run}: got {type(data).__name__}, expected a data module of nc_lightning.data")
        train, val = frozen_features(module, data, ("z", "encoder"), ("train", "val"))
        for layer in ("z", "encoder"):
            found[setting][f"k-NN on {layer}"].append(accuracy(train, val, layer, data.num_classes))
        counts = data.class_counts()
        if counts is None:
            continue
        counts = [count * data.batch_size // sum(counts) for count in counts]  # in each batch
        z, labels = train.layers["z"], train.labels
        means = torch.stack([z[labels == c].double().mean(0) for c in range(len(counts))])
        for name, value in cosines(means @ means.T, counts).items():
            found[setting][name].append(value)
        optima[setting] = cosines(scl_optimum(counts=counts).gram, counts)
    for setting, measures in found.items():
        for name, values in measures.items():
            goal = f", SCL's optimum {optima[setting][name]:.4f}" if name in optima.get(setting, {}) else ""
            print(f"{setting}: {name} {sum(values) / len(values):.4f} ({min(values):.4f} to {max(values):.4f}){goal}")
    return found


if __name__ == "__main__":
    main(*sys.argv[1:])
