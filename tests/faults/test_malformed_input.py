"""Malformed configs and feature files end in one line and code 2, or in a correct run, and in nothing else."""

import contextlib
import io
import pickle
import signal
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from nc_lightning import cli
from nc_lightning.cli import measure as nc_measure
from nc_lightning.cli.command_error import exit_on_error

pytestmark = pytest.mark.slow

# Without shrinking, which repeats the slowest cases many times.
OF_EACH = settings(suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate])
EXAMPLES = pytest.mark.parametrize("examples", [15, pytest.param(130, marks=pytest.mark.exhaustive)])
SECONDS = 60
"""Seconds, longer than any case takes: a command still running then hangs."""


def outcome(command, main, arguments):
    """Run a command; return whether it ``ran`` or was ``refused`` with one line and code 2. All else is a failure."""
    errors = io.StringIO()

    def hangs(*_):
        raise AssertionError(f"{command} hangs")

    signal.signal(signal.SIGALRM, hangs)
    signal.alarm(SECONDS)
    code = None
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()), exit_on_error():
            main(arguments)
    except SystemExit as exit_:
        code = exit_.code
    finally:
        signal.alarm(0)
    told = errors.getvalue()
    assert "Traceback" not in told
    lines = [line for line in told.splitlines() if line.startswith(f"{command}: error: ")]
    if code is None:
        assert not lines
        return "ran"
    assert code == 2
    assert len(lines) == 1, told
    assert len(lines[0]) > len(f"{command}: error: ")
    assert lines[0].isprintable(), lines[0]
    return "refused"


# Configs. Sizes stay below 300: a layer of 10^9 units would only test the memory.

JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 300)
    | st.sampled_from([0.0, -1.5, 1e-300, 1e300, float("nan"), float("inf"), float("-inf")])
    | st.text(max_size=12)
    | st.sampled_from(
        ["os.system", "torch.nn.Linear", "nc_lightning.SCL", "nc_lightning.data", "unit_ball", "0x1F", "1_0"]
    )
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
SHIPPED = [(cli.config_folder() / f"{name}.yaml").read_text() for name in ("scl", "hscl", "ucl", "hucl")]


