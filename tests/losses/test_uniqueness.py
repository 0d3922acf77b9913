"""Other class means than a simplex meet the bound of Triplet exactly where the note says so."""

import math

import pytest
import torch

from nc_lightning.geometry import measure, simplex_etf
from nc_lightning.losses import (
    CustomLink,
    Exponential,
    HSCLLoss,
    InfoNCE,
    Logistic,
    Polynomial,
    Triplet,
    ValueThreshold,
    uniqueness_note,
)


def unit_means_that_sum_to_zero(turn):
    """Four unit vectors in three dimensions: the simplex for turn 0, two pairs of opposite vectors for the largest."""
    angle = math.asin(3**-0.5) + turn
    c, s = math.cos(angle), math.sin(angle)
    return torch.tensor([[c, s, 0], [-c, s, 0], [0, -s, c], [0, -s, -c]], dtype=torch.float64)


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize(
    "hardening", [Exponential(0.0), Exponential(5.0), Polynomial(2.0), ValueThreshold(0.9)], ids=str
)
@pytest.mark.parametrize("margin", [0.5, 1.0, 1.2, 4 / 3, 1.4, 3.0])
def test_other_class_means_meet_the_bound_where_there_is_a_note(margin, hardening, temperature):
    link, labels = Triplet(margin / temperature), torch.arange(4).repeat(3)
    loss = HSCLLoss(temperature=temperature, link=link, hardening=hardening)
    others = [torch.eye(4, dtype=torch.float64), unit_means_that_sum_to_zero(0.05), unit_means_that_sum_to_zero(0.01)]
    gaps = [float(loss(z[labels], labels)) - loss.lower_bound(4) for z in (*others, simplex_etf(4, 3).double())]
    assert gaps[-1] == pytest.approx(0, abs=1e-7)
    assert min(gaps) > -1e-7
    note = uniqueness_note(link, hardening, 4, temperature)
    assert (note is not None) == (min(gaps[:-1]) < 1e-7), (note, gaps)
    assert note is None or note.startswith(f"link: {link!r} also reaches its lower bound without neural collapse")
    assert measure(others[1][labels], labels)["nc2_etf"] > 0.01


@pytest.mark.parametrize("num_classes", [2, 3])
def test_two_and_three_unit_means_that_sum_to_zero_are_a_simplex(num_classes):
    assert uniqueness_note(Triplet(3.0), Exponential(0.0), num_classes, 1.0) is None
    assert "a margin >= " in uniqueness_note(Triplet(1.0), Exponential(0.0), num_classes, 1.0)


@pytest.mark.parametrize(
    "link",
    [InfoNCE(), InfoNCE("sum", 0), Logistic(), CustomLink(torch.log1p, torch.exp)],
    ids=lambda link: type(link).__name__,
)
def test_other_links_need_no_note(link):
    assert uniqueness_note(link, Exponential(0.0), 10, 1.0) is None


def test_the_margin_that_is_asked_for_suffices():
    for temperature in (1.0, 0.3, 0.07):
        line = uniqueness_note(Triplet(0.5), Exponential(1.0), 7, temperature)
        assert uniqueness_note(Triplet(float(line.split()[-1])), Exponential(1.0), 7, temperature) is None
