"""How figures reach the loggers that take images, whatever package a logger comes from."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary

from nc_lightning.private_apis.lightning import tag_prefix_of
from nc_lightning.private_apis.torch import add_summary


def log_figures(logger: Any, figures: Mapping[str, bytes], step: int) -> None:
    """Give figures to a logger: TensorBoard, MLflow, and those with ``log_image``, as W&B's; others get none.

    Figures are PNG files by tag. The logger's prefix goes before the tags, as it does before the keys of metrics.

    Example:
        >>> from lightning.pytorch.loggers import CSVLogger
        >>> log_figures(CSVLogger("."), {"figures/spectrum": b""}, step=0)
    """
    if (writer := tensorboard_writer(logger)) is not None:
        for tag, png in figures.items():
            add_png(writer, f"{tag_prefix(logger)}{tag}", png, step)
        # What cannot be written is to show here, where it is caught, and not in the next line that training logs.
        writer.flush()
    elif _is_mlflow(logger):
        for tag, png in figures.items():
            logger.experiment.log_image(logger.run_id, _picture(png), f"{tag_prefix(logger)}{tag}/step_{step:08d}.png")
    elif hasattr(logger, "log_image"):  # which adds the prefix itself
        for tag, png in figures.items():
            logger.log_image(key=tag, images=[_picture(png)], step=step)


def takes_figures(logger: Any) -> bool:
    """Return whether `log_figures` gives figures to a logger.

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
    """Return what a logger puts before the keys of metrics.

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
    """Add a PNG file to a `SummaryWriter` as it is; its own ``add_image`` would make a larger one of it."""
    width, height = _picture(png).size
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
    add_summary(writer, Summary(value=[Summary.Value(tag=tag, image=image)]), step)


def _picture(png: bytes) -> Image.Image:
    return Image.open(BytesIO(png))
