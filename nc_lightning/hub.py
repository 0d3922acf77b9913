"""Encoders on the Hugging Face Hub, by its own mixin; needs the extra ``hub``."""

import importlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nc_lightning.checks import one_line
from nc_lightning.export.card import model_card
from nc_lightning.export.encoder import StandardizedEncoder, trained_encoder
from nc_lightning.export.formats import code_of_weights, save_weights
from nc_lightning.export.formats import preprocessing as preprocessing_of
from nc_lightning.export.recipes import plain

try:
    from huggingface_hub import ModelHubMixin, snapshot_download
    from safetensors import SafetensorError
    from safetensors.torch import load_file
except ImportError as error:
    raise ImportError(
        f"nc_lightning.hub: got no {error.name}; install it by pip install 'nc-lightning[hub]'"
    ) from error

__all__ = ["HubEncoder"]
_FILES = ("config.json", "model.safetensors", "preprocessing.json", "README.md")


class HubEncoder(StandardizedEncoder, ModelHubMixin):
    """Encoder that is shared on the Hugging Face Hub, with preprocessing and model card; needs the extra ``hub``.

    ``HubEncoder.from_run(run)`` takes it from a run, ``push_to_hub("me/encoder")`` and ``save_pretrained(folder)``
    write it, and ``HubEncoder.from_pretrained("me/encoder")`` reads it, also from a folder of ``nc-train export
    --format safetensors``: they are methods of huggingface_hub's `ModelHubMixin`. The files are those of that format,
    which load without this package.

    Only encoders of this package are created from a repository, and classes that were imported before: those of your
    own need an import first. Weights are read from safetensors.

    Args:
        encoder: Class path and arguments of the encoder, ``{"class_path": ..., "init_args": {...}}``.
        preprocessing: Mean and standard deviation of the images, ``{"mean": [...], "std": [...]}``, or None for both.

    Attributes:
        card: Model card; empty for the default one of huggingface_hub.

    Shape:
        (N, channels, height, width) float in [0, 1] -> (N, d); without a mean, the encoder's own inputs

    Raises:
        ImportError: If huggingface_hub or safetensors is not installed.
        ValueError: If the encoder is of a class that may not be created.

    Example:
        >>> mlp = {"class_path": "nc_lightning.encoders.MLP", "init_args": {"input_shape": [1, 2, 2]}}
        >>> HubEncoder(mlp, {"mean": [0.5], "std": [0.25]})(torch.zeros(3, 1, 2, 2)).shape
        torch.Size([3, 512])
    """

    def __init__(self, encoder: Mapping[str, Any], preprocessing: Mapping[str, Any]) -> None:
        mean, std = (preprocessing.get(name) for name in ("mean", "std"))
        super().__init__(_created(encoder), *(None if value is None else torch.tensor(value) for value in (mean, std)))
        self.preprocessing = dict(preprocessing)
        self.card = ""

    @classmethod
    def from_run(cls, run: str | os.PathLike[str]) -> "HubEncoder":
        """Return the encoder of a run, a folder or a checkpoint file, in eval mode.

        Raises:
            FileNotFoundError: If there is no such run, or it has no checkpoint.
            ValueError: If the checkpoint cannot be loaded, see `nc_lightning.load`.
        """
        trained = trained_encoder(run)
        encoder = cls(trained.settings, preprocessing_of(trained))
        encoder.encoder.load_state_dict(trained.encoder.state_dict())
        encoder.card = model_card(trained, code_of_weights(trained))
        return encoder.eval()

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> str | None:
        """Write the files to a new folder, see `ModelHubMixin`.

        Raises:
            FileExistsError: If the folder has files.
        """
        folder = Path(save_directory)
        if folder.exists() and any(folder.iterdir()):
            raise FileExistsError(f"save_directory: got {str(folder)!r}, which has files, expected a new folder")
        url: str | None = super().save_pretrained(folder, **kwargs)
        return url

    def _save_pretrained(self, save_directory: Path) -> None:
        save_weights(self.encoder, save_directory)
        if self.card:
            (save_directory / "README.md").write_text(self.card, encoding="utf-8")
        known = json.dumps(self.preprocessing, indent=2)
        (save_directory / "preprocessing.json").write_text(known, encoding="utf-8")

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> "HubEncoder":
        settings = {name: options.pop(name, None) for name in ("encoder", "preprocessing")}
        folder = Path(model_id if Path(model_id).is_dir() else snapshot_download(model_id, **_download(options)))
        missing = [name for name, value in settings.items() if not isinstance(value, dict)]
        if missing:
            raise ValueError(
                f"from_pretrained: got {model_id!r}, whose config.json has no {missing[0]}, expected one of HubEncoder"
            )
        encoder = cls(**settings)
        try:
            plain(encoder.encoder).load_state_dict(load_file(folder / "model.safetensors"))
        except (SafetensorError, RuntimeError, OSError) as error:
            raise ValueError(
                f"from_pretrained: got {model_id!r}, whose model.safetensors is missing, damaged or of another "
                f"encoder: {one_line(error)[:400]}"
            ) from error
        if (folder / "README.md").is_file():
            encoder.card = (folder / "README.md").read_text(encoding="utf-8")
        return encoder.eval()


def _download(options: Mapping[str, Any]) -> dict[str, Any]:
    return {"allow_patterns": list(_FILES), **options}


def _created(settings: Mapping[str, Any]) -> nn.Module:
    """Create an encoder of this package, or of a class that was imported before; a repository may name any class."""
    class_path = str(settings.get("class_path"))
    module, _, name = class_path.rpartition(".")
    if module.split(".")[:2] == ["nc_lightning", "encoders"]:
        importlib.import_module(module)
    kind = getattr(sys.modules.get(module), name, None)
    if not isinstance(kind, type) or not issubclass(kind, nn.Module):
        raise ValueError(
            f"encoder: got {class_path}, expected an encoder of nc_lightning.encoders, or a class that is imported; "
            "import it first if you trust it"
        )
    with torch.random.fork_rng(devices=[]):
        encoder: nn.Module = kind(**(settings.get("init_args") or {}))
    return encoder
