"""Export the encoder of a run into a new folder, with a model card."""

import json
import os
from pathlib import Path

from nc_lightning.export.card import model_card
from nc_lightning.export.encoder import trained_encoder
from nc_lightning.export.formats import FORMATS, preprocessing
from nc_lightning.io.atomic import atomic_folder, unused_path


def export(run: str | os.PathLike[str], format: str, output: str | os.PathLike[str] | None = None) -> Path:
    """Write the encoder of a run to a new folder that loads without this package, and return its path.

    ============  ==========================================================================================
    safetensors   weights under the names of the model, as torchvision and timm load them
    timm          the same in the folder format of timm, for ``timm.create_model("local-dir:FOLDER")``
    pt2           graph of preprocessing and encoder, for ``torch.export.load``
    onnx          graph of preprocessing and encoder, for ONNX Runtime and others
    ============  ==========================================================================================

    Each folder also has ``preprocessing.json`` (shape, mean and standard deviation of the images) and a model card
    ``README.md``, with the code that loads the file, and the geometry and configuration of the run. Weights are
    float32; graphs take images in [0, 1] in batches of any size.

    Args:
        run: Folder of the run, or a checkpoint file.
        format: One of the formats above.
        output: New folder; None for ``encoder-FORMAT`` in the folder of the run, with a suffix if it exists.

    Raises:
        FileNotFoundError: If there is no such run, or it has no checkpoint.
        FileExistsError: If the output exists.
        ImportError: If a package for the format is missing.
        OSError: If the output cannot be written.
        ValueError: If the checkpoint cannot be loaded, see `nc_lightning.load`, the format is unknown or does not fit
            the encoder, or the encoder cannot be traced. Nothing is written then.

    Example:
        >>> export("no-such-run", "safetensors")
        Traceback (most recent call last):
        ...
        FileNotFoundError: run: got 'no-such-run', expected the folder of a run, or a checkpoint file
    """
    if format not in FORMATS:
        raise ValueError(f"format: got {format!r}, expected one of {', '.join(FORMATS)}")
    trained = trained_encoder(run)
    target = unused_path(trained.folder / f"encoder-{format}") if output is None else Path(output).expanduser()
    with atomic_folder(target) as folder:
        code = FORMATS[format](trained, folder)
        (folder / "preprocessing.json").write_text(json.dumps(preprocessing(trained), indent=2), encoding="utf-8")
        (folder / "README.md").write_text(model_card(trained, code), encoding="utf-8")
    return target
