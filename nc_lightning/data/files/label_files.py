"""Labels of files from a table: CSV with the columns ``file`` and ``label``, as users and spreadsheets write it."""

import codecs
import csv
import io
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from nc_lightning.batch import UNLABELED
from nc_lightning.checks import MISSING
from nc_lightning.data.base import Split
from nc_lightning.data.files.classes import NUMBER, class_name, whole_numbers
from nc_lightning.data.files.split_folders import role_of

COLUMNS = ("file", "label")
_SPLIT_COLUMNS = ("split", "subset", "set", "fold", "partition", "phase", "usage")
_ROUNDED = re.compile(r"[+-]?[0-9](?:[.,][0-9]+)?e\+[0-9]+", re.IGNORECASE)


class Row(NamedTuple):
    """A file and its label, their line in the table, and the split named by a further column."""

    line: int
    file: str
    label: str
    split: Split | None = None


def read_label_file(path: Path) -> list[Row]:
    r"""Return the rows of a CSV file.

    Columns are separated by commas, semicolons or tabs; their names may be in any case. Other columns are ignored,
    except one that names splits. Labels are read as displayed (see `class_name`), and whole numbers without sign and
    fraction (``1.0`` as ``1``), unless some labels have other fractions.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not such a table, a row lacks its file or label, or two labels may be the same number; the
            message has the number of the row.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "labels.csv"
        >>> _ = path.write_text("File;Label\n1.png; ant\n")
        >>> read_label_file(path)
        [Row(line=2, file='1.png', label='ant', split=None)]
    """
    if not path.is_file():
        raise FileNotFoundError(f"labels: got {str(path)!r}, expected folder, none, or a CSV file that exists")
    records = _records(path)
    names = [class_name(name).lower() for name in next(records, (1, []))[1]]
    if any(names.count(column) != 1 for column in COLUMNS):
        raise ValueError(f"labels: got the columns {names} in {path}, expected file and label, each once")
    table = [(line, _values(line, fields, names, path)) for line, fields in records]
    if not table:
        raise ValueError(f"labels: got no row in {path}, expected a file and a label in each")
    column = _split_column(names, [values for _, values in table], path)
    rows = [Row(line, values["file"], values["label"], role_of(values.get(column, ""))) for line, values in table]
    return _with_numbers(rows, path)


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the records that are not blank, with the number of their first line."""
    text = _text(path)
    head = text.partition("\n")[0]
    if "\0" in head:
        raise ValueError(f"labels: got {path} with zero bytes, expected UTF-8, or UTF-16 with a byte order mark")
    delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    line = 1
    try:
        for fields in reader:
            if any("\n" in field or "\r" in field for field in fields):
                raise ValueError(
                    f"labels: got a line break in quotes in row {line} of {path}, expected one record per line; "
                    "remove a stray quote, or the line break"
                )
            if any(map(str.strip, fields)):
                yield line, fields
            line = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"labels: got {path}, row {line}: {error}; look for a stray quote") from error


def _values(line: int, fields: list[str], names: list[str], path: Path) -> dict[str, str]:
    if len(fields) > len(names):
        raise ValueError(
            f"labels: got {len(fields)} values in row {line} of {path}, expected {len(names)}; quote commas in names"
        )
    values = dict.fromkeys(COLUMNS, "") | dict(zip(names, map(str.strip, fields), strict=False))
    values["label"] = class_name(values["label"])
    for column in COLUMNS:
        value = values[column]
        if value.lower() in MISSING:
            raise ValueError(
                f"labels: got {value!r} for {column} in row {line} of {path}, expected a name; drop the row"
            )
    if NUMBER.fullmatch(values["label"]) and _value(values["label"]) == UNLABELED:
        raise ValueError(
            f"labels: got {values['label']!r} in row {line} of {path}, which stands for an unknown class; drop the "
            "row, or rename the class"
        )
    if values["label"].count('"') % 2:
        raise ValueError(f"labels: got {values['label']!r} in row {line} of {path}, expected no stray quote")
    if _ROUNDED.fullmatch(values["label"]):
        raise ValueError(
            f"labels: got {values['label']!r} in row {line} of {path}, which may be rounded, expected all digits"
        )
    return values


def _split_column(names: list[str], table: list[dict[str, str]], path: Path) -> str:
    """Return the name of the column that holds splits, or ""; warn about a column that may hold them."""
    for name in names:
        if name in COLUMNS:
            continue
        roles = {role_of(values[name]) for values in table if values.get(name)}
        named = name in _SPLIT_COLUMNS or role_of(name) is not None
        if roles - {None} and (named or None not in roles):
            return name
        if named:
            rank_zero_warn(
                f"labels: the column {name!r} of {path} is not read; folders such as train, val and test are the splits"
            )
    return ""


def _with_numbers(rows: list[Row], path: Path) -> list[Row]:
    """Write whole numbers in one way; refuse two spellings of one number if fractions occur."""
    labels = whole_numbers([row.label for row in rows])
    if labels is not None:
        return [row._replace(label=label) for row, label in zip(rows, labels, strict=True)]
    numbers = [row for row in rows if NUMBER.fullmatch(row.label)]
    first: dict[Decimal, Row] = {}
    for row in numbers:
        earlier = first.setdefault(_value(row.label), row)
        if earlier.label != row.label:
            raise ValueError(
                f"labels: got {earlier.label!r} in row {earlier.line} and {row.label!r} in row {row.line} of {path}, "
                "expected one way to write a number"
            )
    return rows


def _value(number: str) -> Decimal:
    return Decimal(number.replace(",", "."))


def _text(path: Path) -> str:
    data = path.read_bytes()
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"labels: got {path}, which is not {encoding.removesuffix('-sig')} at byte {error.start}"
        ) from error
