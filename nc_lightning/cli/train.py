"""``nc-train``: LightningCLI with our defaults, the shipped configs, and one-line errors.

    nc-train fit --config hscl.yaml
    nc-train fit --config hscl.yaml --config digit_pairs.yaml --model.beta 5
    nc-train validate --config RUN/config.yaml --ckpt_path RUN/checkpoints/last.ckpt
    nc-train predict --config RUN/config.yaml --ckpt_path RUN/checkpoints/last.ckpt
    nc-train fit --config hscl.yaml --ckpt_path last

From Python or a notebook: ``nc_lightning.cli.main(["fit", "--config", "hscl.yaml"])``.
"""

import sys
from argparse import ArgumentError
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import AsyncCheckpointIO, CheckpointIO
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from nc_lightning.callbacks import (
    CheckpointStep,
    CollapseWatch,
    GeometryMonitor,
    GracefulStop,
    NonFiniteGuard,
    OnlineLinearProbe,
    PredictionWriter,
    ProcessWatch,
    RandomStates,
    ResumedEpoch,
    RunCheckpoint,
    TensorBoardDashboard,
)
from nc_lightning.cli.chosen_checkpoint import check_named_run, chosen_checkpoint, evaluated_run
from nc_lightning.cli.commands import RUN_COMMANDS, general, nc_train
from nc_lightning.cli.configs import resolve_configs
from nc_lightning.cli.errors import errors_on_one_line
from nc_lightning.cli.headings import parser_texts, set_headings
from nc_lightning.cli.noise import without_noise
from nc_lightning.cli.parser import check_subcommand
from nc_lightning.cli.progress import progress_callbacks
from nc_lightning.cli.run_name import check_name, default_name
from nc_lightning.cli.saved_config import SavedConfig
from nc_lightning.cli.suggestions import subcommand_message
from nc_lightning.cli.summary import model_line, print_summary
from nc_lightning.distributed.devices import check_accelerator, check_same_device
from nc_lightning.distributed.launcher import announced
from nc_lightning.io.checkpoints import AtomicCheckpointIO
from nc_lightning.io.run_folder import Trainer as OwnTrainer
from nc_lightning.io.run_folder import claimed_folder
from nc_lightning.objectives import ContrastiveObjective
from nc_lightning.private_apis.jsonargparse import remove_links, rename_group
from nc_lightning.private_apis.lightning import leave_out_callbacks
from nc_lightning.strategies import check_strategy

DEFAULT_CALLBACKS: dict[str, type[Callback]] = {
    "geometry": GeometryMonitor,
    "dashboard": TensorBoardDashboard,
    "probe": OnlineLinearProbe,
    "nonfinite": NonFiniteGuard,
    "collapse": CollapseWatch,
    "predict": PredictionWriter,
}
_ENCODER_SHAPE = "model.init_args.encoder.init_args.input_shape"
_PROBE_OPTIMIZER = {"class_path": "torch.optim.Adam", "init_args": {"lr": 1e-2, "weight_decay": 5e-3}}
"""NC3 is defined for classifiers with weight decay: without it the probe never forgets the initial class means."""