def paths(tree, path=()):
    """The paths of all settings in a config."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield (*path, key)
        yield from paths(value, (*path, key))


@st.composite
def mutated(draw):
    """A shipped config with one to three settings that are wrong, missing or unknown."""
    config = yaml.safe_load(draw(st.sampled_from(SHIPPED)))
    for _ in range(draw(st.integers(1, 3))):
        *path, key = draw(st.sampled_from(sorted(paths(config), key=str)))
        parent = config
        for step in path:
            parent = parent[step]
        kind = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if kind == "replace":
            parent[key] = draw(JUNK)
        elif kind == "remove":
            del parent[key]
        elif isinstance(parent, dict):
            parent[draw(st.text(min_size=1, max_size=8))] = draw(JUNK)
    return yaml.safe_dump(config, allow_unicode=True).encode()


@st.composite
def damaged(draw):
    """The text of a shipped config, truncated, with inserted bytes, or duplicated."""
    text = draw(st.sampled_from(SHIPPED)).encode()
    at = draw(st.integers(0, len(text)))
    return draw(
        st.sampled_from([text[:at], text[at:], text + text])
        | st.binary(min_size=1, max_size=5).map(lambda noise: text[:at] + noise + text[at:])
    )


NESTED = st.integers(50, 2000).flatmap(
    lambda depth: st.sampled_from([b"[" * depth, b"a: " + b"{a: " * depth + b"1" + b"}" * depth, b"- " * depth])
)
CONFIGS = (
    mutated()
    | mutated()
    | mutated()
    | mutated()
    | damaged()
    | NESTED
    | st.binary(max_size=200)
    | JUNK.map(lambda value: yaml.safe_dump(value, allow_unicode=True).encode())
    | st.sampled_from(
        [b"", b"\n", b"---\n", b"a: &a [*a]\n", b"a: b: c\n", b"\t\n", b"? ", b"model: !!python/name:os.system\n"]
    )
)
QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.logger=false"]
COUNTS: dict[str, Counter[str]] = {"configs": Counter(), "feature files": Counter()}


@pytest.fixture(autouse=True)
def _empty_folder(in_tmp, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["nc-train"])


@pytest.fixture(autouse=True, scope="module")
def _tell():
    yield
    for what, counts in COUNTS.items():
        print(f"{what}: {sum(counts.values())} tried, {counts['refused']} refused, {counts['ran']} ran")


@EXAMPLES
def test_malformed_configs_are_refused_or_run(examples):
    @settings(OF_EACH, max_examples=examples)
    @given(config=CONFIGS)
    @example(config=b"a: &a [*a]\n")
    @example(config=b"a: " + b"{a: " * 1000 + b"1" + b"}" * 1000)
    def run(config):
        Path("mine.yaml").write_bytes(config)
        arguments = ["fit", "--config=mine.yaml", "--trainer.fast_dev_run=true", *QUIET]
        COUNTS["configs"][outcome("nc-train", cli.main, arguments)] += 1

    run()


# Feature files.

NAMES = st.sampled_from(["features", "features", "z", "x", "labels", "labels", "y", "what", ""])
SHAPES = st.sampled_from([(6, 3), (6, 3), (6, 3), (6, 3), (5, 3), (6,), (), (0, 3), (6, 0), (6, 3, 2), (1, 3), (6, 1)])
VALUES = st.sampled_from(
    ["<f4", "<f4", "<f4", "<f8", "<f2", ">f4", "<i4", "u1", "?", "<c8", "<U3", "S3", "O", "<M8[s]", "f4,i4"]
)
LABELS = st.sampled_from(["<i8", "<i8", "<i8", "<i4", "u1", "<u8", "<f8", "<U3", "S3", "O", "?", "<M8[s]"])
LENGTHS = st.sampled_from([(6,), (6,), (6,), (5,), (0,), (), (6, 1)])


@st.composite
def arrays(draw, dtypes, shapes):
    """An array of one of these types and shapes; values may be NaN, infinite, negative or huge."""
    shape, dtype = draw(shapes), np.dtype(draw(dtypes))
    numbers = np.random.default_rng(draw(st.integers(0, 9))).integers(-1 * draw(st.booleans()), 3, shape)
    array = np.asarray(numbers).astype(dtype) if dtype.names is None else np.zeros(shape, dtype)
    if dtype.kind == "f":
        array[(0,) * array.ndim if array.size else ...] = draw(st.sampled_from([0, 0, 0, np.nan, np.inf, -np.inf, 6e4]))
    if dtype.kind in "iu":
        largest, smallest = np.iinfo(dtype).max, np.iinfo(dtype).min
        array[(0,) * array.ndim if array.size else ...] = draw(st.sampled_from([0, 0, 0, largest, smallest]))
    if dtype.kind == "O":
        array[(0,) * array.ndim if array.size else ...] = draw(st.sampled_from([0, None, "cat", 1.5, float("nan")]))
    return np.asfortranarray(array) if draw(st.booleans()) else array


def npz(named):
    file = io.BytesIO()
    np.savez(file, **{name or "unnamed": array for name, array in named.items()})
    return file.getvalue()


def npy(named):
    file = io.BytesIO()
    np.save(file, next(iter(named.values())))
    return file.getvalue()


def pt(named):
    file = io.BytesIO()
    torch.save({name: as_tensor(array) for name, array in named.items()}, file)
    return file.getvalue()


def as_tensor(array):
    try:
        return torch.from_numpy(np.ascontiguousarray(array))
    except (TypeError, ValueError):
        return array.tolist()


def parquet(named):
    import pyarrow
    from pyarrow import parquet as files

    columns = {name: array.tolist() if array.ndim else [array.item()] for name, array in named.items()}
    length = max(len(column) for column in columns.values())
    file = io.BytesIO()
    try:
        table = pyarrow.table({name: (column + [None] * length)[:length] for name, column in columns.items()})
        files.write_table(table, file)
    except (pyarrow.ArrowException, OverflowError, TypeError, ValueError):  # such a column cannot be written
        return b"PAR1"
    return file.getvalue()


FORMATS = {".npz": npz, ".npy": npy, ".pt": pt, ".parquet": parquet}


@st.composite
def feature_files(draw):
    """One or two files by name: unusual arrays, perhaps damaged or with a wrong extension."""
    suffix = draw(st.sampled_from(sorted(FORMATS)))
    named = {draw(NAMES): draw(arrays(VALUES, SHAPES)), draw(NAMES): draw(arrays(LABELS, LENGTHS))}
    if draw(st.sampled_from([True, True, False])):
        named = {"features": next(iter(named.values())), "labels": list(named.values())[-1]}
    content = FORMATS[suffix](named)
    at = draw(st.integers(0, len(content) - 1))
    flipped = content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]
    damaged = [content[:at], flipped, b"", pickle.dumps(named), draw(st.binary(max_size=50))]
    content = draw(st.sampled_from([content] * 10 + damaged))
    name = "f" + draw(st.sampled_from([suffix] * 15 + [*FORMATS, ".csv", ".pth", ""]))
    files = {name: content}
    if name.endswith(".npy") and draw(st.sampled_from([True, True, False])):
        files["labels.npy"] = npy({"labels": list(named.values())[-1]})
    return files


@EXAMPLES
def test_malformed_feature_files_are_refused_or_measured(examples):
    @settings(OF_EACH, max_examples=examples)
    @given(files=feature_files(), normalization=st.sampled_from(["none", "unit_ball", "unit_sphere"]))
    def run(files, normalization):
        for name, content in files.items():
            Path(name).write_bytes(content)
        arguments = [*files, "--normalization", normalization]
        COUNTS["feature files"][outcome("nc-measure", nc_measure.main, arguments)] += 1

    run()
