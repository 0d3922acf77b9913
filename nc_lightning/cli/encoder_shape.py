"""The link from the data's input shape to the encoder, where the encoder takes one."""

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser

from nc_lightning.private_apis.jsonargparse import remove_links

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
        remove_links(parser, ENCODER_SHAPE)
