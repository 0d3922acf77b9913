"""Every run has its own folder, with any logger, even when started simultaneously or in the same process."""

import os
import threading
from pathlib import Path

import pytest
from lightning import pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger

from nc_lightning.callbacks.sources import run_folder
from nc_lightning.cli import main
from nc_lightning.io.run_folder import Trainer, claim, claimed_folder

SHORT = ["--config=hscl.yaml", "--trainer.max_epochs=1", "--trainer.enable_progress_bar=false"]
SHORT += ["--trainer.enable_model_summary=false", "--data.batch_size=500"]


class Wandb(Logger):
    """Like WandbLogger: one save_dir for all runs, and a name for each from the server."""

    def __init__(self, save_dir: str = "."):
        super().__init__()
        self._save_dir, self._version = save_dir, None

    save_dir = property(lambda self: self._save_dir)
    name = property(lambda self: "project")
    version = property(lambda self: self._version)

    @property
    def experiment(self):
        self._version = self._version or f"id{id(self)}"
        return self

    def log_metrics(self, metrics, step=None): ...

    def log_hyperparams(self, params): ...


def trainer(*loggers, **options):
    return Trainer(accelerator="cpu", logger=list(loggers) or False, callbacks=ModelCheckpoint(), **options)


@pytest.fixture(autouse=True)
def _empty_folder(in_tmp):
    return in_tmp


@pytest.mark.parametrize("version", [None, 7, "mine"])
def test_fifty_simultaneous_runs_have_fifty_folders(in_tmp, version):
    claimed, together = [], threading.Barrier(50)

    def start():
        together.wait()
        claimed.append(claim(in_tmp / "logs", version)[1])

    threads = [threading.Thread(target=start) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(claimed)) == 50
    assert set(claimed) == set((in_tmp / "logs").iterdir())