class ContrastiveCLI(LightningCLI):
    """LightningCLI for contrastive objectives.

    The number of classes and the input shape are linked from the data to the model. A geometry monitor
    (``--geometry``), its dashboard (``--dashboard``), a linear probe (``--probe``), a guard against NaN and infinity
    (``--nonfinite``), a watch for dimensional collapse (``--collapse``), a writer of predictions (``--predict``) and a
    checkpoint callback (``--checkpoint``) are always present; any of them except the checkpoint callback is replaced by
    one of the same type in the user's list of callbacks. The callbacks for resuming, stopping and failing processes are
    always present too, and `AtomicCheckpointIO` writes the checkpoints unless the user's plugins contain a
    CheckpointIO.
    """

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the default callbacks, and the links from data to model."""
        for key, callback in DEFAULT_CALLBACKS.items():
            parser.add_lightning_class_args(callback, key)
        rename_group(parser, "predict", "predictions")  # Lightning makes one for the subcommand
        parser.add_lightning_class_args(RunCheckpoint, "checkpoint")
        parser.add_argument(
            "--name",
            type=str | None,
            default=None,
            help="name of the run, its folder lightning_logs/NAME, and what --ckpt_path last resumes; default: such as "
            "hscl-digits-beta10",
        )
        parser.set_defaults(
            {"geometry.every_n_epochs": 10, "probe.optimizer": _PROBE_OPTIMIZER, "checkpoint.save_last": "link"}
        )
        parser.link_arguments("data", "model.init_args.num_classes", compute_fn=_num_classes, apply_on="instantiate")
        parser.link_arguments("data", _ENCODER_SHAPE, compute_fn=_input_shape, apply_on="instantiate")

    def setup_parser(self, *args: Any, **kwargs: Any) -> None:
        """Build the parsers, and give them our headings."""
        super().setup_parser(*args, **kwargs)
        for name in self.subcommands():
            set_headings(self._parser(name))

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the command line, and remember it for the name of the run.

        An unknown option is refused with the one that was probably meant.
        """
        try:
            super().parse_arguments(parser, args)
        except ArgumentError as error:
            subcommand = next((arg for arg in args if arg in self.subcommands()), None)
            if subcommand is None:
                raise
            known = self._parser(subcommand).get_defaults(skip_validation=True).keys()
            message = subcommand_message(str(error), known, subcommand, args)
            raise ValueError(message or str(error)) from error
        self._arguments = list(args)

    def before_instantiate_classes(self) -> None:
        """Remember user settings that links or Lightning would override; refuse some strategies."""
        config = self.config[self.subcommand]
        if config.name is not None:
            check_name(config.name)
        if isinstance(config.trainer.accelerator, str):
            check_accelerator(config.trainer.accelerator, "--trainer.accelerator")
        if isinstance(config.trainer.strategy, str):
            check_strategy(config.trainer.strategy, "--trainer.strategy")
        if _ENCODER_SHAPE not in config:
            # Lightning would save the shape as a hyperparameter, so that the checkpoint could not be loaded; and it
            # fails for an encoder without any arguments.
            remove_links(self._parser(self.subcommand), _ENCODER_SHAPE)
        self._asked_num_classes = config.model.init_args.get("num_classes")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Leave out default callbacks that the user's list replaces, or that other settings forbid."""
        config = self._get(self.config_init, "trainer")
        listed = config.callbacks or []
        listed = listed if isinstance(listed, list) else [listed]
        out = {key for key, ours in DEFAULT_CALLBACKS.items() if any(isinstance(callback, ours) for callback in listed)}
        if config.barebones:
            # barebones logs nothing and only times the steps
            out |= DEFAULT_CALLBACKS.keys() - {"nonfinite", "predict"}
        if config.barebones or config.enable_checkpointing is False:
            out.add("checkpoint")
            others = self.trainer_defaults["callbacks"]
            self.trainer_defaults["callbacks"] = [c for c in others if not isinstance(c, Checkpoint)]
        leave_out_callbacks(self._parser(self.subcommand), out)
        if config.enable_progress_bar is not False and not config.barebones:
            shown = progress_callbacks(listed)
            self.trainer_defaults["callbacks"] = [*self.trainer_defaults["callbacks"], *shown]
            kwargs["enable_progress_bar"] = any(isinstance(c, ProgressBar) for c in [*listed, *shown])
        plugins = config.plugins or []
        plugins = plugins if isinstance(plugins, list) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            kwargs["plugins"] = [*plugins, AtomicCheckpointIO()]
        for plugin in plugins:
            if isinstance(plugin, AsyncCheckpointIO) and plugin.checkpoint_io is None:
                plugin.checkpoint_io = AtomicCheckpointIO()
        return super().instantiate_trainer(**kwargs)

    def after_instantiate_classes(self) -> None:
        """Refuse different devices on several machines, and a number of classes that differs from the data's."""
        self._store = check_same_device(self.trainer)
        asked, there = self._asked_num_classes, _num_classes(self.datamodule)
        if asked is not None and asked != there:
            raise ValueError(f"--model.num_classes: got {asked}, expected {there}, the number of classes of the data")

    def _run_subcommand(self, subcommand: str) -> None:
        """Run the subcommand in a folder of its own; anything but a fit, in the folder of the checkpoint's run."""
        config = self.config[subcommand]
        run = evaluated_run(subcommand, config)
        if run is not None:
            claimed = claimed_folder(self.trainer, subcommand, run)  # type: ignore[arg-type]
        else:
            name = config.name or default_name(config, self._arguments)
            # A version that a job of SLURM or the logger asks for goes before a default name.
            claimed = claimed_folder(self.trainer, name, override=config.name is not None)  # type: ignore[arg-type]
        with claimed:
            super()._run_subcommand(subcommand)

    def before_fit(self) -> None:
        """Log a one-line summary of the model."""
        rank_zero_info(model_line(self.model))

    def before_validate(self) -> None:
        """Leave the numbers to our table; Lightning would print its own list of all of them."""
        self.config_init[self.subcommand].verbose = False

    before_test = before_validate

    def before_predict(self) -> None:
        """Leave the predictions to the files; Lightning would keep all of them in memory to return them."""
        self.config_init[self.subcommand].return_predictions = False
        # A prediction logs nothing: TensorBoard would list an empty run.
        self.trainer.loggers = [c for c in self.trainer.loggers if not isinstance(c, TensorBoardLogger)]

    def after_fit(self) -> None:
        """Print the results, after the progress bar has closed."""
        print_summary(self.trainer, self.model)

    after_validate = after_test = after_fit

    def _parse_ckpt_path(self) -> None:
        """Check the checkpoint, and let the configuration and the command line take precedence over its settings.

        Lightning would let the checkpoint's settings override them, including the objective.
        """
        subcommand = self.config.get("subcommand")
        if subcommand is not None:
            config = self.config[subcommand]
            config.ckpt_path = chosen_checkpoint(subcommand, config)
            if any(argument.partition("=")[0] == "--name" for argument in self._arguments):
                check_named_run(subcommand, config)


