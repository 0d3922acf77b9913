from itertools import product

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from nc_lightning.sweeps.plan import read_plan


@pytest.fixture(autouse=True)
def _empty_folder(in_tmp):
    pass


def plan(said, extra=None):
    with open("sweep.yaml", "w") as file:
        file.write(said if isinstance(said, str) else yaml.safe_dump(said, sort_keys=False))
    return read_plan("sweep.yaml", extra)


def test_a_grid_is_the_product_of_its_lists():
    said = {
        "objective": ["scl.yaml", "hscl.yaml"],
        "overlays": ["digit_pairs.yaml", "mine/short.yaml"],
        "seeds": [0, 3],
        "all": {"data.batches": ["random", "balanced"], "model.temperature": 0.5},
    }
    found = plan(said, ["--trainer.max_epochs=2"])
    assert found.axes == ["objective", "batches"]
    expected = list(product(["scl", "hscl"], ["random", "balanced"], [0, 3]))
    assert [(c.settings["objective"], c.settings["batches"], c.settings["seed"]) for c in found.cells] == expected
    assert found.cells[-1].name == "hscl-batches=balanced-seed=3"
    assert found.cells[-1].arguments == [
        *("--config=hscl.yaml", "--config=digit_pairs.yaml", "--config=mine/short.yaml"),
        *("--data.batches=balanced", "--model.temperature=0.5", "--seed_everything=3", "--data.seed=3"),
        "--trainer.max_epochs=2",
    ]


def test_blocks_have_their_own_axes_and_override_the_common_settings():
    found = plan(
        {
            "all": {"data.batches": ["random", "balanced"]},
            "cells": [
                {"objective": "scl.yaml"},
                {"objective": ["hscl.yaml"], "model.beta": [2, 5], "data.batches": "stratified"},
            ],
        }
    )
    assert [cell.name for cell in found.cells] == [
        *("scl-batches=random-seed=0", "scl-batches=balanced-seed=0"),
        *("hscl-batches=stratified-beta=2-seed=0", "hscl-batches=stratified-beta=5-seed=0"),
    ]
    assert "beta" not in found.cells[0].settings
    assert "--data.batches=stratified" in found.cells[-1].arguments


def test_configs_are_an_axis_and_null_is_left_out():
    found = plan(
        {"objective": "hscl.yaml", "overlays": "a.yaml", "all": {"psi": [None, "b.yaml", ["c.yaml", "d.yaml"]]}}
    )
    assert [cell.name for cell in found.cells] == ["hscl-seed=0", "hscl-psi=b-seed=0", "hscl-psi=c+d-seed=0"]
    configs = [[a.removeprefix("--config=") for a in cell.arguments if "--config" in a] for cell in found.cells]
    assert configs == [
        ["hscl.yaml", "a.yaml"],
        ["hscl.yaml", "a.yaml", "b.yaml"],
        ["hscl.yaml", "a.yaml", "c.yaml", "d.yaml"],
    ]


def test_values_reach_the_command_line_unchanged():
    link = {"class_path": "nc_lightning.losses.Triplet", "init_args": {"margin": 0.5}}
    all_ = {"model.link": [link], "model.tag": "run-{seed}", "model.flag": [True], "model.widths": [[1, 2]]}
    (cell,) = plan({"objective": "hscl.yaml", "seeds": [7], "all": all_}).cells
    assert cell.name == "hscl-link=Triplet(margin=0.5)-flag=True-widths=1+2-seed=7"
    assert cell.arguments[1:5] == [
        '--model.link={"class_path": "nc_lightning.losses.Triplet", "init_args": {"margin": 0.5}}',
        *("--model.tag=run-7", "--model.flag=true", "--model.widths=[1, 2]"),
    ]


def test_a_repeated_cell_is_run_once():
    block = {"objective": "scl.yaml", "data.batches": ["random", "balanced"]}
    assert len(plan({"cells": [block, {**block, "data.batches": ["balanced"]}]}).cells) == 2


@given(
    objectives=st.lists(st.sampled_from(["scl.yaml", "ucl.yaml", "hucl.yaml"]), min_size=1, unique=True),
    betas=st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True),
    norms=st.lists(st.sampled_from(["unit_ball", "unit_sphere", "none"]), min_size=1, unique=True),
    seeds=st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
)
def test_every_combination_occurs_once(tmp_path_factory, objectives, betas, norms, seeds):
    path = tmp_path_factory.mktemp("plan") / "sweep.yaml"
    all_ = {"model.beta": betas, "model.normalization": norms}
    path.write_text(yaml.safe_dump({"objective": objectives, "seeds": seeds, "all": all_}))
    cells = read_plan(path).cells
    assert len({cell.name for cell in cells}) == len(cells) == len({tuple(cell.arguments) for cell in cells})
    assert len(cells) == len(objectives) * len(betas) * len(norms) * len(seeds)


KEYS = st.sampled_from(["objective", "overlays", "seeds", "all", "cells", "cluster", "class_path", "init_args", "a.b"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | st.floats() | st.sampled_from(["scl.yaml", "x", "{seed}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@given(said=st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_file_is_a_plan_or_a_readable_error(tmp_path_factory, said):
    path = tmp_path_factory.mktemp("plan") / "sweep.yaml"
    path.write_text(yaml.safe_dump({"objective": "hscl.yaml", **said}))
    cells, message = [], "expected"
    try:
        cells = read_plan(path).cells
    except ValueError as error:
        message = str(error)
    assert "expected" in message
    assert all(isinstance(argument, str) for cell in cells for argument in cell.arguments)
    assert all("/" not in cell.name and cell.name for cell in cells)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("[", "SWEEP: got 'sweep.yaml', which is not YAML"),
        ("- scl.yaml", "SWEEP: got list in 'sweep.yaml', expected a mapping"),
        ({"grid": {}}, r"SWEEP: got \['grid'\]"),
        ({"all": {"model.beta": [5]}}, r"cells\[0\]: got no objective"),
        ({"objective": "scl"}, "objective: got 'scl', expected names of configs"),
        ({"objective": "scl.yaml", "overlays": [5]}, r"overlays: got \[5\]"),
        ({"objective": "scl.yaml", "seeds": 3}, "seeds: got 3, expected a list"),
        ({"objective": "scl.yaml", "seeds": [-1]}, r"seeds: got \[-1\]"),
        ({"objective": "scl.yaml", "seeds": []}, r"seeds: got \[\]"),
        ({"objective": "scl.yaml", "cells": []}, r"cells: got \[\]"),
        ({"objective": "scl.yaml", "cells": [3]}, r"cells\[0\]: got 3"),
        ({"objective": "scl.yaml", "all": [1]}, r"all: got \[1\]"),
        ({"objective": "scl.yaml", "all": {"model.beta": []}}, "all: got no value for model.beta"),
        ({"objective": "scl.yaml", "all": {"seed_everything": [0]}}, "all: got seed_everything, expected seeds"),
        ({"objective": "scl.yaml", "cluster": 3}, "cluster: got 3"),
        ({"objective": "scl.yaml", "all": {"a.b": ["x" * 300]}}, "cells: got settings that make a name of 3"),
        ({"objective": "scl.yaml", "cells": [{"a.b": 1}, {"a.b": 2}]}, "cells: got two with the name scl-seed=0"),
        ("a: &a [*a]", "whose alias 'a' contains itself"),
    ],
)
def test_bad_plans_are_explained(said, message):
    with pytest.raises(ValueError, match=message):
        plan(said)


def test_a_missing_plan_is_refused():
    with pytest.raises(FileNotFoundError, match="SWEEP: got 'no.yaml'"):
        read_plan("no.yaml")
