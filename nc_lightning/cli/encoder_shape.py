"""The link from the data's input shape to the encoder, where the encoder takes one."""

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

ENCODER_SHAPE = "model.init_args.encoder.init_args.input_shape"


def drop_unused_shape(parser: LightningArgumentParser, config: Namespace) -> None:
    """Remove the link to ``input_shape`` if the configured encoder has no such argument.

    Lightning would store the shape among the hyperparameters all the same, and such a checkpoint could not be loaded;
    and it fails at an encoder without any arguments.

    Args:
        parser: The subcommand's parser.
        config: The subcommand's parsed configuration.
    """
    if ENCODER_SHAPE not in config:
        # jsonargparse has no public way to remove a link.
        links = parser._links_group._group_actions  # type: ignore[attr-defined]
        links[:] = [link for link in links if link.target[0] != ENCODER_SHAPE]
