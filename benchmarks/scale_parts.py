"""Parts of a training whose time and memory `benchmarks.scale` predicts: what they run, and how they grow."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from nc_lightning import plots
from nc_lightning.data import ClassBalancedBatchSampler
from nc_lightning.geometry import CenterDistances, ClassStatistics, class_mean_spectrum, equal_inner_product
from nc_lightning.geometry.blocks import NUMBERS_AT_ONCE
from nc_lightning.geometry.class_pairs import centered_pairs
from nc_lightning.geometry.spectra import feature_eigenvalues
from nc_lightning.losses import HSCLLoss

BATCH = 1024
"""Samples in a batch of a measurement."""


class Sizes(NamedTuple):
    """Samples N, classes C and dimensions d."""

    n: int
    c: int
    d: int


def features(sizes: Sizes) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random unit vectors (N, d), and labels that repeat the classes."""
    z = torch.nn.functional.normalize(torch.randn(sizes.n, sizes.d))
    return z, torch.arange(sizes.n) % sizes.c


def class_statistics(sizes: Sizes) -> ClassStatistics:
    """Return statistics of two samples of each class, in batches."""
    stats = ClassStatistics(sizes.c, sizes.d)
    for labels in torch.arange(2 * sizes.c).split(BATCH):
        stats.update(torch.randn(len(labels), sizes.d), labels % sizes.c)
    return stats


def loss(sizes: Sizes) -> Callable[[], object]:
    """Return one forward and backward pass of HSCL."""
    (z, labels), compute = features(sizes), HSCLLoss(beta=5.0)
    return lambda: compute(z.clone().requires_grad_(), labels).backward()


def hardness(sizes: Sizes) -> Callable[[], object]:
    """Return the statistics of negatives that `HardNegativeSampler` logs."""
    (z, labels), compute = features(sizes), HSCLLoss(beta=5.0)
    return lambda: compute.negative_statistics(z, labels)


def batches(sizes: Sizes) -> Callable[[], object]:
    """Return the drawing of an epoch of balanced batches with a tenth of the classes."""
    some = max(2, sizes.c // 10)
    sampler = ClassBalancedBatchSampler(torch.arange(sizes.n) % sizes.c, 2 * some, classes_per_batch=some)
    return lambda: sampler.draw(sampler.generator())


def first_pass(sizes: Sizes) -> Callable[[], object]:
    """Return the class statistics of a set."""
    z, labels = features(sizes)

    def run() -> None:
        stats = ClassStatistics(sizes.c, sizes.d)
        for rows, of_rows in zip(z.split(BATCH), labels.split(BATCH), strict=True):
            stats.update(rows, of_rows)

    return run


def second_pass(sizes: Sizes) -> Callable[[], object]:
    """Return the distances of a set to the class centers."""
    stats, (z, labels) = class_statistics(sizes), features(sizes)

    def run() -> None:
        to_centers = CenterDistances(stats)
        for rows, of_rows in zip(z.split(BATCH), labels.split(BATCH), strict=True):
            to_centers.update(rows, of_rows)

    return run


def spectra(sizes: Sizes) -> Callable[[], object]:
    """Return the spectra of class means and of features, which most measures are made of."""
    stats = class_statistics(sizes)

    def run() -> None:
        stats.memo.clear()
        class_mean_spectrum(stats)
        feature_eigenvalues(stats)
        feature_eigenvalues(stats, centered=False)

    return run


def class_pairs(sizes: Sizes) -> Callable[[], object]:
    """Return the measures of pairs of class means, once their spectrum is known."""
    stats = class_statistics(sizes)
    class_mean_spectrum(stats)

    def run() -> None:
        stats.memo.pop("pairs of class means", None)
        centered_pairs(stats)
        equal_inner_product(stats)

    return run


def figures(sizes: Sizes) -> Callable[[], object]:
    """Return the drawing of figures from statistics that have been measured."""
    stats = class_statistics(sizes)
    class_mean_spectrum(stats)
    draw = (plots.cosines_figure, plots.spectrum_figure, plots.plane_figure)
    return lambda: [plots.to_png(figure(stats)) for figure in draw]


class Part(NamedTuple):
    """A part of a run: how its time and memory grow, and the sizes that it is measured at, the last one as a check."""

    make: Callable[[Sizes], Callable[[], object]]
    seconds: str
    numbers: str
    sizes: list[Sizes]

    def terms(self, model: str, sizes: Sizes) -> list[float]:
        """Return the value of each term of a model."""
        n, c, d = sizes
        names: dict[str, Any] = {"N": n, "C": c, "d": d, "m": min(c, d), "B": min(c * c, NUMBERS_AT_ONCE)}
        return [float(eval(term.replace(" ", "*"), names)) for term in model.split(" + ")]


def of(*sizes: tuple[int, int, int]) -> list[Sizes]:
    """Return the sizes of a part."""
    return [Sizes(*each) for each in sizes]


PAIRS = of((2048, 512, 128), (2048, 512, 512), (4096, 1024, 128), (4096, 1024, 512), (8192, 2048, 256))
PARTS = {
    "loss": Part(loss, "N N d + N N", "N d + N + 1", PAIRS),
    "hardness": Part(hardness, "N N d + N N", "N + 1", PAIRS),
    "batches": Part(
        batches,
        "N + C",
        "N + C + 1",
        of((100_000, 1000, 1), (100_000, 10_000, 1), (1_000_000, 1000, 1), (1_000_000, 20_000, 1)),
    ),
    "first pass": Part(
        first_pass,
        "N d d + N d",
        "C d + d d + 1",
        of((8192, 1000, 128), (8192, 1000, 512), (8192, 4000, 512), (8192, 1000, 1024), (16384, 4000, 1024)),
    ),
    "second pass": Part(
        second_pass,
        "N C d + N C",
        "C d + 1",
        of((2048, 1000, 128), (2048, 1000, 512), (2048, 4000, 128), (2048, 4000, 512), (4096, 8000, 512)),
    ),
    "spectra": Part(
        spectra,
        "C d m + d d d",
        "C d + d d",
        of((2, 2000, 256), (2, 4000, 256), (2, 2000, 768), (2, 500, 1024), (2, 5000, 768)),
    ),
    "pairs": Part(
        class_pairs,
        "C C d + C C",
        "C d + B",
        of((2, 1000, 128), (2, 1000, 512), (2, 3000, 128), (2, 3000, 512), (2, 6000, 512)),
    ),
    "figures": Part(
        figures,
        "C d + C + 1",
        "C d + 1",
        of((2, 1000, 128), (2, 4000, 128), (2, 1000, 512), (2, 4000, 512), (2, 8000, 512)),
    ),
}
