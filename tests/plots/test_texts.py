import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nc_lightning.plots.texts import LONGEST_NAME, shortened


@given(st.lists(st.text("ab …", max_size=40)), st.integers(4, 20))
def test_names_that_differ_stay_different(names, longest):
    lines = [" ".join(name.split()) for name in names]
    shown = shortened(names, longest)
    assert len(set(zip(lines, shown, strict=True))) == len(set(lines)) == len(set(shown))
    assert all(text == line for text, line in zip(shown, lines, strict=True) if len(line) <= longest)


def test_long_names_keep_what_tells_them_apart():
    kinds = list(itertools.product(("male", "female"), ("black", "white"), (1, 2)))
    names = [
        f"n0001 canis lupus familiaris, a {sex} dog of {color} color, terrier breed {k} of two"
        for sex, color, k in kinds
    ]
    shown = shortened(names)
    assert len(set(shown)) == len(names)
    for text, name, (sex, color, _) in zip(shown, names, kinds, strict=True):
        assert f" {sex}" in f" {text}".replace("…", " ")
        assert f" {color[0]}" in text
        assert len(text) <= LONGEST_NAME < len(name)


@pytest.mark.parametrize("length", [44, LONGEST_NAME, LONGEST_NAME + 1, 200])
def test_only_names_without_room_are_cut(length):
    (text,) = shortened(["x" * length])
    assert len(text) <= LONGEST_NAME
    assert ("…" in text) == (length > LONGEST_NAME)
