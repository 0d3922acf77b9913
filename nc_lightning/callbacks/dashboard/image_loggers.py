"""Figures for the loggers that accept images, from any package."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary

from nc_lightning.private_apis.lightning import tag_prefix_of
from nc_lightning.private_apis.torch import add_summary


def log_figures(logger: Any, figures: Mapping[str, bytes], step: int) -> None:
    """Send figures to TensorBoard, MLflow, or a logger with ``log_image``, such as W&B's; others get none.

    Figures are PNG files by tag. The logger's prefix goes before the tags, as before the keys of metrics.

    Example:
        >>> from lightning.pytorch.loggers import CSVLogger
        >>> log_figures(CSVLogger("."), {"figures/spectrum": b""}, step=0)
    """
    if (writer := tensorboard_writer(logger)) is not None:
        for tag, png in figures.items():
            add_png(writer, f"{tag_prefix(logger)}{tag}", png, step)
        # A failed write must raise here, where it is caught, and not when training logs its next value.
        writer.flush()
    elif _is_mlflow(logger):
        for tag, png in figures.items():
            logger.experiment.log_image(logger.run_id, _picture(png), f"{tag_prefix(logger)}{tag}/step_{step:08d}.png")
    elif hasattr(logger, "log_image"):  # which adds the prefix itself
        for tag, png in figures.items():
            logger.log_image(key=tag, images=[_picture(png)], step=step)


def takes_figures(logger: Any) -> bool:
    """Return whether `log_figures` sends figures to a logger.

    Example:
        >>> from lightning.pytorch.loggers import CSVLogger
        >>> takes_figures(CSVLogger("."))
        False
    """
    return hasattr(logger, "log_image") or _is_mlflow(logger) or tensorboard_writer(logger) is not None


def tensorboard_writer(logger: Any) -> Any | None:
    """Return the `SummaryWriter` of a TensorBoard logger of any package; None for other loggers."""
    if hasattr(logger, "log_image"):
        return None
    experiment = getattr(logger, "experiment", None)
    return experiment if hasattr(experiment, "add_custom_scalars") and hasattr(experiment, "add_embedding") else None


def tag_prefix(logger: Any) -> str:
    """Return the prefix that a logger puts before the keys of metrics.

    Example:
        >>> from lightning.pytorch.loggers import TensorBoardLogger
        >>> tag_prefix(TensorBoardLogger(".", prefix="exp")), tag_prefix(TensorBoardLogger("."))
        ('exp-', '')
    """
    prefix = tag_prefix_of(logger)
    return f"{prefix}{getattr(logger, 'LOGGER_JOIN_CHAR', '-')}" if prefix else ""


def _is_mlflow(logger: Any) -> bool:
    return hasattr(logger, "run_id") and hasattr(getattr(logger, "experiment", None), "log_image")


def check_writable(writer: Any, step: int) -> None:
    """Write an empty summary, so that a full disk raises here, where it is caught.

    Raises:
        OSError: If nothing can be written.
    """
    add_summary(writer, Summary(), step)
    writer.flush()


def add_png(writer: Any, tag: str, png: bytes, step: int) -> None:
    """Add a PNG file to a `SummaryWriter` unchanged; its own ``add_image`` would re-encode it as a larger one."""
    width, height = _picture(png).size
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
    add_summary(writer, Summary(value=[Summary.Value(tag=tag, image=image)]), step)


def _picture(png: bytes) -> Image.Image:
    return Image.open(BytesIO(png))
