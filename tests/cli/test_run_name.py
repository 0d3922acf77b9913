"""Names of runs, and the folders of validate, test and predict."""

import shutil
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nc_lightning.cli import main
from nc_lightning.cli.run_name import default_name

TINY = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.enable_progress_bar=false"]
FIT = ["fit", "--config=hscl.yaml", *TINY]


@pytest.fixture(autouse=True)
def _here(in_tmp):
    return in_tmp


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run, to be copied."""
    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        main([*FIT, "--name=beta5"])
    return root / "lightning_logs/beta5"


@pytest.fixture
def run(trained):
    return Path(shutil.copytree(trained, "lightning_logs/beta5", symlinks=True))


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Config(dict):
    __getattr__ = dict.__getitem__


def named(arguments, model="nc_lightning.HSCL", data="nc_lightning.data.DigitsDataModule", beta=10.0, **data_args):
    return default_name(
        Config(
            model=Config(class_path=model, init_args=Config({} if beta is None else {"beta": beta})),
            data=Config(class_path=data, init_args=Config(data_args)),
        ),
        arguments.split(),
    )


def test_a_name_says_objective_data_and_what_was_chosen():
    assert named("fit --config hscl.yaml") == "hscl-digits-beta10"
    assert named("fit --config scl.yaml", model="nc_lightning.SCL", beta=None) == "scl-digits"
    pairs = "nc_lightning.data.DigitPairsDataModule"
    assert named("fit --config hscl.yaml --config digit_pairs.yaml", data=pairs) == "hscl-digit-pairs-beta10"
    assert named("fit --config=hscl.yaml --model.beta=5 --seed_everything=3", beta=5) == "hscl-digits-beta5-seed3"
    mine = "fit --config hscl.yaml --model mine.Mine --model.extra 5"
    assert named(mine, model="mine.Mine") == "mine-digits-beta10-extra5", "not the objective that it replaces"
    assert named("fit --config=adaptive.yaml") == "hscl-digits-beta10-adaptive"
    assert named("fit --config=RUN/config.yaml --trainer.max_epochs 9 --ckpt_path last") == "hscl-digits-beta10"
    chosen = "fit --model.normalization unit_sphere --model.feature_dim=64 --model.encoder.hidden_features=[8,8]"
    assert named(chosen) == "hscl-digits-beta10-unit-sphere-feature-dim64"


def test_data_in_files_are_named_after_them():
    arrays, folders = "nc_lightning.data.ArrayDataModule", "nc_lightning.data.ImageFolderDataModule"
    assert named("fit", data=arrays, path="sets/flowers.npz") == "hscl-flowers-beta10"
    assert named("fit --data.path sets/flowers.npz", data=arrays, path="sets/flowers.npz") == "hscl-flowers-beta10"
    assert named("fit", data=folders, root="my birds/") == "hscl-my-birds-beta10"
    assert named("fit", data="nc_lightning.data.CIFAR10DataModule", root="data") == "hscl-cifar10-beta10"


def test_a_name_stays_short_and_one_folder():
    name = named("fit " + " ".join(f"--model.option{i} value/{'x' * 30}{i}" for i in range(9)))
    assert len(name) <= 100
    assert "/" not in name


@pytest.mark.exhaustive
def test_runs_of_a_name_are_counted_and_keep_their_files(run):
    before = contents(run)
    assert Path(main([*FIT, "--name=beta5"]).trainer.log_dir).name == "beta5-1"
    assert Path(main(FIT).trainer.log_dir).name == "hscl-digits-beta10"
    assert contents(run) == before
    assert main([*FIT, "--ckpt_path=last"]).trainer.ckpt_path.startswith(
        str(Path("lightning_logs/hscl-digits-beta10").absolute())
    )


@pytest.mark.exhaustive
def test_a_name_replaces_the_version_of_a_logger():
    logger = ["--trainer.logger=CSVLogger", "--trainer.logger.save_dir=logs", "--trainer.logger.version=7"]
    assert Path(main([*FIT, *logger]).trainer.log_dir) == Path("logs/lightning_logs/version_7")
    assert Path(main([*FIT, *logger, "--name=mine"]).trainer.log_dir) == Path("logs/lightning_logs/mine")


@pytest.mark.some(1)
@pytest.mark.parametrize("name", ["a/b", "..", "", ".hidden"])
def test_a_name_that_is_no_folder_is_refused(name, refusal):
    assert f"--name: got {name!r}, expected the name of a new folder" in refusal(main, [*FIT, f"--name={name}"])
    assert not Path("lightning_logs").exists()


def test_other_commands_write_into_the_folder_of_their_run(run):
    before = contents(run)
    checkpoint = [f"--ckpt_path={run}/checkpoints/last.ckpt", *TINY[1:]]
    for command, folder in (
        ("validate", "validate"),
        ("test", "test"),
        ("validate", "validate-1"),
        ("predict", "predict"),
    ):
        cli = main([command, "--config=hscl.yaml", *checkpoint])
        assert Path(cli.trainer.log_dir).resolve() == (run / folder).resolve()
        assert (run / folder / "config.yaml").is_file()
    assert (run / "predict/predictions.npz").is_file()
    assert len(list((run / "validate").glob("events.*"))) == 1
    assert [path.name for path in Path("lightning_logs").iterdir()] == ["beta5"]
    assert {path: content for path, content in contents(run).items() if path in before} == before


@pytest.mark.exhaustive
def test_loggers_of_the_run_s_place_go_with_it_and_others_stay(run):
    before = contents(run)
    validate = ["validate", f"--config={run}/config.yaml", "--trainer.logger=CSVLogger", *TINY[1:]]
    main([*validate, "--trainer.logger.save_dir=."])
    main([*validate, "--trainer.logger.save_dir=elsewhere"])
    assert (run / "validate/metrics.csv").is_file()
    assert len(list(Path("elsewhere").rglob("metrics.csv"))) == 1
    assert {path: content for path, content in contents(run).items() if path in before} == before


@pytest.mark.some(1)
@pytest.mark.parametrize("option", ["--predict.layers=nosuch", "--predict.path=features.txt"])
def test_a_refused_prediction_leaves_nothing(run, option, refusal):
    before = sorted(Path.cwd().rglob("*"))
    refusal(main, ["predict", f"--config={run}/config.yaml", option, *TINY[1:]])
    assert sorted(Path.cwd().rglob("*")) == before


def test_a_refused_fit_leaves_no_folder_to_count(refusal):
    refusal(main, [*FIT, "--geometry.layers=nosuch"])
    assert not list(Path("lightning_logs").iterdir())


def test_an_evaluation_is_logged_at_the_step_of_its_checkpoint_and_names_its_folder(run, monkeypatch, refusal, capsys):
    assert "--name: got 'other', expected none or 'beta5'" in refusal(
        main, ["validate", f"--config={run}/config.yaml", "--name=other"]
    )
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    main(["validate", f"--config=../{run}/config.yaml", *TINY[1:]])
    assert "lightning_logs/beta5/validate" in capsys.readouterr().out
    assert not list(Path.cwd().iterdir())
    log = EventAccumulator(str(Path("..") / run / "validate")).Reload()
    assert [scalar.step for scalar in log.Scalars("loss/val")] == [1]
    main(["predict", f"--config=../{run}/config.yaml", *TINY[1:]])
    assert not list((Path("..") / run / "predict").glob("events.*"))
