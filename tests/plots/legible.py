"""Flaws that make a figure illegible, found on the drawn figure."""

from itertools import combinations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def flaws(figure):
    """Return what is wrong with a figure: cut or overlapping texts, axes without labels, empty axes, hidden data."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer, panels = canvas.get_renderer(), list(_panels(figure))
    texts = {text: text.get_window_extent(renderer) for text in _texts(figure, panels)}
    found = [f"{text.get_text()!r} is cut off" for text, box in texts.items() if not _inside(box, figure.bbox)]
    found += [
        f"{one.get_text()!r} covers {other.get_text()!r}"
        for (one, box), (other, second) in combinations(texts.items(), 2)
        if _overlap(box, second)
    ]
    for panel in panels:
        if not (panel.has_data() or panel.texts):
            found.append("empty axes")
        for axis in (panel.xaxis, panel.yaxis):
            labeled = axis.get_tick_params()["labelleft" if axis is panel.yaxis else "labelbottom"]
            bare = panel.get_images() or panel.get_aspect() == 1 or not panel.axison  # matrices, planes, lists
            if labeled and not bare and not any(label.get_text() for label in _labels(axis)):
                found.append(f"no label on the {axis.axis_name}-axis")
    for legend in [*figure.legends, *(panel.get_legend() for panel in panels)]:
        if legend is not None and any(_overlap(legend.get_window_extent(renderer), p.bbox) for p in panels):
            found.append("the legend covers data")
    return found


def _panels(figure):
    for axes in figure.axes:
        for panel in (axes, *axes.child_axes):
            if panel.get_visible() and not (panel is axes and axes.child_axes and not axes.axison):
                yield panel


def _labels(axis):
    low, high = sorted(axis.get_view_interval())
    places = zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=False)
    slack = 1e-9 * (high - low)
    return [label for place, label in places if low - slack <= place <= high + slack and label.get_visible()]


def _texts(figure, panels):
    shown = [*figure.texts, *([figure._suptitle] if figure._suptitle else [])]
    for legend in figure.legends:
        shown += legend.get_texts()
    for panel in panels:
        shown += [panel.title, *panel.texts]
        shown += panel.get_legend().get_texts() if panel.get_legend() else []
        if panel.axison:
            shown += [panel.xaxis.label, panel.yaxis.label, *_labels(panel.xaxis), *_labels(panel.yaxis)]
    return [text for text in dict.fromkeys(shown) if isinstance(text, Text) and text.get_visible() and text.get_text()]


def _inside(box, whole):
    return box.x0 >= -1 and box.y0 >= -1 and box.x1 <= whole.x1 + 1 and box.y1 <= whole.y1 + 1


def _overlap(one, other):
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return bool(np.minimum(width, height) > 1.5)
