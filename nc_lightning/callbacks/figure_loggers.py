"""How figures reach the loggers that take images."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger
from PIL import Image
from tensorboard.compat.proto.summary_pb2 import Summary


def log_figures(logger: Logger, figures: Mapping[str, bytes], step: int) -> None:
    """Give figures to a logger: TensorBoard, MLflow, and those with ``log_image``, as W&B's; others get none.

    Args:
        logger: Of the trainer.
        figures: PNG files by tag.
        step: Of training.

    Example:
        >>> from lightning.pytorch.loggers import CSVLogger
        >>> log_figures(CSVLogger("."), {"figures/spectrum": b""}, step=0)
    """
    if isinstance(logger, TensorBoardLogger):
        for tag, png in figures.items():
            add_png(logger.experiment, tag, png, step)
        # What cannot be written is to show here, where it is caught, and not in the next line that training logs.
        logger.experiment.flush()
    elif isinstance(logger, MLFlowLogger):
        for tag, png in figures.items():
            logger.experiment.log_image(logger.run_id, _picture(png), f"{tag}/step_{step:08d}.png")
    elif hasattr(logger, "log_image"):
        for tag, png in figures.items():
            logger.log_image(key=tag, images=[_picture(png)], step=step)


def add_png(writer: Any, tag: str, png: bytes, step: int) -> None:
    """Add a PNG file to a `SummaryWriter` as it is; its own ``add_image`` would make a larger one of it.

    Args:
        writer: A `torch.utils.tensorboard.SummaryWriter`.
        tag: Of the image.
        png: The file.
        step: Of training.
    """
    width, height = _picture(png).size
    image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
    writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=tag, image=image)]), step)


def _picture(png: bytes) -> Image.Image:
    return Image.open(BytesIO(png))
