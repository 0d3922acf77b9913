import subprocess
import sys

import pytest

from nc_lightning.cli import commands
from nc_lightning.cli.command_error import exit_on_error
from nc_lightning.cli.export import main
from nc_lightning.encoders import MLP
from tests.export.runs import make_run


def test_nc_train_export(tmp_path, monkeypatch, capsys):
    run = make_run(tmp_path / "run", MLP, {"input_shape": [3, 32, 32], "hidden_features": [4]})
    monkeypatch.setattr(sys, "argv", ["nc-train", "export", str(run), "--format", "safetensors"])
    commands.nc_train()
    out = capsys.readouterr().out
    assert (
        out == f"encoder: {run}/encoder-safetensors (README.md, config.json, model.safetensors, preprocessing.json)\n"
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["no", "--format", "pt2"], "nc-train export: error: run: got 'no', expected the folder of a run"),
        (["no", "--format", "h5"], "invalid choice: 'h5'"),
        (["no"], "the following arguments are required: --format"),
    ],
)
def test_bad_input_takes_one_line(args, message, capsys):
    with pytest.raises(SystemExit) as raised, exit_on_error():
        main(args)
    assert raised.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_its_help_loads_nothing_heavy():
    code = "import sys; sys.argv[1:] = ['export', '--help']; from nc_lightning.cli import commands\n"
    code += "try: commands.nc_train()\nexcept SystemExit: pass\n"
    code += "print([m for m in ('torch', 'lightning') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("usage: nc-train export")
    assert run.stdout.splitlines()[-1] == "[]"
