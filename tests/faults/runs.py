"""Small runs with every kind of state, faults for them, and a comparison of their final states."""

import torch

from tests.faults.forks import nc_train

TINY = [
    *("fit", "--config", "hscl.yaml", "--config", "run.yaml", "--model.encoder=tests.faults.faults.Dropout"),
    *("--model.num_negatives=16", "--trainer.max_epochs=8", "--trainer.deterministic=true"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    *("--geometry.every_n_epochs=3", "--dashboard.every_n_epochs=1000"),
]
ALONE = [*TINY, "--data.batch_size=250"]
IN_TWO = [
    *(*TINY, "--data.batch_size=120", "--trainer.max_epochs=3"),
    *("--trainer.accelerator=cpu", "--trainer.devices=2", "--trainer.strategy=ddp"),
]
STEPS = 40
"""Number of steps of a run on one process, five per epoch."""
_SAMPLER = "nc_lightning.callbacks.HardNegativeSampler"


def run(folder, command, *arguments, fault=None, kind="SignalAt", **limits):
    """Run nc-train with a fault, given as the arguments of a callback, and assert that it prints no traceback."""
    sampler = {"schedule": "adaptive", "queue_size": 300, "queue_warmup": 0}
    callbacks = [{"class_path": _SAMPLER, "init_args": sampler}]
    callbacks += [{"class_path": f"tests.faults.faults.{kind}", "init_args": fault}] if fault else []
    (folder / "run.yaml").write_text(f"trainer: {{callbacks: {callbacks}}}")
    ended = nc_train(folder, *command, *arguments, **limits)
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended


def end_of(folder, rank=0):
    return torch.load(folder / f"end-{rank}.pt", weights_only=True)


def differences(one, other, path=""):
    """Yield the paths where two nested states differ in any bit; NaN equals NaN."""
    if isinstance(one, dict):
        for key in one.keys() | other.keys():
            if key in one and key in other:
                yield from differences(one[key], other[key], f"{path}/{key}")
            else:
                yield f"{path}/{key}"
    elif isinstance(one, (list, tuple)):
        yield from [path] if len(one) != len(other) else []
        for index, values in enumerate(zip(one, other, strict=False)):
            yield from differences(*values, f"{path}/{index}")
    elif isinstance(one, torch.Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        yield from [] if same and torch.equal(one.nan_to_num(-7), other.nan_to_num(-7)) else [path]
    elif one != other and not (one != one and other != other):
        yield path


def checkpoints(folder):
    """The checkpoint files of all runs in a folder, oldest first."""
    files = {path.resolve() for path in folder.rglob("*.ckpt")}
    return sorted(files, key=lambda path: path.stat().st_mtime_ns)
