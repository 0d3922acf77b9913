"""Numbers of README and docs are those of the files that plans and benchmarks wrote."""

import json
import re

import pytest

from nc_lightning.losses import HUCLLoss, UCLLoss
from tests.docs.pages import ROOT

GRID = ROOT / "examples" / "paper" / "results" / "digit_pairs.md"


def rows(path, first):
    """Return the rows of the table whose first column has this heading, as dicts."""
    lines = path.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {first} |"))
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:]]
    body = next((i for i, row in enumerate(table) if len(row) != len(table[0])), len(table))
    return [dict(zip(table[0], row, strict=True)) for row in table[2:body]]


def cell(objective, normalization="unit_ball", batches="balanced", beta="", hardness=""):
    """Return the row of the grid that was run."""
    wanted = {"objective": objective, "normalization": normalization, "batches": batches, "beta": beta}
    (row,) = (row for row in rows(GRID, "objective") if row.items() >= (wanted | {"hardness": hardness}).items())
    return row


IN_README = {
    "HSCL (beta 10)": {"objective": "hscl", "beta": "10"},
    "SCL": {"objective": "scl"},
    "HUCL (adaptive beta)": {"objective": "hucl", "hardness": "adaptive"},
    "UCL": {"objective": "ucl"},
}


def test_the_table_of_the_readme_is_that_of_the_sweep():
    written = rows(ROOT / "README.md", "objective")
    assert [row["objective"] for row in written] == list(IN_README)
    for row in written:
        measured = cell(**IN_README[row["objective"]])
        assert row["effective rank of 99"] == f"{float(measured['effective rank'].split()[0]):.2f}"
        for key in ("equal inner product", "zero sum", "nc1"):
            assert row[key] == f"{float(measured[key].split()[0]):.4f}"


COLUMNS = [f"{a}, {b}" for a in ("ball", "sphere", "none") for b in ("random", "balanced")]


def test_the_grid_of_the_experiments_is_that_of_the_sweep():
    written = [row for row in rows(ROOT / "docs" / "experiments.md", "objective") if "ball, random" in row]
    assert len(written) == 11
    for row in written:
        for column in COLUMNS:
            space, batches = column.split(", ")
            if not row[column]:
                continue
            beta, hardness = (
                ("", "adaptive")
                if row["beta"] == "adaptive"
                else (row["beta"].replace("0", "", row["beta"] == "0"), "")
            )
            normalization = space if space == "none" else f"unit_{space}"
            measured = cell(row["objective"].lower(), normalization, batches, beta, hardness)
            numbers, expected = (re.findall(r"[\d.]+", text) for text in (row[column], measured["effective rank"]))
            assert len(numbers) == 3
            for number, value in zip(numbers, expected, strict=True):
                decimals = len(number.partition(".")[2])
                assert float(number) == pytest.approx(float(value), abs=0.51 * 10**-decimals), (row, column)


def result(name):
    return {row["N"]: row for row in json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text())["rows"]}


SPEED = r"gradient are ([\d.]+) times faster than the fastest alternative tested, and take (\d+) instead of (\d+) MiB"


def test_the_readme_has_the_measured_speed_and_memory():
    ratio, memory, other = re.search(SPEED, " ".join((ROOT / "README.md").read_text().split())).groups()
    speed, held = result("loss")[4096], result("loss_memory")[4096]
    assert ratio == speed["fastest / ours"].split()[0]
    assert int(memory) == held["ours"]
    assert int(other) == min(held[name] for name in ("naive", "pml", "lightly"))


MEANS = ("effective rank", "zero sum", "unit norm", "equal inner product", "accuracy (val)")


def measured_rows():
    """Return objective, means and row of each cell that was run."""
    for path in sorted(GRID.parent.glob("*.md")):
        for row in rows(path, "objective"):
            means = [float(row[key].split()[0]) for key in MEANS]
            yield row["objective"].upper(), means, row | {"plan": path.stem}


def written_rows():
    """Return the rows of the tables of effects, as dicts."""
    lines = (ROOT / "docs" / "experiments.md").read_text().splitlines()
    for number, line in enumerate(lines):
        if "loss over bound" in line and line.startswith("|"):
            names = [cell.strip() for cell in line.strip("|").split("|")]
            for row in lines[number + 2 : lines.index("", number)]:
                yield dict(zip(names, [cell.strip() for cell in row.strip("|").split("|")], strict=True))


def number(text):
    """Return a number, and half a unit of its last decimal."""
    return float(text), 0.51 * 10.0 ** -len(text.partition(".")[2])


def gap_of(objective, beta, size, gap, plan):
    """Return the gap to the tight bound; the files of older plans have that to UCL's bound."""
    if objective != "HUCL" or plan in ("detached", "detached_cifar100", "temperature"):
        return gap
    return gap + UCLLoss().lower_bound(100, size) - HUCLLoss(beta=beta).lower_bound(100, size)


def test_the_tables_of_effects_are_those_of_the_sweeps():
    measured, written = list(measured_rows()), list(written_rows())
    assert len(written) == 177
    for row in written:
        accuracy = row.get("accuracy (held out)") or row["accuracy (test)"]
        columns = [row["effective rank"].split()[0], row["zero sum"], row["unit norm"], row["equal inner product"]]
        numbers = [number(text) for text in (*columns, accuracy)]
        found = [
            (objective, cell)
            for objective, values, cell in measured
            if all(abs(value - near) <= slack for value, (near, slack) in zip(values, numbers, strict=True))
        ]
        assert found, row
        if row["loss over bound"]:
            size, (near, slack) = 600 if "positives" in row else 500, number(row["loss over bound"])
            gaps = [
                gap_of(name, float(cell.get("beta") or 5), size, float(cell["optimality gap"].split()[0]), cell["plan"])
                for name, cell in found
            ]
            assert any(abs(gap - near) <= slack + 5e-5 for gap in gaps), row
