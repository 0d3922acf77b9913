import math
import re

import pytest
import torch

from nc_lightning.checks import (
    check_count,
    check_features,
    check_finite,
    check_fraction,
    check_labels,
    check_number,
    separated_names,
)


@pytest.mark.parametrize(
    ("z", "error", "message"),
    [
        (torch.zeros(3), ValueError, r"z: got shape \(3,\), expected \(N, d\)"),
        (torch.zeros(3, 2, 1), ValueError, r"z: got shape \(3, 2, 1\)"),
        (torch.zeros(3, 0), ValueError, r"z: got shape \(3, 0\)"),
        (torch.zeros(3, 2, dtype=torch.long), TypeError, r"z: got torch.int64, expected a floating-point tensor"),
        ([[1.0]], TypeError, r"z: got list"),
    ],
)
def test_features(z, error, message):
    with pytest.raises(error, match=message):
        check_features(z)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (torch.zeros(2), TypeError, r"labels: got torch.float32, expected an integer tensor"),
        (torch.zeros(2, dtype=torch.bool), TypeError, r"labels: got torch.bool"),
        (torch.zeros(3, dtype=torch.long), ValueError, r"labels: got shape \(3,\), expected \(2,\)"),
        (torch.tensor([0, 5]), ValueError, r"labels: got label 5, expected integers in \[0, 5\)"),
        (torch.tensor([-1, 0]), ValueError, r"labels: got label -1"),
    ],
)
def test_labels(labels, error, message):
    with pytest.raises(error, match=message):
        check_labels(labels, 2, num_classes=5)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_finite(bad):
    z = torch.zeros(4, 3)
    z[2, 1] = bad
    with pytest.raises(ValueError, match=f"z: got {bad} in row 2"):
        check_finite(z)


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, "1", None, True])
def test_number_above(bad):
    with pytest.raises(ValueError, match=r"temperature: got .*, expected a finite number > 0"):
        check_number("temperature", bad, above=0)


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, "1", None])
def test_number_at_least(bad):
    with pytest.raises(ValueError, match=r"beta: got .*, expected a finite number >= 0"):
        check_number("beta", bad, at_least=0)


@pytest.mark.parametrize("interval", ["[0, 1]", "[0, 1)", "(0, 1]", "(0, 1)"])
def test_fraction(interval):
    inside = {0.5} | ({0} if interval[0] == "[" else set()) | ({1.0} if interval[-1] == "]" else set())
    for value in inside:
        check_fraction("hold", value, interval)
    for bad in {0, 1.0, -0.1, 1.5} - inside:
        bound = "a share of training in " + interval if bad >= 1 else "a finite number >"
        with pytest.raises(ValueError, match=re.escape(f"hold: got {bad}, expected {bound}")):
            check_fraction("hold", bad, interval, "a share of training")


@pytest.mark.parametrize("bad", [math.nan, math.inf, "1", None, True])
def test_fraction_is_a_number(bad):
    with pytest.raises(ValueError, match="hold: got .*, expected a finite number"):
        check_fraction("hold", bad, "[0, 1]")


@pytest.mark.parametrize("bad", [0, -1, 1.5, "3", None, True])
def test_count(bad):
    with pytest.raises(ValueError, match="feature_dim: got .*, expected an integer >= 1"):
        check_count("feature_dim", bad)


@pytest.mark.parametrize("given", ["", ",", "a,", "a,,b", "a, a", [], [""], ["a", "a"], ["a", " a"]])
def test_names_are_different_and_not_empty(given):
    with pytest.raises(ValueError, match=re.escape(f"layers: got {given!r}, expected different names, separated by")):
        separated_names("layers", given)
    assert separated_names("layers", ["a", "b"]) == separated_names("layers", " a,b ") == ("a", "b")
