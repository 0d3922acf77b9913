"""The console scripts, which parse the command line before they import anything heavy.

``nc-train --help`` and similar calls answer at once, because this module and its imports do not need torch.
"""

import argparse
import sys
import textwrap
from importlib import import_module
from pathlib import Path

from nc_lightning.cli.configs import shipped_configs

NORMALIZATIONS = ("unit_ball", "unit_sphere", "none")
"""Allowed values of `nc_lightning.geometry.Normalization`."""
_TRAIN_HELP = """\
usage: nc-train {fit,validate,test,predict} [--config FILE ...] [--OPTION VALUE ...]

Train a contrastive objective and measure the geometry of its representation.

  nc-train fit --config hscl.yaml                      train; change a setting with --model.beta 5 and the like
  nc-train fit --config hscl.yaml --ckpt_path last     resume the last run
  nc-train validate --config RUN/config.yaml           measure the checkpoint of a run
  nc-train test --config RUN/config.yaml               the same on the test set
  nc-train predict --config RUN/config.yaml            write features, labels and names to predictions.npz

Options are those of LightningCLI. --config may be repeated; later files override earlier ones.
  nc-train fit --help                                  every option
  nc-train fit --model.help nc_lightning.HSCL          the options of an objective
  nc-train fit --config hscl.yaml --print_config       the whole configuration

Shipped configs:
{configs}

Other commands: nc-measure (features in a file), nc-report (compare runs), nc-sweep (grids of runs).
"""


def nc_train() -> None:
    """Run ``nc-train``."""
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(_train_help(), end="")
        sys.exit()
    sys.path.append(str(Path.cwd()))  # for --model.encoder mine.MyEncoder, as under python -m
    import_module("nc_lightning.cli.train").console_script()


def nc_measure() -> None:
    """Run ``nc-measure``."""
    measure_parser().parse_args()
    import_module("nc_lightning.cli.measure").main()


def nc_report() -> None:
    """Run ``nc-report``."""
    report_parser().parse_args()
    import_module("nc_lightning.cli.report").main()


def nc_sweep() -> None:
    """Run ``nc-sweep``."""
    sweep_parser().parse_known_args()
    import_module("nc_lightning.sweeps.command").main()


def measure_parser() -> argparse.ArgumentParser:
    """Return the command-line parser of ``nc-measure``."""
    parser = argparse.ArgumentParser("nc-measure", description="Measure the geometry of features in a file.")
    parser.add_argument("file", metavar="FILE", help=".npz, .pt or .parquet with features and labels, or .npy")
    parser.add_argument("labels", metavar="LABELS", nargs="?", help="second .npy with the labels")
    parser.add_argument("--normalization", choices=NORMALIZATIONS, default="none", help="applied to the features first")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table; NaN and infinity as null")
    parser.add_argument("--plot", metavar="OUT.png", help="draw the spectrum, cosines and positions of the class means")
    parser.add_argument("--tensorboard", metavar="DIR", help="write the measures and the figure for TensorBoard")
    return parser


def report_parser() -> argparse.ArgumentParser:
    """Return the command-line parser of ``nc-report``."""
    parser = argparse.ArgumentParser("nc-report", description="Report the geometry of one or several runs.")
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folder of a run, or a report.json")
    parser.add_argument(
        "--output",
        metavar="OUT.html",
        help="new file; default: report.html next to the record of the run, or comparison.html here for several",
    )
    return parser


def sweep_parser() -> argparse.ArgumentParser:
    """Return the command-line parser of ``nc-sweep``."""
    parser = argparse.ArgumentParser(
        "nc-sweep",
        description="Train every cell of a grid and collect the results. Finished cells are skipped; interrupted ones "
        "resume from their last checkpoint.",
        epilog="Options of nc-train, such as --trainer.max_epochs 5 or --data CLASS, apply to every cell.",
        allow_abbrev=False,
    )
    parser.add_argument("sweep", metavar="SWEEP.yaml", help="plan: a file or a shipped one")
    parser.add_argument("--output", metavar="FOLDER", help="folder of the sweep; default: sweeps/NAME_OF_THE_PLAN")
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="number of cells to run at once here (1)")
    parser.add_argument("--submit", action="store_true", help="run the cells on SLURM with submitit instead of locally")
    parser.add_argument("--list", action="store_true", help="list the cells and their status without running any")
    return parser


def _train_help() -> str:
    names = [name for name in shipped_configs() if "/" not in name]
    folders = sorted({name.partition("/")[0] for name in shipped_configs()} - set(names))
    listed = ", ".join([*names, *(f"{folder}/..." for folder in folders)])
    return _TRAIN_HELP.replace("{configs}", textwrap.fill(listed, 100, initial_indent="  ", subsequent_indent="  "))


if __name__ == "__main__":
    nc_train()
