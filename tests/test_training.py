"""The default training reaches the results stated in the README."""

import sys
from pathlib import Path

import pytest

from nc_lightning.callbacks import GeometryMonitor
from nc_lightning.cli import main


def geometry(*arguments):
    cli = main(["fit", *arguments, "--trainer.enable_progress_bar=false"])
    monitor = next(c for c in cli.trainer.callbacks if isinstance(c, GeometryMonitor))
    gap = cli.trainer.callback_metrics["loss/optimality_gap"].item()
    return monitor.results["train"], monitor.results["val"], gap


@pytest.fixture(autouse=True)
def _empty_folder(in_tmp, all_threads, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nc-train"])


@pytest.mark.slow
def test_hscl_on_digits_reaches_neural_collapse():
    train, val, gap = geometry("--config", "hscl.yaml")
    assert train["nc1"] <= 1e-2
    assert train["equal_inner_product"] <= 0.02
    assert train["unit_norm"] <= 0.01
    assert train["zero_sum"] <= 0.02
    assert train["effective_rank"] >= 8.9
    assert gap <= 0.005
    assert val["ncc_accuracy"] >= 0.95
    assert train["nc3"] <= 0.1
    assert train["nc4"] == 0
    (events,) = Path().rglob("events.out*")
    assert events.stat().st_size < 300_000
    assert Path("lightning_logs/hscl-digits-beta10/report.html").is_file()


@pytest.mark.exhaustive
def test_hscl_on_digit_pairs_reaches_neural_collapse_in_a_short_run():
    train, _, _ = geometry("--config", "hscl.yaml", "--config", "paper/short.yaml")
    assert train["effective_rank"] >= 98.5


@pytest.mark.exhaustive
@pytest.mark.slow
def test_hscl_on_digit_pairs_reaches_neural_collapse():
    train, _, gap = geometry("--config", "hscl.yaml", "--config", "digit_pairs.yaml")
    assert train["effective_rank"] >= 98.5
    assert train["equal_inner_product"] <= 0.002
    assert train["zero_sum"] <= 0.005
    assert train["nc1"] <= 1e-2
    assert gap <= 3e-4


@pytest.mark.exhaustive
@pytest.mark.slow
def test_scl_on_digit_pairs_stays_in_dimensional_collapse():
    train, _, _ = geometry("--config", "scl.yaml", "--config", "digit_pairs.yaml")
    assert train["effective_rank"] < 75


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("config", ["hscl.yaml", "hucl.yaml"])
def test_adaptive_hardness_on_digit_pairs_needs_no_tuning(config):
    train, _, _ = geometry("--config", config, "--config", "digit_pairs.yaml", "--config", "adaptive.yaml")
    assert train["effective_rank"] >= 98.5
