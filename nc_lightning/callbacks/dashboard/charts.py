"""Layout of TensorBoard's CUSTOM SCALARS page: the charts, and the curves of each."""

import re
from collections.abc import Iterable

from lightning.pytorch import Callback

from nc_lightning.callbacks.hard_negative_sampler import HardNegativeSampler
from nc_lightning.callbacks.online_linear_probe import OnlineLinearProbe
from nc_lightning.geometry import MEASURES, ideal
from nc_lightning.losses import ContrastiveLoss

Layout = dict[str, dict[str, list[object]]]
"""Charts by category and title, in the format of `torch.utils.tensorboard.SummaryWriter.add_custom_scalars`."""


def dashboard_layout(
    num_classes: int, feature_dim: int, loss: object, callbacks: Iterable[Callback], prefix: str = ""
) -> Layout:
    """Lay out the charts of the values that a run logs; charts without a curve are omitted.

    A chart shows training with validation, or the loss with its bound and its collapsed value; the title states the
    ideal. A probe and a sampler among the ``callbacks`` add their own charts. Runs that are shown together share the
    charts. ``prefix`` is what the logger puts before tags.

    Example:
        >>> list(dashboard_layout(10, 9, None, []))
        ['Neural collapse', "The paper's conditions", 'Dimensions', 'Accuracy']
    """

    def chart(*tags: str) -> list[object]:
        # TensorBoard treats tags as regular expressions, matched at the beginning.
        return ["Multiline", [f"^{re.escape(prefix + tag)}$" for tag in tags]]

    given = list(callbacks)
    probe = any(isinstance(callback, OnlineLinearProbe) for callback in given)
    sampler = any(isinstance(callback, HardNegativeSampler) for callback in given)
    layout: Layout = {}
    for key, measure in MEASURES.items():
        if measure.group is None or (measure.of == "classifier" and not probe):
            continue
        goal = ideal(key, num_classes, feature_dim)
        heading = f"{measure.title} (ideal {goal.text})" if goal is not None else measure.title
        layout.setdefault(measure.group, {})[heading] = chart(f"geometry/train/{key}", f"geometry/val/{key}")
    if isinstance(loss, ContrastiveLoss):
        references = ["loss/bound", "loss/collapsed", *([] if loss.supervised else ["loss/neural_collapse"])]
        layout["Loss"] = {"loss, its bound and its collapsed value": chart("loss/train", "loss/val", *references)}
        # Whether there is a bound at all does not depend on the batch size.
        if loss.lower_bound(num_classes, 2 * num_classes, feature_dim) is not None:
            layout["Loss"]["optimality gap (ideal 0)"] = chart("loss/optimality_gap")
    if sampler:
        layout["Negatives"] = {
            "hardness beta": chart("negatives/hardness"),
            "effective negatives": chart("negatives/effective"),
            "share of the negatives that are effective": chart("negatives/fraction"),
        }
        if isinstance(loss, ContrastiveLoss) and not loss.supervised:
            layout["Negatives"]["share of weight on the own class"] = chart("negatives/false_share")
    if probe:
        layout["Accuracy"]["accuracy of a linear probe (ideal 1)"] = chart("probe/train_accuracy", "probe/val_accuracy")
    return layout
