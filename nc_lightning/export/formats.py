"""The formats of an exported encoder: each writes its file, and has the Python code that loads it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nc_lightning.checks import one_line
from nc_lightning.encoders import TimmEncoder
from nc_lightning.export.encoder import TrainedEncoder
from nc_lightning.export.recipes import plain_weights, recipe
from nc_lightning.io.safetensors_files import safetensors_file

_LONGEST = 200
_TOLERANCE = 1e-4
"""Largest difference of features, relative to the largest feature, that is due to another order of sums."""
Code = list[str]
"""Lines of Python that define ``features(images)``, in a folder with the files of the export."""


def write_safetensors(trained: TrainedEncoder, folder: Path) -> Code:
    """Write the weights under the model's own names, and how the encoder is made in config.json."""
    save_weights(trained.encoder, folder)
    config = {"encoder": trained.settings, "preprocessing": preprocessing(trained)}
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    return code_of_weights(trained)


def write_timm(trained: TrainedEncoder, folder: Path) -> Code:
    """Write weights and config.json of a model of timm, which ``timm.create_model`` loads from the folder."""
    encoder = trained.encoder
    if not isinstance(encoder, TimmEncoder):
        raise ValueError(
            f"format: got 'timm' for the encoder {type(encoder).__name__}, expected a run with TimmEncoder; use "
            "safetensors, whose weights have the names of the model"
        )
    from timm.models import save_for_hf  # noqa: PLC0415 - optional

    known, model = preprocessing(trained), encoder.layers
    zeros, ones = [0.0] * known["input_shape"][0], [1.0] * known["input_shape"][0]
    model.pretrained_cfg = {  # type: ignore[assignment]
        **dict(model.pretrained_cfg),  # type: ignore[arg-type]
        **{"input_size": known["input_shape"], "mean": known["mean"] or zeros, "std": known["std"] or ones},
        **{"num_classes": 0, "crop_pct": 1.0},
    }
    arguments = {name: value for name, value in encoder.arguments.items() if name != "num_classes"}
    with safetensors_file(folder / "model.safetensors"):
        save_for_hf(model, str(folder), model_args=arguments, safe_serialization=True)
    return code_of_weights(trained)


def write_pt2(trained: TrainedEncoder, folder: Path) -> Code:
    """Write the graph of preprocessing and encoder by torch.export, for batches of any size."""
    path, batch = folder / "model.pt2", _batch(trained)

    def trace() -> bytes:
        shapes, graph = ({0: torch.export.Dim("batch")},), BytesIO()
        torch.export.save(torch.export.export(trained.standardized(), (batch,), dynamic_shapes=shapes), graph)
        return graph.getvalue()

    def write(graph: bytes) -> None:
        path.write_bytes(graph)  # on a full disk, torch's own writer aborts the process

    _traced(trained, "pt2", trace, write, lambda x: torch.export.load(path).module()(x))
    return [
        "import torch",
        "",
        'model = torch.export.load("model.pt2").module()',
        *_function(trained, "model(images)"),
    ]


def write_onnx(trained: TrainedEncoder, folder: Path) -> Code:
    """Write the graph of preprocessing and encoder as ONNX, for batches of any size."""
    try:
        import onnxruntime  # noqa: PLC0415 - optional
        import onnxscript  # noqa: F401, PLC0415 - optional; torch exports with it
    except ImportError as error:
        raise ImportError(
            f"format: got 'onnx', which needs {error.name}; install it by pip install 'nc-lightning[onnx]'"
        ) from error
    path, batch = folder / "model.onnx", _batch(trained)

    def trace() -> Any:
        shapes, names = ({0: torch.export.Dim("batch")},), {"input_names": ["images"], "output_names": ["features"]}
        options: dict[str, Any] = {"dynamo": True, "dynamic_shapes": shapes, "verbose": False, **names}
        program = torch.onnx.export(trained.standardized(), (batch,), **options)
        if program is None:
            raise RuntimeError("torch.onnx.export has returned no program")
        return program

    def write(program: Any) -> None:
        program.save(str(path))

    def run(x: Tensor) -> Tensor:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return torch.from_numpy(session.run(None, {"images": x.numpy()})[0])

    _traced(trained, "onnx", trace, write, run)
    return [
        "import onnxruntime",
        "",
        'model = onnxruntime.InferenceSession("model.onnx")',
        *_function(trained, 'model.run(None, {"images": images})[0]', no_grad=False),
    ]


