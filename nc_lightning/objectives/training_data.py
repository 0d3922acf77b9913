"""Preprocessing and class names of the training data, saved with the model and compared with later data."""

from typing import Any

from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from nc_lightning.callbacks.sources import data_in_use
from nc_lightning.data.base import LabeledDataModule
from nc_lightning.data.preprocess import Preprocess
from nc_lightning.objectives.optimized import OptimizedModule
from nc_lightning.private_apis.lightning import attached_trainer


class RememberingModule(OptimizedModule):
    """Save mean, standard deviation, class names and sizes of the training data in checkpoints.

    Validation, test, prediction and resumed fits compare their data with these.

    Args:
        args: Arguments of `OptimizedModule`.

    Attributes:
        preprocess: Module that standardizes images as in training.
        class_names: Names of the training classes in order, or their labels; None if unknown.
        class_counts: Training views of each class, or those in every batch if batches are alike; None if balanced or
            unknown.

    Raises:
        ValueError: If the classes differ from those of training, or inputs cannot be standardized as in training.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.preprocess = Preprocess()
        self.class_names: list[str | int] | None = None
        self.class_counts: list[int] | None = None

    def setup(self, stage: str) -> None:
        """Store the settings of the training data; a resumed checkpoint replaces them."""
        super().setup(stage)
        if stage == "fit":
            data = data_in_use(self.trainer)
            self.preprocess.take_from(data)
            self.class_names = class_names_of(data)
            self.class_counts = data.class_counts() if isinstance(data, LabeledDataModule) else None

    def on_validation_start(self) -> None:
        """Compare the data with the training data."""
        if self.trainer.state.fn == TrainerFn.VALIDATING:
            self._compare()

    def on_test_start(self) -> None:
        """Compare the data with the training data."""
        self._compare()

    on_predict_start = on_test_start

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save preprocessing and class names, also if a callback saves the weights of another module."""
        super().on_save_checkpoint(checkpoint)
        self.preprocess.save(checkpoint["state_dict"], "preprocess.")
        if self.preprocess.known:
            checkpoint["standardized"] = self.preprocess.mean is not None
        if self.class_names is not None:
            checkpoint["class_names"] = self.class_names
        if self.class_counts is not None:
            checkpoint["class_counts"] = self.class_counts

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load preprocessing and class names; when resuming a fit, compare them with its data."""
        super().on_load_checkpoint(checkpoint)
        trainer = attached_trainer(self)
        fitting = trainer is not None and trainer.state.fn == TrainerFn.FITTING
        state_dict = checkpoint.get("state_dict", {})
        if "standardized" in checkpoint or "preprocess.mean" in state_dict:
            self.preprocess.load(state_dict, "preprocess.")
        elif not fitting:  # from an earlier version; a fit keeps the settings of its data
            self.preprocess.take_from(None)
        if "class_names" in checkpoint or not fitting:
            self.class_names = checkpoint.get("class_names")
        if not fitting:
            self.class_counts = checkpoint.get("class_counts")
        if fitting:
            self.preprocess = self._compare()
            self.preprocess.save(state_dict, "preprocess.")  # the weights are loaded from it next

    def _compare(self) -> Preprocess:
        data = data_in_use(self.trainer)
        check_class_names(self.class_names, data)
        return preprocess_in_use(self.preprocess, data)


def preprocess_in_use(trained: Preprocess, data: Any) -> Preprocess:
    """Return the preprocessing of the data; warn if its mean and standard deviation differ from those of training.

    Data modules of this package use the values of training; loaders and other data modules keep their own.

    Raises:
        ValueError: If such a data module and training differ in whether they standardize or in the number of channels.
    """
    own = Preprocess()
    own.take_from(data)
    follows = isinstance(data, LabeledDataModule)
    used = own if own.known and not (follows and trained.known) else trained
    if not (own.known and trained.known) or own.settings() == trained.settings():
        return used
    if follows and (own.mean is None or trained.mean is None or len(own.mean) != len(trained.mean)):
        raise ValueError(f"data: got {_said(own)}, expected {_said(trained)}, as in training")
    use = "training's is used" if follows else "the loader uses its own"
    rank_zero_warn(f"data: got {_said(own)}, but training had {_said(trained)}; {use}")
    return used


def class_names_of(data: Any) -> list[str | int] | None:
    """Return the class names of a data module or loader in order, or the labels if they have no names.

    Returns None if it has neither, and for unlabeled inputs.
    """
    names = data.names_or_labels() if isinstance(data, LabeledDataModule) else getattr(data, "class_names", None)
    if not isinstance(names, (list, tuple)):
        return None
    return [name if isinstance(name, int) else str(name) for name in names]


def check_class_names(trained: list[str | int] | None, data: Any) -> None:
    """Refuse data whose class names, or their order, differ from training.

    If only one of the two has names and the other has numbers, they are assumed to be in the same order, with a
    warning. Different numbers of classes are not compared.

    Raises:
        ValueError: If a class has another name.
    """
    own = class_names_of(data)
    if own is None or trained is None or len(own) != len(trained):
        return
    differing = [i for i in range(len(own)) if str(own[i]) != str(trained[i])]
    if not differing:
        return
    first = differing[0]
    got, expected = repr(own[first]), repr(trained[first])
    if _has_names(own) != _has_names(trained):
        rank_zero_warn(
            f"class_names: got {got} for class {first}, {expected} in training; assumed to be the same class"
        )
        return
    raise ValueError(
        f"class_names: got {got} for class {first}, expected {expected} as in training; order the classes of the "
        "data as in training"
    )


def _has_names(classes: list[str | int]) -> bool:
    return any(isinstance(name, str) for name in classes)


def _said(preprocess: Preprocess) -> str:
    if preprocess.mean is None:
        return "inputs that are not standardized"
    return "images of " + " and ".join(f"{key} {value}" for key, value in preprocess.settings().items())
