"""Labels of files from a table: CSV with the columns ``file`` and ``label``, as people and spreadsheets write it."""

import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

COLUMNS = ("file", "label")
MISSING = ("", "nan", "null", "<na>", "#n/a", "n/a", "na")
"""What tables hold where a name is missing, in lower case."""
_WHOLE = re.compile(r"[+-]?\d+\.0+")
_FRACTION = re.compile(r"[+-]?\d*\.\d+")
_MARKS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


class Row(NamedTuple):
    """A file and its label, and the line where they stand."""

    line: int
    file: str
    label: str


def read_label_file(path: Path) -> list[Row]:
    r"""Return the rows of a CSV file.

    Columns are separated by comma, semicolon or tab; their names may be in any case; further columns are ignored.
    Space around a value is dropped, and ``1.0`` is read as ``1`` unless some labels have other fractions.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no such table, or a row lacks its file or label; the message has the row's number.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "labels.csv"
        >>> _ = path.write_text("File;Label\n1.png; ant\n")
        >>> read_label_file(path)
        [Row(line=2, file='1.png', label='ant')]
    """
    if not path.is_file():
        raise FileNotFoundError(f"labels: got {str(path)!r}, expected folder, none, or a CSV file that exists")
    text = _text(path)
    head = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    try:
        names = [name.strip().lower() for name in next(reader, [])]
        if any(names.count(column) != 1 for column in COLUMNS):
            raise ValueError(f"labels: got the columns {names} in {path}, expected file and label, each once")
        rows = [_row(reader.line_num, fields, names, path) for fields in reader if any(map(str.strip, fields))]
    except csv.Error as error:
        raise ValueError(f"labels: got {path}, row {reader.line_num}: {error}") from error
    if not rows:
        raise ValueError(f"labels: got no row in {path}, expected a file and a label in each")
    labels = without_fractions([row.label for row in rows])
    return [row._replace(label=label) for row, label in zip(rows, labels, strict=True)]


def without_fractions(labels: list[str]) -> list[str]:
    """Return labels with ``1.0`` as ``1``, unless some of them have other fractions.

    Example:
        >>> without_fractions(["1.0", "2", "ant"]), without_fractions(["1.0", "2.5"])
        (['1', '2', 'ant'], ['1.0', '2.5'])
    """
    fractions = {label for label in labels if _FRACTION.fullmatch(label)}
    if not all(map(_WHOLE.fullmatch, fractions)):
        return labels
    # A table of numbers with gaps writes 1 as 1.0.
    return [label.partition(".")[0] if label in fractions else label for label in labels]


def _row(line: int, fields: list[str], names: list[str], path: Path) -> Row:
    if len(fields) > len(names):
        raise ValueError(
            f"labels: got {len(fields)} values in row {line} of {path}, expected {len(names)}; quote commas in names"
        )
    values = dict(zip(names, fields, strict=False))
    file, label = (values.get(column, "").strip() for column in COLUMNS)
    for column, value in (("file", file), ("label", label)):
        if value.lower() in MISSING:
            raise ValueError(
                f"labels: got {value!r} for {column} in row {line} of {path}, expected a name; drop the row"
            )
    return Row(line, file, label)


def _text(path: Path) -> str:
    data = path.read_bytes()
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8-sig")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"labels: got {path}, which is no {encoding.removesuffix('-sig')} at byte {error.start}"
        ) from error
