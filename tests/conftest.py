import os
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from nc_lightning.cli.command_error import CommandError
from tests.tiers import mark_cases

collect_ignore = ["pretend_device.py"]  # torch registers a device name only once

# The machine may be busy, and failures must be reproducible.
settings.register_profile("nc", deadline=None, derandomize=True)
settings.load_profile("nc")


# Tensors here are tiny: a second thread only waits, and very long if another process needs the core.
THREADS = max(1, torch.get_num_threads() // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1)))
torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)  # before -m selects tests
def pytest_collection_modifyitems(items):
    """Run whole trainings first: at the end, a single one would keep the other workers waiting."""
    mark_cases(items)
    items.sort(key=lambda item: item.path.name != "test_training.py")


def pytest_runtest_setup(item):
    """Skip tests of lightning-bolts where it is not installed; `make test-bolts` requires it."""
    if item.get_closest_marker("bolts") is not None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import pl_bolts  # noqa: F401
        except ImportError as error:
            if os.environ.get("NC_REQUIRE_BOLTS"):
                pytest.fail(f"lightning-bolts cannot be imported, and NC_REQUIRE_BOLTS is set: {error}")
            pytest.skip(f"`make test-bolts` runs it, in an environment with lightning-bolts: {error}")


@pytest.fixture
def all_threads():
    """Use all cores of this worker's share, for tests that really train."""
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    """Remove the process group and reset the variables and the number of threads that Lightning sets for it."""
    for name in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # else Lightning changes the number of threads for all later tests
    yield
    torch.set_num_threads(1)
    rank_zero_only.rank = 0  # set by a Trainer; it decides which process warns
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    """Run in an empty folder, as a user does who has only the package."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def repository():
    """The checkout, for files that are not part of the installed package."""
    return Path(__file__).parent.parent


@pytest.fixture
def refusal():
    """Call a command that refuses its arguments; assert exit code 2 and return the line that its script prints."""

    def call(command, arguments):
        with pytest.raises(CommandError) as raised:
            command(arguments)
        assert raised.value.code == 2
        (line,) = raised.value.line.splitlines()
        return line

    return call


@pytest.fixture
def gloo():
    """Need a process group: in CI its absence is a failure, elsewhere a skip."""
    if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
        if os.environ.get("NC_REQUIRE"):
            pytest.fail("gloo is not available, and NC_REQUIRE is set")
        pytest.skip("gloo is not available")


@pytest.fixture(autouse=True, scope="session")
def _quiet_lightning():
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
