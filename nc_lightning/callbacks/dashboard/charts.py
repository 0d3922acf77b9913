"""Layout of TensorBoard's CUSTOM SCALARS page: the charts, and the curves of each."""

import re
from collections.abc import Iterable, Mapping

from lightning.pytorch import Callback

from nc_lightning.callbacks.geometry_monitor import GeometryMonitor
from nc_lightning.callbacks.hard_negative_sampler import HardNegativeSampler
from nc_lightning.callbacks.online_linear_probe import OnlineLinearProbe
from nc_lightning.geometry import MEASURES, Ideal, ideal
from nc_lightning.losses import ContrastiveLoss
from nc_lightning.plots.depth import DEPTH_MEASURES

Layout = dict[str, dict[str, list[object]]]
"""Charts by category and title, in the format of `torch.utils.tensorboard.SummaryWriter.add_custom_scalars`."""
_SETS = {"train": "training", "val": "validation"}


def dashboard_layout(
    num_classes: int,
    feature_dim: int,
    loss: object,
    callbacks: Iterable[Callback],
    prefix: str = "",
    own: Mapping[str, Ideal] | None = None,
) -> Layout:
    """Lay out the charts of the values that a run logs; charts without a curve are omitted.

    TensorBoard has a color for each run, so a chart has one curve of a run: training and validation have charts of
    their own, next to each other, and so do layers. The loss of training has a band from its bound to its collapsed
    value. Titles state the ideal. A probe, a sampler and the layers of a monitor among the ``callbacks`` add their own
    charts. Runs that are shown together share the charts. ``prefix`` is what the logger puts before tags, and ``own``
    are the ideals of a loss whose minimum is not neural collapse, which titles state too, unless a schedule changes the
    hardness and with it the minimum.

    Example:
        >>> list(dashboard_layout(10, 9, None, []))
        ['Neural collapse', "The paper's conditions", 'Dimensions', 'Accuracy']
    """

    def chart(tag: str) -> list[object]:
        # TensorBoard treats the tag as a regular expression, matched at the beginning.
        return ["Multiline", [f"^{re.escape(prefix + tag)}$"]]

    given = list(callbacks)
    probe = any(isinstance(callback, OnlineLinearProbe) for callback in given)
    samplers = [callback for callback in given if isinstance(callback, HardNegativeSampler)]
    own = own or {}
    in_titles = {} if any(sampler.schedule != "constant" for sampler in samplers) else own
    layout: Layout = {}
    for key, measure in MEASURES.items():
        without_curve = (measure.of == "classifier" and not probe) or (measure.of == "optimum" and not own)
        if measure.group is None or without_curve:
            continue
        goals = _goals(ideal(key, num_classes, feature_dim), in_titles.get(key))
        for name, words in _SETS.items():
            layout.setdefault(measure.group, {})[f"{measure.title}, {words}{goals}"] = chart(f"geometry/{name}/{key}")
    layers = [layer for callback in given if isinstance(callback, GeometryMonitor) for layer in callback.layers]
    if layers:
        layout["Layers"] = {
            f"{MEASURES[key].title} of {layer}, training": chart(f"geometry/{layer}/train/{key}")
            for key in DEPTH_MEASURES
            for layer in layers
        }
    if isinstance(loss, ContrastiveLoss):
        # Whether there is a bound at all does not depend on the batch size.
        if loss.lower_bound(num_classes, 2 * num_classes, feature_dim) is None:
            layout["Loss"] = {"loss, training": chart("loss/train"), "loss, validation": chart("loss/val")}
        else:
            band = [f"{prefix}loss/{name}" for name in ("train", "bound", "collapsed")]
            layout["Loss"] = {
                "loss, training, from its bound to its collapsed value": ["Margin", band],
                "loss, validation": chart("loss/val"),
                "loss over its bound (ideal 0)": chart("loss/optimality_gap"),
            }
        if not loss.supervised:
            layout["Loss"]["loss at neural collapse"] = chart("loss/neural_collapse")
    if samplers:
        layout["Negatives"] = {
            "hardness beta": chart("negatives/hardness"),
            "effective negatives": chart("negatives/effective"),
            "share of the negatives that are effective": chart("negatives/fraction"),
        }
        if isinstance(loss, ContrastiveLoss) and not loss.supervised:
            layout["Negatives"]["share of weight on the own class"] = chart("negatives/false_share")
    if probe:
        for name, words in _SETS.items():
            layout["Accuracy"][f"accuracy of a linear probe, {words} (ideal 1)"] = chart(f"probe/{name}_accuracy")
    return layout


def _goals(neural_collapse: Ideal | None, own: Ideal | None) -> str:
    """Return the ideals for a title: that of neural collapse, and that of the loss if it differs.

    Example:
        >>> _goals(ideal("zero_sum", 10, 9), Ideal(0.56, 0.02, "0.56"))
        ' (ideal 0; this loss 0.56)'
    """
    goals = [] if neural_collapse is None else [f"ideal {neural_collapse.text}"]
    if own is not None and (neural_collapse is None or own.text != neural_collapse.text):
        goals.append(f"this loss {own.text}")
    return f" ({'; '.join(goals)})" if goals else ""