LAYOUTS = {
    "TensorBoard": (lambda: [TensorBoardLogger(".")], ["L/version_0", "L/version_1"]),
    "a name": (lambda: [TensorBoardLogger("logs", name="mine")], ["logs/mine/version_0", "logs/mine/version_1"]),
    "no name": (lambda: [TensorBoardLogger("logs", name="")], ["logs/version_0", "logs/version_1"]),
    "a number": (lambda: [TensorBoardLogger(".", version=7)], ["L/version_7", "L/version_7-1"]),
    "a version": (lambda: [CSVLogger(".", version="mine")], ["L/mine", "L/mine-1"]),
    "a sub_dir": (lambda: [TensorBoardLogger(".", sub_dir="x")], ["L/version_0", "L/version_1"]),
    "$HOME": (lambda: [TensorBoardLogger("$PLACE", name="a")], ["place/a/version_0", "place/a/version_1"]),
    "CSV": (lambda: [CSVLogger("logs", name="a/b")], ["logs/a/b/version_0", "logs/a/b/version_1"]),
    "two, one place": (
        lambda: [TensorBoardLogger("."), CSVLogger(".")],
        ["L/version_0", "L/version_1"],
    ),
    "two places": (lambda: [CSVLogger("a"), TensorBoardLogger("b")], ["a/L/version_0"]),
    "W&B": (lambda: [Wandb()], ["L/version_0", "L/version_1"]),
    "W&B first": (lambda: [Wandb(), TensorBoardLogger("b", name="c")], ["b/c/version_0", "b/c/version_1"]),
    "none": (lambda: [], ["L/version_0", "L/version_1"]),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_run_has_its_own_folder(name, monkeypatch):
    monkeypatch.setenv("PLACE", "place")
    loggers, expected = LAYOUTS[name]
    for folder in expected:
        run = trainer(*loggers())
        with claimed_folder(run):
            folder = folder.replace("L", "lightning_logs")
            assert os.path.relpath(run.log_dir) == folder
            assert run.checkpoint_callback.dirpath == os.path.join(run.log_dir, "checkpoints")
            for logger in run.loggers:
                if not isinstance(logger, Wandb):
                    place = Path(logger.save_dir, logger.name, str(logger.version))
                    Path(logger.log_dir).mkdir(parents=True, exist_ok=True)
                    assert Path(logger.log_dir, "x").parent.is_dir(), place
            Path(run.log_dir, "something").touch()
        assert Path(folder, "something").is_file()


def test_each_logger_s_folder_is_claimed():
    runs = [trainer(CSVLogger("a"), TensorBoardLogger("b", version="x")) for _ in range(2)]
    for run in runs:
        with claimed_folder(run):
            Path(run.log_dir, "something").touch()
            Path(run.loggers[1].log_dir, "something").touch()
    assert [run.loggers[1].version for run in runs] == ["x", "x-1"]
    assert len(list(Path.cwd().rglob("something"))) == 4


def test_an_empty_run_folder_is_removed():
    with claimed_folder(trainer()):
        assert Path("lightning_logs/version_0").is_dir()
    assert not list(Path("lightning_logs").iterdir())


@pytest.mark.parametrize("options", [{"fast_dev_run": True}, {"default_root_dir": "s3://bucket/runs"}])
def test_no_folder_is_claimed_if_nothing_is_written_locally(options):
    with claimed_folder(trainer(**options)):
        assert not list(Path.cwd().iterdir())


def test_rank_0_claims_the_folder_for_all_processes(monkeypatch):
    run = trainer()
    monkeypatch.setattr(run.strategy, "broadcast", lambda _: "as the first says")
    with claimed_folder(run):
        assert run.log_dir == "as the first says"
    monkeypatch.setattr(Trainer, "is_global_zero", False)
    other = trainer()
    monkeypatch.setattr(other.strategy, "broadcast", lambda _: "as the first says")
    with claimed_folder(other):
        assert other.log_dir == "as the first says"
        assert not list(Path("lightning_logs").iterdir()), "the folder of rank 0 is removed, and no other was made"


def test_a_folder_that_cannot_be_created_is_one_line(refusal):
    Path("taken").write_text("a file")
    line = refusal(main, ["fit", *SHORT, "--trainer.default_root_dir=taken"])
    assert "logger: could not make the folder" in line
    assert "set --trainer.default_root_dir" in line


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.some(1)
@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["--trainer.logger=TensorBoardLogger", "--trainer.logger.save_dir=.", "--trainer.logger.version=mine"],
        ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=.", "--trainer.logger.version=3"],
        ["--trainer.logger=tests.io.test_run_folder.Wandb"],
        [],
    ],
    ids=["TensorBoard, same version", "CSV, same version", "W&B", "the job of SLURM"],
)
def test_two_runs_do_not_share_a_file(in_tmp, monkeypatch, arguments):
    if not arguments:
        for key, value in {"JOB_ID": "7", "JOB_NAME": "x", "NTASKS": "1", "PROCID": "0", "LOCALID": "0"}.items():
            monkeypatch.setenv(f"SLURM_{key}", value)
        monkeypatch.setenv("SLURM_NODEID", "0")
    first = Path(main(["fit", *SHORT, *arguments]).trainer.log_dir)
    before = contents(in_tmp)
    second = Path(main(["fit", *SHORT, *arguments]).trainer.log_dir)
    assert {path: content for path, content in contents(in_tmp).items() if path in before} == before
    for folder in (first, second):
        for name in ("config.yaml", "report.html", "report.json", "checkpoints/last.ckpt"):
            assert (folder / name).is_file()
        assert not list(folder.glob("*-1.*")), "no files accumulate"
    assert first != second


def test_in_a_pipeline_with_wandb_each_report_has_the_folder_of_its_run():
    folders = []
    for _ in range(2):
        logger = Wandb("logs")
        run = pl.Trainer(accelerator="cpu", logger=logger.experiment)
        assert run_folder(run) == Path("logs/project", logger.version)
        folders.append(run_folder(run))
    assert folders[0] != folders[1]
    for logger in (CSVLogger("logs"), TensorBoardLogger("logs"), False):
        run = pl.Trainer(accelerator="cpu", logger=logger)
        assert run_folder(run) == Path(run.log_dir)
