"""Figure of neural collapse by depth: the headline measures of several layers."""

import math
from collections.abc import Mapping

from nc_lightning.plots.canvas import DPI, Figure, add_legend, add_title, legend_height
from nc_lightning.plots.panels import COLORS
from nc_lightning.plots.texts import shortened, widest
from nc_lightning.plots.ticks import on_log_axis, scale_axis

ByLayer = Mapping[str, Mapping[str, Mapping[str, float]]]
"""Measures by layer, set and key."""
_PANELS = {
    "nc1": "NC1 (ideal 0)",
    "nc2_etf": "NC2, distance to the simplex (ideal 0)",
    "effective_rank": "effective rank over the largest (ideal 1)",
    "ncc_accuracy": "accuracy of the nearest class mean (ideal 1)",
}
DEPTH_MEASURES = tuple(_PANELS)
"""Keys of the measures that are shown by layer, also in charts and in the table of the terminal."""
_WIDTH, _PANEL, _LEFT, _GAP = 7.9, (3.1, 1.85), 0.8, 0.5
_NAME_SIZE = 9
_MOST_LAYERS = 16
"""Largest number of layers that are named on an axis; of more, only some are."""


def depth_figure(by_layer: ByLayer, ranks: Mapping[str, int]) -> Figure:
    """Draw NC1, NC2, effective rank and nearest-class-mean accuracy by layer, with a curve for each set.

    Args:
        by_layer: Measures by layer, set and key, with the layers in the order of execution, as in
            `GeometryMonitor.by_layer`.
        ranks: Largest possible effective rank of each layer, min(C - 1, d).

    Raises:
        ValueError: If there is no layer.

    Example:
        >>> import torch
        >>> from nc_lightning.geometry import measure
        >>> h, z, labels = torch.randn(40, 8), torch.randn(40, 3), torch.arange(40) % 4
        >>> by_layer = {"encoder": {"train": measure(h, labels)}, "z": {"train": measure(z, labels)}}
        >>> [label.get_text() for label in depth_figure(by_layer, {"encoder": 3, "z": 3}).axes[-1].get_xticklabels()]
        ['encoder', 'z']
    """
    if not by_layer:
        raise ValueError("by_layer: got no layer, expected at least one")
    layers = list(by_layer)
    sets = list(dict.fromkeys(name for sets in by_layer.values() for name in sets))
    names = shortened(layers)
    upright = widest(names, _NAME_SIZE) > 0.9 * _PANEL[0] / len(layers)
    below = legend_height(sets, _WIDTH) + 0.2 + (widest(names, _NAME_SIZE) if upright else 0.15)
    height = 0.95 + 2 * _PANEL[1] + _GAP + below
    figure = Figure(figsize=(_WIDTH, height), dpi=DPI)
    every = math.ceil(len(layers) / _MOST_LAYERS)
    for index, (key, title) in enumerate(_PANELS.items()):
        row, column = divmod(index, 2)
        place = _LEFT + column * (_PANEL[0] + 0.75), below + (1 - row) * (_PANEL[1] + _GAP)
        axes = figure.add_axes((place[0] / _WIDTH, place[1] / height, _PANEL[0] / _WIDTH, _PANEL[1] / height))
        drawn: list[float] = []
        for number, name in enumerate(sets):
            values = [by_layer[layer].get(name, {}).get(key, math.nan) for layer in layers]
            if key == "effective_rank":
                values = [value / ranks[layer] for value, layer in zip(values, layers, strict=True)]
            drawn += values
            color, marker = COLORS[number % len(COLORS)], "os^vD"[number % 5]
            shown = on_log_axis(values) if key == "nc1" else values
            axes.plot(
                range(len(layers)),
                shown,
                marker=marker,
                markersize=max(3, 7 - 2 * number),
                linewidth=1.4,
                color=color,
                label=name,
            )
        axes.set_title(title, fontsize=10)
        axes.set_xlim(-0.5, len(layers) - 0.5)
        axes.set_xticks(range(0, len(layers), every), names[::every], rotation=90 * upright, fontsize=_NAME_SIZE)
        axes.tick_params(labelbottom=row == 1)
        axes.spines[["top", "right"]].set_visible(False)
        ideal = [] if key == "nc1" else [0.0, 1.0 if "ideal 1" in title else 0.1]
        scale_axis(axes.yaxis, [*drawn, *ideal], log=key == "nc1")
        if key != "nc1":
            axes.set_ylim(bottom=0)
    add_legend(figure, *figure.axes[0].get_legend_handles_labels())
    add_title(figure, "Neural collapse by depth", "layers, or files, in the order given")
    return figure