FORMATS: dict[str, Callable[[TrainedEncoder, Path], Code]] = {
    "safetensors": write_safetensors,
    "timm": write_timm,
    "pt2": write_pt2,
    "onnx": write_onnx,
}


def preprocessing(trained: TrainedEncoder) -> dict[str, Any]:
    """Return shape, mean and standard deviation of the images, as plain types."""
    mean, std = trained.preprocess.mean, trained.preprocess.std
    return {
        "input_shape": None if trained.input_shape is None else list(trained.input_shape),
        "mean": None if mean is None else mean.tolist(),
        "std": None if std is None else std.tolist(),
    }


def save_weights(encoder: nn.Module, folder: Path) -> None:
    """Write the weights of an encoder under its model's own names.

    Raises:
        ImportError: If safetensors is not installed.
        OSError: If the file cannot be written.
    """
    try:
        from safetensors.torch import save_file  # noqa: PLC0415 - optional
    except ImportError as error:
        raise ImportError(
            "format: got 'safetensors', which needs safetensors; install it by pip install 'nc-lightning[hub]'"
        ) from error
    path = folder / "model.safetensors"
    with safetensors_file(path):
        save_file(plain_weights(encoder), path, metadata={"format": "pt"})


def code_of_weights(trained: TrainedEncoder) -> Code:
    """Return the code that makes the model, and loads model.safetensors and preprocessing.json."""
    lines = recipe(trained.encoder, str(trained.settings["class_path"]))
    imports = [line for line in lines if line.startswith("import ")]
    standardized = trained.preprocess.mean is not None
    constants = [
        'preprocessing = json.loads(Path("preprocessing.json").read_text())',
        'mean, std = (torch.tensor(preprocessing[name]).view(-1, 1, 1) for name in ("mean", "std"))',
    ]
    return [
        *(["import json", "from pathlib import Path", ""] if standardized else []),
        *sorted([*imports, "import torch"]),
        "from safetensors.torch import load_file",
        "",
        *(line for line in lines if line and not line.startswith("import ")),
        'model.load_state_dict(load_file("model.safetensors"))',
        "model.eval()",
        *(constants if standardized else []),
        *_function(trained, "model((images - mean) / std)" if standardized else "model(images)"),
    ]


def _function(trained: TrainedEncoder, result: str, no_grad: bool = True) -> Code:
    shape = "".join(f", {size}" for size in trained.input_shape or ("...",))
    kind = "float32 in [0, 1]" if trained.preprocess.mean is not None else "float32, as in training"
    return [
        *("", "", "@torch.no_grad()")[: 3 if no_grad else 2],
        f"def features(images):  # (N{shape}) {kind}",
        f"    return {result}",
    ]


def _batch(trained: TrainedEncoder, size: int = 2) -> Tensor:
    if trained.input_shape is None:
        raise ValueError(
            "format: got one that needs the shape of an input, which neither the encoder's settings nor the data "
            "have; use safetensors"
        )
    generator = torch.Generator().manual_seed(size)
    return torch.rand(size, *trained.input_shape, generator=generator)


def _traced(
    trained: TrainedEncoder,
    name: str,
    trace: Callable[[], Any],
    write: Callable[[Any], None],
    run: Callable[[Tensor], Tensor],
) -> None:
    """Trace an encoder, write the graph, and compare what was written with it on other inputs and sizes of batches."""
    with _untraceable(trained, name), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        graph = trace()  # torch prints the whole graph before an error
    write(graph)
    with _untraceable(trained, name):
        encoder = trained.standardized()
        for x in (_batch(trained, 1), _batch(trained, 5), torch.zeros_like(_batch(trained))):
            expected = encoder(x)
            if not torch.allclose(run(x), expected, rtol=0, atol=_TOLERANCE * max(1.0, float(expected.abs().max()))):
                raise ValueError("it computes other features than the encoder")


@contextmanager
def _untraceable(trained: TrainedEncoder, name: str) -> Iterator[None]:
    """Name the format and the encoder in an error of tracing, of any class, or of running a graph."""
    try:
        yield
    except Exception as error:
        cause = error.__cause__ or error  # ONNX wraps the error of torch.export in advice of many lines
        reason = one_line(str(cause).strip().partition("\n")[0])[:_LONGEST] or type(cause).__name__
        raise ValueError(
            f"format: got {name!r} for the encoder {type(trained.encoder).__name__}, which cannot be traced "
            f"({reason}); the way for any encoder is safetensors"
        ) from error
