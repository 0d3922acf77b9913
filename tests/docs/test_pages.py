"""What README and docs show must run: each command, shortened, and each Python block; and what they name is there."""

import re
import sys

import numpy as np
import pytest
from PIL import Image

from nc_lightning.callbacks import HardNegativeSampler, OnlineLinearProbe
from nc_lightning.cli import main, shipped_configs
from nc_lightning.cli import measure as nc_measure
from nc_lightning.cli import report as nc_report
from nc_lightning.cli.commands import RUN_COMMANDS
from nc_lightning.sweeps import command as nc_sweep
from tests.docs.pages import PAGES, ROOT, blocks, commands, commands_of, configs, is_module, modules, plans, text_of

QUICK = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.enable_progress_bar=false"]
NOT_RUN = {
    "bolts.yaml": "needs an extra: test_the_command_of_bolts",
}
"""Words of commands that are not run here, and why."""
NOT_OURS = {"", "make", "tensorboard"}
"""Programs of bash blocks that no test runs; what else cannot be run stands in a text or console block."""


@pytest.fixture(autouse=True)
def _as_a_command(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nc-train"])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One short run for all pages: the folder that they call RUN, and the predictions of its checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["nc-train"])
        patch.chdir(tmp_path_factory.mktemp("run"))
        folder = main(["fit", "--config", "hscl.yaml", *QUICK]).trainer.log_dir
        main(["predict", f"--config={folder}/config.yaml", f"--ckpt_path={folder}/checkpoints/last.ckpt", *QUICK])
        folder = ROOT.cwd() / folder
    (predictions,) = folder.parent.parent.rglob("predictions.npz")
    return folder, predictions.read_bytes()


def first_in(page):
    """The commands of a page that no earlier page has; those of files that the page itself shows count as its own."""
    earlier = [command for other in PAGES[: PAGES.index(page)] for command in commands(other)]
    return [command for command in commands(page) if command not in earlier or "mine.yaml" in command]


def with_commands():
    ours = [page for page in PAGES if any(command[0].startswith("nc-") for command in first_in(page))]
    return [pytest.param(page, marks=pytest.mark.slow) for page in ours]


@pytest.fixture
def files(in_tmp, run, monkeypatch):
    """A folder with the files that commands name, except those that a page shows."""
    images, labels = np.random.default_rng(0).integers(0, 256, (200, 8, 8), dtype=np.uint8), np.arange(200) % 10
    np.savez("mine.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    for split in ("train", "test"):
        for index in range(100):
            folder = in_tmp / "mine" / split / str(index % 10)
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[index]).save(folder / f"{index}.png")
    (in_tmp / "predictions.npz").write_bytes(run[1])
    monkeypatch.syspath_prepend(in_tmp)
    yield in_tmp
    sys.modules.pop("mine", None)


@pytest.mark.parametrize("page", with_commands())
def test_commands(page, files, run):
    for name, content in modules(page).items():
        (files / name).write_text(content)
    for content in [*configs(page), *plans(page)][:1]:
        (files / "mine.yaml").write_text(content)
    for program, *arguments in first_in(page):
        if not any(word in argument for word in NOT_RUN for argument in arguments):
            call(program, [argument.replace("RUN", str(run[0])) for argument in arguments])
    for command in commands(page):
        for option in {"--output", "--plot"} & set(command):
            assert (files / command[command.index(option) + 1]).exists()


def call(program, arguments):
    """Run a command as it stands, but shortened."""
    if program == "nc-train":
        if arguments[0] in RUN_COMMANDS:
            main(arguments)
            return
        here = ["--data.batch_size=20"] if any("mine" in argument for argument in arguments) else []  # of few images
        if "ddp.yaml" in arguments:  # for two processes, see tests/cli/test_on_processes.py
            here = ["--trainer.devices=1", "--data.batch_size=250"]
        main([*arguments, *QUICK, *here])
    elif program == "nc-measure":
        nc_measure.main(arguments)
    elif program == "nc-report":
        nc_report.main(arguments)
    elif program == "nc-sweep":
        nc_sweep.main([argument for argument in arguments if argument != "--list"] + ["--list"])
    else:
        assert program in NOT_OURS or program.startswith("benchmarks."), program


def test_as_many_commands_are_found_as_there_are():
    found = {
        name: [c for page in PAGES for c in commands_of(page, name)] for name in ("nc-train", "nc-measure", "nc-report")
    }
    assert len(found["nc-train"]) >= 18
    assert len(found["nc-measure"]) >= 2
    assert len(found["nc-report"]) >= 2


@pytest.mark.bolts
@pytest.mark.slow
def test_the_command_of_bolts(in_tmp):
    (command,) = (command for page in PAGES for command in commands_of(page, "nc-train") if "bolts.yaml" in command)
    main(command + QUICK)


PYTHON = [
    pytest.param(page, block, id=f"{page}-{number}")
    for page in PAGES
    for number, block in enumerate(b for b in blocks(page, "python") if not is_module(b))
]


@pytest.mark.parametrize(("page", "block"), PYTHON)
def test_python_blocks(page, block, in_tmp, capsys, request):
    if '"RUN"' in block:
        block = block.replace("RUN", str(request.getfixturevalue("run")[0]))
    exec(compile(block, page, "exec"), {})
    assert capsys.readouterr().out


def test_as_many_python_blocks_are_found_as_there_are():
    assert len(PYTHON) >= 6


@pytest.mark.slow
def test_settings_of_one_s_own(in_tmp):
    texts = [config for page in PAGES for config in configs(page)]
    assert len(texts) >= 3
    samplers, probes = [], 0
    for config in texts:
        (in_tmp / "mine.yaml").write_text(config)
        callbacks = main(
            ["fit", "--config=hscl.yaml", "--config=mine.yaml", "--trainer.fast_dev_run=2"]
        ).trainer.callbacks
        samplers += [callback for callback in callbacks if isinstance(callback, HardNegativeSampler)]
        probes += sum(isinstance(callback, OnlineLinearProbe) for callback in callbacks)
    kinds = {(sampler.schedule, sampler.queue is not None) for sampler in samplers}
    assert kinds >= {("linear", False), ("constant", True), ("constant", False)}
    assert len(samplers) == probes == len(texts)  # one each


@pytest.mark.parametrize(
    ("plan", "cells"), [("paper/sweeps/digit_pairs.yaml", 186), ("paper/sweeps/balance.yaml", 36), ("mine.yaml", 24)]
)
def test_sweeps(plan, cells, in_tmp, capsys):
    if plan == "mine.yaml":
        (in_tmp / plan).write_text(next(text for page in PAGES for text in plans(page)))
    nc_sweep.main([plan, "--list"])
    assert len(capsys.readouterr().out.splitlines()) == cells


@pytest.mark.parametrize("page", PAGES)
def test_what_it_names_is_there(page, repository):
    text, makefile = text_of(page), (repository / "Makefile").read_text()
    for target in set(re.findall(r"(?:`|^)make ([a-z-]+)", text, flags=re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    names = {name.rpartition("/")[2] for name in shipped_configs()}
    assert set(re.findall(r"\b([a-z_]+\.yaml)", text)) <= names | {"config.yaml", "mine.yaml"}
    for name in set(re.findall(r"python -m benchmarks\.(\w+)", text)):
        assert (repository / "benchmarks" / f"{name}.py").is_file(), name
    for path in set(re.findall(r"\b(?:(?:examples|benchmarks|docs)/\w+|tests/[\w/]+)\.(?:py|sh|md)", text)):
        assert (repository / path).is_file(), path


def test_the_links_of_the_readme_lead_somewhere(repository):
    """Those of the site are checked when it is built."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text_of("README.md")):
        assert (repository / target).exists(), target


def test_the_readme_is_short_and_shows_early_what_it_is_about():
    lines = text_of("README.md").splitlines()
    assert len(lines) <= 150
    assert next(i for i, line in enumerate(lines) if line.startswith("![")) < 20
    assert lines.index("```python") < 80
