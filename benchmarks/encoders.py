"""Speed of encoders in training on a CPU: images per second, as multiples of those of a ResNet-18.

    python -m benchmarks.encoders [--images 250] [--rounds 5] [--only SmallResNet]

Forward and backward pass of random 32x32 images on one thread, in float32 and with bfloat16 autocast (as
``--trainer.precision bf16-mixed``), each with and without channels-last format (``--model.channels_last true``). In
each round every encoder runs once in every setting, and its speed is divided by that of the ResNet-18 in float32 in the
same round. Times are CPU times, which other processes change less. The ResNet-18 runs on a tenth of the images.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from benchmarks import results
from nc_lightning.encoders import ResNet, SmallCNN, SmallResNet, TimmEncoder

SHAPE = (3, 32, 32)
BASELINE = "ResNet 18, cifar"
ENCODERS: dict[str, Callable[[], nn.Module]] = {
    BASELINE: lambda: ResNet(SHAPE, depth=18),
    "ResNet 18, imagenet": lambda: ResNet(SHAPE, depth=18, stem="imagenet"),
    "TimmEncoder resnet10t": lambda: TimmEncoder("resnet10t", SHAPE),
    "SmallCNN": lambda: SmallCNN(SHAPE),
    "SmallResNet, patch 2": lambda: SmallResNet(SHAPE, patch=2),
    "SmallResNet": lambda: SmallResNet(SHAPE),
}
SETTINGS = {
    "float32": (torch.float32, False),
    "float32, channels last": (torch.float32, True),
    "bf16": (torch.bfloat16, False),
    "bf16, channels last": (torch.bfloat16, True),
}


def images_per_second(encoder: nn.Module, x: torch.Tensor, dtype: torch.dtype, channels_last: bool) -> float:
    """Return the speed of one forward and backward pass, by CPU time."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    encoder.to(memory_format=layout)
    start = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        h = encoder(x)
    h.float().square().mean().backward()
    return len(x) / (time.process_time() - start)


def main() -> None:
    """Print images per second and their multiples of the baseline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=[*ENCODERS], nargs="*", default=[*ENCODERS])
    results.add_argument(parser)
    args = parser.parse_args()
    torch.set_num_threads(1)
    encoders = {name: ENCODERS[name]() for name in dict.fromkeys([BASELINE, *args.only])}
    speeds: dict[tuple[str, str], list[float]] = {(name, setting): [] for name in encoders for setting in SETTINGS}
    for turn in range(args.rounds + 1):  # the first one is not counted
        for (name, setting), each in speeds.items():
            x = torch.rand(max(2, args.images // 10) if name == BASELINE else args.images, *SHAPE)
            speed = images_per_second(encoders[name], x, *SETTINGS[setting])
            if turn > 0:
                each.append(speed)
    machine = "1 CPU thread"
    rows = []
    for name, encoder in encoders.items():
        rows.append({"encoder": name, "million weights": round(sum(p.numel() for p in encoder.parameters()) / 1e6, 2)})
        for setting in SETTINGS:
            each, base = speeds[name, setting], speeds[BASELINE, "float32"]
            rows[-1][setting] = results.spread([a / b for a, b in zip(each, base, strict=True)], 1)
        rows[-1]["images / s, float32"] = f"{statistics.median(speeds[name, 'float32']):.0f}"
        rows[-1]["images / s, bf16, channels last"] = f"{statistics.median(speeds[name, 'bf16, channels last']):.0f}"
        print(" | ".join(f"{key}: {value}" for key, value in rows[-1].items()))
    results.write(args.json, machine, rows)


if __name__ == "__main__":
    main()
