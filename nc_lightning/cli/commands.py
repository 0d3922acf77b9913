"""The console scripts, which parse the command line before they import anything heavy.

``nc-train --help`` and similar calls answer at once, because this module and its imports do not need torch.
"""

import sys
import textwrap
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from nc_lightning.cli.command_error import CommandError, exit_on_error
from nc_lightning.cli.configs import resolve_configs, shipped_configs
from nc_lightning.cli.parser import CommandParser, check_subcommand, version_line

NORMALIZATIONS = ("unit_ball", "unit_sphere", "none")
"""Allowed values of `nc_lightning.geometry.Normalization`."""
EXPORT_FORMATS = ("safetensors", "timm", "pt2", "onnx")
"""Keys of `nc_lightning.export.formats.FORMATS`."""
_TRAIN_HELP = """\
usage: nc-train {fit,validate,test,predict} [--config FILE ...] [--OPTION VALUE ...]
       nc-train evaluate RUN [--layers LAYERS] [--data CLASS ...]
       nc-train export RUN --format FORMAT

Train a contrastive objective and measure the geometry of its representation.

  nc-train fit --config hscl.yaml                      train; change a setting with --model.beta 5 and the like
  nc-train fit --config hscl.yaml --ckpt_path last     resume the last run
  nc-train validate --config RUN/config.yaml           measure the checkpoint of a run
  nc-train test --config RUN/config.yaml               the same on the test set
  nc-train predict --config RUN/config.yaml            write features of any layer and split to files
  nc-train evaluate RUN                                k-NN, linear and few-shot accuracy of the features
  nc-train export RUN --format safetensors             write the encoder to files that load without this package

Options are those of LightningCLI. --config may be repeated; later files override earlier ones.
  nc-train fit --help                                  every option
  nc-train fit --model.help HSCL                       the options of an objective
  nc-train fit --config hscl.yaml --print_config       the whole configuration, before training
  nc-train --version                                   the version

Shipped configs:
{configs}

Other commands: nc-measure (features in a file), nc-report (compare runs), nc-sweep (grids of runs).
"""


@exit_on_error()
def nc_train() -> None:
    """Run ``nc-train``."""
    if general(sys.argv[1:]):
        sys.exit()
    try:
        check_subcommand(sys.argv[1:])
        resolve_configs(sys.argv[1:])  # before the seconds of loading torch
    except (ValueError, OSError) as error:
        raise CommandError(str(error), "nc-train") from error
    own = RUN_COMMANDS.get("".join(sys.argv[1:2]))
    if own is not None:
        own[0]().parse_known_args(sys.argv[2:])
    sys.path.append(str(Path.cwd()))  # for --model.encoder mine.MyEncoder, as under python -m
    if own is not None:
        import_module(own[1]).main(sys.argv[2:])
        return
    import_module("nc_lightning.cli.train").console_script()


def general(args: Sequence[str]) -> bool:
    """Print the help or the version if a command line of ``nc-train`` asks for either, and return whether it does."""
    if list(args) in (["-h"], ["--help"]):
        print(_train_help(), end="")
    elif list(args) == ["--version"]:
        print(version_line())
    else:
        return False
    return True


@exit_on_error()
def nc_measure() -> None:
    """Run ``nc-measure``."""
    measure_parser().parse_args()
    import_module("nc_lightning.cli.measure").main()


@exit_on_error()
def nc_report() -> None:
    """Run ``nc-report``."""
    report_parser().parse_args()
    import_module("nc_lightning.cli.report").main()


@exit_on_error()
def nc_sweep() -> None:
    """Run ``nc-sweep``."""
    sweep_parser().parse_known_args()
    sys.path.append(str(Path.cwd()))  # for classes of the user, as in nc-train
    import_module("nc_lightning.sweeps.command").main()


