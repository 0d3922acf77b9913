import importlib
import os
import subprocess
import sys
import threading

import pytest
from torch.multiprocessing import ProcessRaisedException

from nc_lightning.cli.command_error import CommandError, exit_on_error
from nc_lightning.cli.errors import errors_on_one_line, is_user_error


def run_in_a_thread(error):
    def fail():
        raise error

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()


def test_a_full_disk_in_a_writer_thread_prints_nothing(monkeypatch):
    shown = []
    monkeypatch.setattr(threading, "excepthook", lambda args: shown.append(args.exc_type))
    before = threading.excepthook
    monkeypatch.delenv("NC_DEBUG", raising=False)
    with errors_on_one_line("nc-train"):
        run_in_a_thread(OSError(28, "No space left on device"))
        run_in_a_thread(ArithmeticError("a defect"))
        assert shown == [ArithmeticError]
        monkeypatch.setenv("NC_DEBUG", "1")
        run_in_a_thread(OSError(28, "No space left on device"))
        assert shown == [ArithmeticError, OSError]
    assert threading.excepthook is before


def test_the_thread_hook_is_restored_after_an_error(monkeypatch):
    monkeypatch.delenv("NC_DEBUG", raising=False)
    before = threading.excepthook
    with pytest.raises(SystemExit), exit_on_error(), errors_on_one_line("nc-train"):
        raise ValueError
    assert threading.excepthook is before


@pytest.mark.some(1)
@pytest.mark.parametrize(("lines", "unbuffered"), [(1, ""), (10_000, "1")])
def test_a_closed_output_pipe_is_not_an_error(lines, unbuffered):
    read, write = os.pipe()
    os.close(read)
    imported = "from nc_lightning.cli.errors import errors_on_one_line"
    program = f"{imported}\nwith errors_on_one_line('x'):\n print('y\\n' * {lines})"
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    ended = subprocess.run(
        [sys.executable, "-c", program], stdout=write, stderr=subprocess.PIPE, text=True, env=environment
    )
    os.close(write)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_any_other_broken_pipe_is_an_error(capsys):
    with pytest.raises(SystemExit) as ended, exit_on_error(), errors_on_one_line("nc-train"):
        raise BrokenPipeError(32, "Broken pipe")
    assert ended.value.code == 2
    assert "Broken pipe" in capsys.readouterr().err


def test_refusals_by_lightning_are_user_errors_and_other_runtime_errors_are_bugs():
    def raised_in(module):
        scope = {"__name__": module}
        try:
            exec("raise RuntimeError('this setting is not supported')", scope)
        except RuntimeError as error:
            return error

    assert is_user_error(raised_in("lightning.pytorch.callbacks.early_stopping"))
    assert not is_user_error(raised_in("torch.nn.modules.linear"))
    assert not is_user_error(raised_in("nc_lightning.objectives.base"))


@pytest.mark.parametrize(("kind", "ours"), [("ValueError", False), ("RuntimeError", True), ("KeyError", True)])
def test_an_error_in_a_spawned_process_is_shown_as_its_own(capsys, monkeypatch, kind, ours):
    monkeypatch.delenv("NC_DEBUG", raising=False)
    text = f"\n\n-- Process 1 terminated with the following error:\nTraceback:\n  x\n{kind}: beta: got 1"
    with pytest.raises(ProcessRaisedException if ours else SystemExit), exit_on_error(), errors_on_one_line("nc-train"):
        raise ProcessRaisedException(text, 1, 2)
    if not ours:
        assert capsys.readouterr().err == "nc-train: error: beta: got 1\n"


@pytest.mark.parametrize(
    ("module", "arguments", "line"),
    [
        ("nc_lightning.cli.train", ["fit", "--config=no.yaml"], "nc-train: error: --config: got 'no.yaml'"),
        ("nc_lightning.cli.evaluate", ["no-run"], "nc-train evaluate: error: run: got 'no-run'"),
        ("nc_lightning.cli.export", ["no-run"], "nc-train export: error: the following arguments are required: --fo"),
        ("nc_lightning.cli.measure", ["no.npz"], "nc-measure: error: FILE: got 'no.npz'"),
        ("nc_lightning.cli.measure", [], "nc-measure: error: the following arguments are required: FILE"),
        ("nc_lightning.cli.report", ["no"], "nc-report: error: "),
        ("nc_lightning.sweeps.command", ["no.yaml"], "nc-sweep: error: SWEEP: got 'no.yaml'"),
    ],
)
def test_main_raises_an_error_of_one_line_that_ipython_shows_as_such(in_tmp, module, arguments, line):
    with pytest.raises(CommandError) as raised:
        importlib.import_module(module).main(arguments)
    assert raised.value.line.startswith(line)
    assert "\n" not in raised.value.line
    assert raised.value._render_traceback_() == [raised.value.line]