def _num_classes(data: LightningDataModule) -> int:
    return int(_known_before_setup(data, "num_classes"))


def _input_shape(data: LightningDataModule) -> list[int]:
    return list(_known_before_setup(data, "input_shape"))


def _known_before_setup(data: LightningDataModule, name: str) -> Any:
    value = getattr(data, name, None)
    if value is None:
        raise ValueError(f"--data: got {type(data).__name__} without {name}, expected it as an attribute before setup")
    return value


@without_noise()
@announced()
@errors_on_one_line("nc-train")
def main(args: Sequence[str] | None = None) -> ContrastiveCLI | Any:
    """Run ``nc-train`` with a command line, by default ``sys.argv[1:]``.

    Returns:
        The CLI, with its ``trainer``, ``model`` and ``datamodule``; for ``evaluate`` and ``export``, what their own
        ``main`` returns; None for help.

    Raises:
        CommandError: With one line on bad input. Set ``NC_DEBUG=1`` for the exception itself.
    """
    args = sys.argv[1:] if args is None else args
    if general(args):
        return None
    check_subcommand(args)
    if args[0] in RUN_COMMANDS:
        return import_module(RUN_COMMANDS[args[0]][1]).main(args[1:])
    return ContrastiveCLI(
        ContrastiveObjective,
        LightningDataModule,
        args=resolve_configs(args),
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=SavedConfig,
        trainer_class=OwnTrainer,
        seed_everything_default=0,
        auto_configure_optimizers=False,  # --optimizer would replace an objective's optimizer and its decay groups
        # These come after the user's and our callbacks, whose random states, sums and files they handle.
        trainer_defaults={
            "enable_model_summary": False,  # we log one line instead
            "callbacks": [CheckpointStep(), RandomStates(), ResumedEpoch(), ProcessWatch(), GracefulStop()],
        },
        parser_kwargs={"exit_on_error": False, "allow_abbrev": False, **parser_texts()},
    )


def console_script() -> None:
    """Run ``nc-train`` as a console script, which would otherwise use the return value as exit code."""
    try:
        main()
    finally:
        if dist.is_available() and dist.is_initialized():
            # Threads of gloo that still run at exit may abort the program.
            dist.destroy_process_group()


if __name__ == "__main__":
    nc_train()
