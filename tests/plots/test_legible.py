"""Every figure is legible: at any number of classes, length of names and range of values, also without any value."""

import math

import pytest
import torch
from matplotlib.figure import Figure

from nc_lightning.geometry import ClassStatistics, simplex_etf, unit_ball
from nc_lightning.losses import Exponential, similarity_histograms
from nc_lightning.metrics import NC1, NC2, Alignment, EffectiveRank, NeuralCollapse, Spectrum, Uniformity
from nc_lightning.plots import (
    cosines_figure,
    depth_figure,
    geometry_figure,
    plane_figure,
    similarities_figure,
    spectrum_figure,
    trajectory_figure,
)
from nc_lightning.reports.record import RunRecord
from nc_lightning.sweeps.figures import measure_figure, path_figure, spectra_figure
from nc_lightning.sweeps.results import Group, Result
from tests.plots.legible import flaws

LONG = "a run with a name that is much longer than a panel, lightning_logs/version_0/checkpoints"
RANGES = {
    "tiny": [1.1e-9, 1.2e-9],
    "huge": [1e12, 3e12],
    "constant": [0.31, 0.31],
    "zero": [0.0, 0.0],
    "negative": [-0.2, -0.1],
    "less than a decade": [0.31, 0.35],
    "many decades": [1e-12, 1e6],
    "one point": [0.5],
    "all NaN": [math.nan, math.nan],
    "infinite": [math.inf, 1.0],
}


def features(classes, kind="noisy"):
    labels = torch.arange(classes).repeat(3)
    dim = max(2, classes - 1)
    z = unit_ball(simplex_etf(classes, dim)[labels] + 0.5 * torch.randn(len(labels), dim) / dim**0.5)
    z = torch.ones_like(z) if kind == "all equal" else z * 1e9 if kind == "huge" else z
    return ClassStatistics(classes, dim).update(z, labels), z, labels


@pytest.mark.some(2)
@pytest.mark.parametrize("classes", [2, 3, 10, 20, 100, 1000])
@pytest.mark.parametrize("kind", ["noisy", "all equal", "huge"])
def test_the_figures_of_features(classes, kind):
    stats, z, labels = features(classes, kind)
    names = [f"class {k} with a name of more than forty letters, or is it fewer?" for k in range(classes)]
    for figure in (
        cosines_figure(stats),
        cosines_figure({LONG: stats, "short": stats}, names),
        spectrum_figure({LONG: stats, "val": stats}),
        plane_figure(stats, z, labels),
        plane_figure(stats, z, labels, names),
        geometry_figure(stats),
        similarities_figure(similarity_histograms(z, labels, Exponential(1.0), max_anchors=64), classes),
    ):
        assert flaws(figure) == []


@pytest.mark.some(2)
@pytest.mark.parametrize("values", RANGES.values(), ids=RANGES)
@pytest.mark.parametrize("rank", [1, 9, 999])
def test_the_trajectory(values, rank):
    assert flaws(trajectory_figure({"train": [(x, rank / 2) for x in values], LONG: [(values[0], rank)]}, rank)) == []


@pytest.mark.some(3)
@pytest.mark.parametrize("values", RANGES.values(), ids=RANGES)
@pytest.mark.parametrize("layers", [1, 12, 60])
def test_the_figure_by_depth(values, layers):
    keys = ("nc1", "nc2_etf", "effective_rank", "ncc_accuracy")
    names = [f"features.denseblock{k}.denselayer{k}.conv" for k in range(layers)]
    by_layer = {name: {"train": dict.fromkeys(keys, values[k % len(values)])} for k, name in enumerate(names)}
    assert flaws(depth_figure(by_layer, dict.fromkeys(names, 9))) == []


@pytest.mark.some(2)
@pytest.mark.parametrize("values", RANGES.values(), ids=RANGES)
@pytest.mark.parametrize("of", ["numbers", "names", "objectives", "panels"])
def test_the_figures_of_a_sweep(values, of):
    xs = {"numbers": [2, 10], "names": ["nc_lightning.losses.Exponential", "triplet"], "panels": [1, 2]}.get(of, [None])
    groups = []
    for objective in ("scl", LONG):
        for number, x in enumerate(xs):
            settings = {"objective": objective} | ({} if x is None else {"x": x})
            settings |= {"batches": LONG + str(number)} if of == "panels" else {}
            history = [
                {"epoch": float(e), "geometry/train/nc1": v, "geometry/train/effective_rank": v}
                for e, v in enumerate(values)
            ]
            record = RunRecord("", 10, 9, history=history, spectrum=[1.0, *values])
            groups.append(Group(settings, [Result("", settings, "done", "", 1.0, record)]))
    axes = ["objective", *(["x"] if xs != [None] else []), *(["batches"] if of == "panels" else [])]
    for key in ("nc1", "effective_rank", "absent"):
        assert flaws(measure_figure(groups, axes, f"geometry/train/{key}", "a measure with a name", 9.0)) == []
        assert flaws(path_figure(groups, axes, f"geometry/train/{key}", "a measure with a name")) == []
    assert flaws(spectra_figure(groups, axes)) == []


@pytest.mark.some(1)
@pytest.mark.parametrize("classes", [3, 100])
def test_the_plots_of_metrics(classes):
    _, z, labels = features(classes)
    for metric in (
        *(of(classes, z.shape[1]) for of in (NeuralCollapse, NC1, NC2, EffectiveRank, Spectrum, Alignment)),
        Uniformity(),
    ):
        metric.update(z, labels)
        value = metric.compute()
        for val in (None, [value, value, value]):
            assert flaws(metric.plot(val)[0]) == [], (type(metric), val)


def test_every_kind_of_flaw_is_found():
    figure = Figure(figsize=(3, 2))
    bare, covered = figure.subplots(1, 2)
    bare.set(xticks=(), yticks=(0.5,))
    bare.set_title("a title that is far too long for this figure")
    covered.plot([0, 1], [1, 1], label="x")
    covered.legend(loc="center")
    found = flaws(figure)
    for flaw in ("is cut off", "empty axes", "no label on the x-axis", "the legend covers data"):
        assert any(flaw in each for each in found), flaw
    figure.text(0.5, 0.5, "one")
    figure.text(0.52, 0.5, "two")
    assert "'one' covers 'two'" in flaws(figure)
