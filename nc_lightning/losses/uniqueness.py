"""Whether neural collapse is the minimum of a loss, and the only one, which its lower bound does not show."""

import math

from nc_lightning.losses.contrastive import ContrastiveLoss
from nc_lightning.losses.hardening import Hardening, ValueThreshold
from nc_lightning.losses.links import Link, Triplet


def uniqueness_note(link: Link, hardening: Hardening, num_classes: int, temperature: float) -> str | None:
    """Describe in one line why an optimality gap of 0 would not show neural collapse.

    `Triplet` is not strictly convex, so other class means than a simplex can meet the lower bound of SCL or HSCL.

    - With a margin below C / ((C - 1) temperature) the bound is 0, and orthonormal means can meet it.
    - With a larger margin t + margin is positive near the simplex, where the loss is linear. Without hardness all unit
      means that sum to zero then have the same loss, and C > 3 of them need not be a simplex. Hard negatives raise the
      loss unless all negatives of an anchor are equally similar.

    `InfoNCE` and `Logistic` have no other minimum.

    Args:
        link: psi.
        hardening: eta.
        num_classes: Number of classes C, with positives by class.
        temperature: tau.

    Returns:
        The line; None if neural collapse is the only minimum, or if that is unknown, as for a `CustomLink`.

    Example:
        >>> from nc_lightning.losses import Exponential
        >>> print(uniqueness_note(Triplet(margin=1.0), Exponential(beta=5.0), num_classes=10, temperature=1.0))
        link: Triplet(margin=1.0) also reaches its lower bound without neural collapse; expected a margin >= 1.112
        >>> uniqueness_note(Triplet(margin=1.2), Exponential(beta=5.0), num_classes=10, temperature=1.0) is None
        True
    """
    if not isinstance(link, Triplet):
        return None
    needed, missing = num_classes / ((num_classes - 1) * temperature), []
    if link.margin < needed:
        missing.append(f"a margin >= {math.ceil(1000 * needed) / 1000:g}")
    equal = getattr(hardening, "beta", None) == 0 or isinstance(hardening, ValueThreshold)
    if link.margin != needed and num_classes > 3 and equal:
        missing.append("hard negatives (beta > 0)")
    if not missing:
        return None
    return f"link: {link!r} also reaches its lower bound without neural collapse; expected {' and '.join(missing)}"


def critical_note(
    loss: ContrastiveLoss, num_classes: int, batch_size: int | None = None, feature_dim: int | None = None
) -> str | None:
    """Describe in one line that the hardness of HUCL is beyond the critical one, and the geometry to expect.

    Args:
        loss: Loss with the hardness as configured.
        num_classes: Number of classes C.
        batch_size: Batch size N; None for the limit of large batches.
        feature_dim: Feature dimension d; None to assume d >= C.

    Returns:
        The line; None if neural collapse is the minimum, or if the minimum is not known.

    Example:
        >>> from nc_lightning.losses import HUCLLoss
        >>> print(critical_note(HUCLLoss(beta=5.0), num_classes=100, batch_size=500))
        beta: got 5, above the critical 3.25: the minimum has zero_sum 0.564
        >>> critical_note(HUCLLoss(beta=3.0), num_classes=100, batch_size=500) is None
        True
    """
    optimum = loss.hucl_optimum(num_classes, batch_size)
    if optimum is None or optimum.zero_sum == 0:
        return None
    detached = not loss.differentiate_weights and loss.num_negatives is None
    needed = ", and needs differentiate_weights" if detached else ""
    geometry = f"has zero_sum {optimum.zero_sum:.3f}"
    if feature_dim is not None and feature_dim < num_classes:
        geometry = f"is a simplex of norm {optimum.norm:.3f}, or needs feature_dim >= {num_classes} for unit vectors"
    return f"beta: got {loss.beta:g}, above the critical {optimum.critical_beta:.3g}: the minimum {geometry}{needed}"
