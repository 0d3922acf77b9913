"""The cases of a large test that `make test` runs; the mark `exhaustive` leaves the others to `make test-all`."""

import random
from itertools import groupby

import pytest


def mark_cases(items):
    """Mark the cases that the marker `some` leaves out as exhaustive."""
    for name, cases in groupby(items, key=lambda item: item.nodeid.partition("[")[0]):
        cases = list(cases)
        some = cases[0].get_closest_marker("some")
        if some is not None:
            for case in left_out(name, cases, *some.args):
                case.add_marker(pytest.mark.exhaustive)


def left_out(name, cases, count):
    """Return all cases of a test except ``count`` ones, drawn with the name of the test as seed."""
    kept = random.Random(name).sample(range(len(cases)), min(count, len(cases)))
    return [case for index, case in enumerate(cases) if index not in kept]
