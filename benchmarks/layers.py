"""Cost of layers: the time of a geometry measurement with three named layers, over that of one without.

    python -m benchmarks.layers [--images 256] [--rounds 3] [--encoder resnet]

The monitor measures random 32x32 images as a training set and a quarter of them as a held-out set, with and without
layers in alternation, on one thread; nothing is trained. Times are CPU times, which other processes change less. The
layers are the third stage of the ResNet (256 dimensions), its output (512) and the hidden layer of the projection head
(512); of the small CNN, two of its layers and the same hidden layer.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer

from benchmarks import results
from nc_lightning import HSCL
from nc_lightning.callbacks import GeometryMonitor
from nc_lightning.data import ArrayDataModule
from nc_lightning.encoders import ProjectionHead, ResNet, SmallCNN


class Timed(GeometryMonitor):
    """Records the seconds of CPU time that the latest measurement took."""

    seconds = 0.0

    def _measure(self, *args: Any) -> None:
        start = time.process_time()
        super()._measure(*args)
        self.seconds = time.process_time() - start


def seconds(module: HSCL, data: ArrayDataModule, layers: list[str]) -> float:
    """Return the CPU time of one measurement."""
    monitor = Timed(layers=layers)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    Trainer(callbacks=[monitor], **quiet).validate(module, data, verbose=False)
    return monitor.seconds


def main() -> None:
    """Print the ratio, and the seconds of a measurement without layers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--encoder", choices=["resnet", "cnn"], default="resnet")
    results.add_argument(parser)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (args.images, 32, 32, 3), dtype=np.uint8), np.arange(args.images) % 10
    encoder = ResNet((3, 32, 32), depth=18) if args.encoder == "resnet" else SmallCNN((3, 32, 32))
    module = HSCL(encoder=encoder, num_classes=10, projector=ProjectionHead)
    blocks = [
        name
        for name, part in module.encoder.named_modules()
        if name.count(".") == 1 and any(True for _ in part.parameters())
    ]
    layers = [f"encoder.{blocks[-2]}", "encoder", "projector.0"]
    ratios, plain = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images.npz"
        held_out = args.images // 4
        np.savez(path, x_train=images, y_train=labels, x_test=images[:held_out], y_test=labels[:held_out])
        data = ArrayDataModule(path=str(path), batch_size=min(256, args.images))
        for turn in range(args.rounds + 1):  # the first one is not counted
            without, with_layers = seconds(module, data, []), seconds(module, data, layers)
            if turn > 0:
                ratios.append(with_layers / without)
                plain.append(without)
    machine = "1 CPU thread"
    print(f"{args.images} images 32x32, {args.encoder}, {', '.join(layers)}; {machine}")
    print(f"with three layers over without: {results.spread(ratios, 3)}; without: {results.spread(plain)} s")
    row = {
        "encoder": args.encoder,
        "images": args.images,
        "with three layers / without": results.spread(ratios, 3),
        "CPU seconds without": results.spread(plain),
    }
    results.write(args.json, machine, [row])


if __name__ == "__main__":
    main()
