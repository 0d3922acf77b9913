"""The data that a model was trained on, compared with the data that it is given later."""

from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from nc_lightning.data.base import LabelledDataModule
from nc_lightning.data.preprocess import Preprocess


def preprocess_in_use(trained: Preprocess, data: Any) -> Preprocess:
    """Return how the data are preprocessed; warn where their mean and standard deviation differ from training's.

    The data modules here standardise by those of training; loaders and other data modules keep their own.

    Args:
        trained: Preprocessing of the training.
        data: Data module or loader in use.

    Raises:
        ValueError: If one of the two standardises and the other does not, or if the numbers of channels differ.
    """
    own = Preprocess()
    own.take_from(data)
    follows = isinstance(data, LabelledDataModule)
    used = own if own.known and not (follows and trained.known) else trained
    if not (own.known and trained.known) or own.settings() == trained.settings():
        return used
    if follows and (own.mean is None or trained.mean is None or len(own.mean) != len(trained.mean)):
        raise ValueError(f"data: got {_said(own)}, expected {_said(trained)}, as in training")
    use = "training's is used" if follows else "the loader uses its own"
    rank_zero_warn(f"data: got {_said(own)}, but training had {_said(trained)}; {use}")
    return used


def _said(preprocess: Preprocess) -> str:
    if preprocess.mean is None:
        return "inputs taken as they are"
    return "images of " + " and ".join(f"{key} {value}" for key, value in preprocess.settings().items())
