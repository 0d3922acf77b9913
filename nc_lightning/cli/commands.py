"""The console scripts: they read the command line before they load what is heavy.

``nc-train --help`` and the like answer at once: this module and what it imports do without torch.
"""

import argparse
import sys
import textwrap
from importlib import import_module
from pathlib import Path

from nc_lightning.cli.configs import shipped_configs

NORMALIZATIONS = ("unit_ball", "unit_sphere", "none")
"""What `nc_lightning.geometry.Normalization` allows."""
_TRAIN_HELP = """\
usage: nc-train {fit,validate,test,predict} [--config FILE ...] [--OPTION VALUE ...]

Train a contrastive objective and measure the geometry of its representation.

  nc-train fit --config hscl.yaml                      train; --model.beta 5 and the like change a setting
  nc-train fit --config hscl.yaml --ckpt_path last     resume the run that was stopped last
  nc-train validate --config RUN/config.yaml           measure the checkpoint of a run
  nc-train test --config RUN/config.yaml               the same with the test set
  nc-train predict --config RUN/config.yaml            write features, labels and names to predictions.npz

Options are those of LightningCLI; --config may be given several times, and the last one wins.
  nc-train fit --help                                  every option
  nc-train fit --model.help nc_lightning.HSCL          the options of an objective
  nc-train fit --config hscl.yaml --print_config       the whole configuration

Configs that come along:
{configs}

Other commands: nc-measure (features in a file), nc-report (runs side by side), nc-sweep (grids of runs).
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
    """Return the parser of the command line of ``nc-measure``."""
    parser = argparse.ArgumentParser("nc-measure", description="Measure the geometry of features in a file.")
    parser.add_argument("file", metavar="FILE", help=".npz or .pt or .parquet with features and labels, or .npy")
    parser.add_argument("labels", metavar="LABELS", nargs="?", help="second .npy, with the labels")
    parser.add_argument("--normalization", choices=NORMALIZATIONS, default="none", help="applied before")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table; NaN and infinity as null")
    parser.add_argument("--plot", metavar="OUT.png", help="draw spectrum, cosines of class means and class means")
    parser.add_argument("--tensorboard", metavar="DIR", help="write the measures and the figure for TensorBoard")
    return parser


def report_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line of ``nc-report``."""
    parser = argparse.ArgumentParser("nc-report", description="Make a report of the geometry of one run or several.")
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folder of a run, or a report.json")
    parser.add_argument(
        "--output",
        metavar="OUT.html",
        help="a new file; by default report.html next to the record of the run, or comparison.html here for several",
    )
    return parser


def sweep_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line of ``nc-sweep``."""
    parser = argparse.ArgumentParser(
        "nc-sweep",
        description="Train every cell of a grid and gather the results. Cells that are done are not run again; those "
        "that were interrupted go on from their last checkpoint.",
        epilog="Settings of nc-train, such as --trainer.max_epochs 5 or --data CLASS, are for every cell.",
        allow_abbrev=False,
    )
    parser.add_argument("sweep", metavar="SWEEP.yaml", help="the plan: a file, or a shipped one")
    parser.add_argument("--output", metavar="FOLDER", help="sweeps/<name of the plan> if not given")
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="cells at once on this machine (1)")
    parser.add_argument("--submit", action="store_true", help="to SLURM, by submitit, instead of this machine")
    parser.add_argument("--list", action="store_true", help="print the cells and how they stand, and run none")
    return parser


def _train_help() -> str:
    names = [name for name in shipped_configs() if "/" not in name]
    folders = sorted({name.partition("/")[0] for name in shipped_configs()} - set(names))
    listed = ", ".join([*names, *(f"{folder}/..." for folder in folders)])
    return _TRAIN_HELP.replace("{configs}", textwrap.fill(listed, 100, initial_indent="  ", subsequent_indent="  "))
