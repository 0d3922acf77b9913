import os
import subprocess
import sys

from nc_lightning.distributed.launcher import announced, launcher

SAY = [sys.executable, "-c", "from nc_lightning.distributed.launcher import launcher; print(launcher())"]


def said(**environment):
    return subprocess.run(SAY, capture_output=True, text=True, env={**os.environ, **environment}).stdout.strip()


def test_only_processes_above_rank_0_know_a_launcher():
    with announced():
        assert said(LOCAL_RANK="1") == str(os.getpid())
        assert said(LOCAL_RANK="0") == said() == "None"
    assert said(LOCAL_RANK="1") == "None"


def test_a_process_above_rank_0_is_not_a_launcher(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("NC_LAUNCHER", "7")
    with announced():
        assert launcher() == 7
    monkeypatch.delenv("NC_LAUNCHER")
    with announced():
        assert launcher() is None
