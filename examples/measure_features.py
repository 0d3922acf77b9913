"""Measure the geometry of features that any model has made.

    python examples/measure_features.py [FILE.npz]

The file holds ``features`` (N, d) and ``labels`` (N,), as ``nc-train predict`` writes them. Without one, the raw pixels
of scikit-learn's digits are measured.
"""

import sys

import numpy as np
import torch
from rich import print as show

from nc_lightning.data.digits import load_digits
from nc_lightning.geometry import measure, unit_ball
from nc_lightning.summary import geometry_table


def main(path: str | None = None) -> dict[str, float]:
    """Print the table, and return what is in it."""
    if path is None:
        images, labels = load_digits()
        features = images.flatten(1)
    else:
        with np.load(path, allow_pickle=False) as file:
            features, labels = torch.from_numpy(file["features"]), torch.from_numpy(file["labels"])
    geometry = measure(unit_ball(features), labels)
    show(geometry_table({"features": geometry}, int(labels.max()) + 1, features.shape[1]))
    return geometry


if __name__ == "__main__":
    main(*sys.argv[1:2])