def evaluate_parser() -> CommandParser:
    """Return the command-line parser of ``nc-train evaluate``."""
    parser = CommandParser(
        "nc-train evaluate",
        description="Score frozen features of a run on the test set, with the training set as reference: k nearest "
        "neighbors, linear probe, nearest class mean, few-shot, retrieval. The results are printed, written to "
        "evaluation.json and .csv in the run's folder, and added to its report.",
        epilog="--data CLASS --data.OPTION VALUE evaluates on another data set, as in nc-train fit.",
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run, or a checkpoint")
    parser.add_argument(
        "--layers", default="encoder,z", help="layers, separated by commas: z is the projection (default: encoder,z)"
    )
    return parser


def export_parser() -> CommandParser:
    """Return the command-line parser of ``nc-train export``."""
    parser = CommandParser(
        "nc-train export",
        description="Write the encoder of a run, with its preprocessing and a model card, to a new folder. Its files "
        "load without nc_lightning; the model card has the code.",
    )
    parser.add_argument("run", metavar="RUN", help="folder of a run, or a checkpoint")
    parser.add_argument(
        "--format",
        choices=EXPORT_FORMATS,
        required=True,
        help="safetensors: weights, named as in torchvision and timm; timm: its folder format; pt2: graph by "
        "torch.export; onnx: graph for ONNX Runtime",
    )
    parser.add_argument("--output", metavar="FOLDER", help="new folder; default: encoder-FORMAT in the run's folder")
    return parser


def measure_parser() -> CommandParser:
    """Return the command-line parser of ``nc-measure``."""
    parser = CommandParser("nc-measure", description="Measure the geometry of features in a file.")
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help=".npz, .npy, .pt, .csv, .parquet or .safetensors, a folder of Hugging Face's save_to_disk, or a pattern "
        "in quotes such as 'feats_*.npy', whose files are one set; several are compared. A .npy of shape (N,) holds "
        "the labels of the .npy before it",
    )
    parser.add_argument("--labels", metavar="FILE", help="labels of each FILE, in place of its own: .npy, .pt or .txt")
    parser.add_argument(
        "--features-key", metavar="A,B", help="name of the features in each FILE; several are compared: encoder,z"
    )
    parser.add_argument("--labels-key", metavar="NAME", help="name of the labels in each FILE")
    parser.add_argument("--normalization", choices=NORMALIZATIONS, default="none", help="applied to the features first")
    parser.add_argument(
        "--ood", metavar="OOD_FILE", help="features of out-of-distribution data, for nc5; labels are not needed"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table; NaN and infinity as null")
    parser.add_argument("--plot", metavar="OUT.png", help="draw the spectrum, cosines and positions of the class means")
    parser.add_argument("--tensorboard", metavar="DIR", help="write the measures and the figure for TensorBoard")
    return parser


def report_parser() -> CommandParser:
    """Return the command-line parser of ``nc-report``."""
    parser = CommandParser("nc-report", description="Report the geometry of one or several runs.")
    parser.add_argument("runs", metavar="RUN", nargs="+", help="folder of a run, or a report.json")
    parser.add_argument(
        "--output",
        metavar="OUT.html",
        help="new file; default: report.html next to the record of the run, or comparison.html here for several",
    )
    return parser


def sweep_parser() -> CommandParser:
    """Return the command-line parser of ``nc-sweep``."""
    parser = CommandParser(
        "nc-sweep",
        description="Train every cell of a grid and collect the results. Finished cells are skipped; interrupted ones "
        "resume from their last checkpoint.",
        epilog="Options of nc-train, such as --trainer.max_epochs 5 or --data CLASS, apply to every cell.",
    )
    parser.add_argument("sweep", metavar="SWEEP.yaml", help="plan: a file or a shipped one")
    parser.add_argument("--output", metavar="FOLDER", help="folder of the sweep; default: sweeps/NAME_OF_THE_PLAN")
    parser.add_argument("--jobs", metavar="N", type=int, default=1, help="number of cells to run at once here (1)")
    parser.add_argument("--submit", action="store_true", help="run the cells on SLURM with submitit instead of locally")
    parser.add_argument(
        "--rank-by",
        metavar="MEASURE",
        help="measure that the report ranks settings by, such as nc1, geometry/val/ncc_accuracy or loss/val; default: "
        "nc2_etf",
    )
    parser.add_argument("--list", action="store_true", help="list the cells and their status without running any")
    return parser


def _train_help() -> str:
    names = [name for name in shipped_configs() if "/" not in name]
    folders = sorted({name.partition("/")[0] for name in shipped_configs()} - set(names))
    listed = ", ".join([*names, *(f"{folder}/..." for folder in folders)])
    return _TRAIN_HELP.replace("{configs}", textwrap.fill(listed, 100, initial_indent="  ", subsequent_indent="  "))


RUN_COMMANDS: dict[str, tuple[Callable[[], CommandParser], str]] = {
    "evaluate": (evaluate_parser, "nc_lightning.cli.evaluate"),
    "export": (export_parser, "nc_lightning.cli.export"),
}
"""Subcommands of ``nc-train`` that take a run instead of a config: their parsers, and the modules that run them."""


if __name__ == "__main__":
    nc_train()
