"""An installed package trains from an empty folder: the wheel has everything, and nothing comes from the clone."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.exhaustive, pytest.mark.slow]
QUICK = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=2", "--trainer.enable_progress_bar=false"]


def run(*command, **options):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["OMP_NUM_THREADS"] = "1"
    done = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """The sdist, and the wheel that is built from it, without downloading a build environment."""
    folder = tmp_path_factory.mktemp("dist")
    clone = Path(__file__).parent.parent
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, clone)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def environment(dist, tmp_path_factory):
    """A virtual environment with the wheel; it borrows the dependencies of this one, whose .pth files it ignores."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", dist[1])
    (packages,) = folder.glob("lib/python3*/site-packages")
    borrowed = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (packages / "borrowed.pth").write_text("\n".join(borrowed))
    return folder


def test_the_wheel_has_all_that_the_package_reads(dist, repository):
    with zipfile.ZipFile(dist[1]) as wheel:
        names = set(wheel.namelist())
    package = repository / "nc_lightning"
    expected = {f"nc_lightning/{path.relative_to(package)}" for path in package.rglob("*") if path.is_file()}
    expected = {name for name in expected if "__pycache__" not in name}
    expected |= {f"nc_lightning/{path.relative_to(repository)}" for path in (repository / "configs").rglob("*.yaml")}
    assert {Path(name).suffix for name in expected} == {".py", ".typed", ".j2", ".yaml", ".js", ".css", ".LICENSE"}
    metadata = {name for name in names if ".dist-info/" in name}
    assert names - metadata == expected
    assert any(name.endswith("licenses/LICENSE") for name in metadata)


def test_the_sdist_has_what_a_clone_has(dist, repository):
    with tarfile.open(dist[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    tracked = subprocess.run(["git", "ls-files"], cwd=repository, capture_output=True, text=True, check=True).stdout
    assert {"CITATION.cff", ".github/workflows/ci.yml"} <= set(tracked.split()) <= names


def test_an_installed_package_trains_in_an_empty_folder(environment, in_tmp):
    where = run(environment / "bin" / "python", "-c", "import nc_lightning; print(nc_lightning.__file__)")
    assert Path(where.strip()).is_relative_to(environment), "the clone is hidden"
    table = run(environment / "bin" / "nc-train", "fit", "--config", "hscl.yaml", *QUICK)
    assert "effective_rank" in table
    assert "HSCL" in (in_tmp / "lightning_logs" / "hscl-digits-beta10" / "report.html").read_text()


@pytest.mark.parametrize("command", ["nc-train", "nc-measure", "nc-report", "nc-sweep"])
def test_commands_are_installed(environment, in_tmp, command):
    assert f"usage: {command}" in run(environment / "bin" / command, "--help")
