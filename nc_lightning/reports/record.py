"""The record of a run: all that its report is made of, in one JSON file in the run's folder."""

import base64
import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nc_lightning.io.atomic import replace_file

FILE_NAME = "report.json"
FORMAT = 1


@dataclass
class RunRecord:
    """What a run was, how its geometry developed, and its last figures.

    Attributes:
        name: Of the run, for headings.
        num_classes: C.
        feature_dim: d.
        settings: Objective, hardness and the like.
        config: The whole configuration, as text.
        history: A measurement each: ``epoch``, ``step``, and values by the keys that they are logged with.
        figures: PNG files by name.
        spectrum: Eigenvalues of the covariance of the training set's class means over the largest, when the figures
            were drawn.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "report.json"
        >>> record = RunRecord("mine", 10, 9, history=[{"epoch": 1, "geometry/train/nc1": float("inf")}])
        >>> record.write(path)
        >>> RunRecord.read(path) == record, record.latest("geometry/train/")
        (True, {'nc1': inf})
    """

    name: str
    num_classes: int
    feature_dim: int
    settings: dict[str, Any] = field(default_factory=dict)
    config: str = ""
    history: list[dict[str, float]] = field(default_factory=list)
    figures: dict[str, bytes] = field(default_factory=dict)
    spectrum: list[float] = field(default_factory=list)

    def latest(self, prefix: str) -> dict[str, float]:
        """Return the values of the last measurement whose keys begin with ``prefix``, by the rest of the key."""
        last = self.history[-1] if self.history else {}
        return {key.removeprefix(prefix): value for key, value in last.items() if key.startswith(prefix)}

    def path(self, name: str) -> list[tuple[float, float]]:
        """Return (within-class variation, effective rank) of one set, at each measurement that has both."""
        keys = f"geometry/{name}/within_class_variation", f"geometry/{name}/effective_rank"
        return [(entry[keys[0]], entry[keys[1]]) for entry in self.history if keys[0] in entry and keys[1] in entry]

    def write(self, path: Path) -> None:
        """Write the record as a whole: a reader finds the old file or the new one, never half of it.

        Raises:
            OSError: If it cannot be written; the old file is as it was.
        """
        fields = asdict(self)
        fields["figures"] = {name: base64.b64encode(png).decode() for name, png in self.figures.items()}
        fields["history"] = [{key: _to_json(value) for key, value in entry.items()} for entry in self.history]
        text = json.dumps({"format": FORMAT, **fields}, allow_nan=False, default=str)
        replace_file(path, text)

    @classmethod
    def read(cls, path: Path) -> "RunRecord":
        """Read a record.

        Args:
            path: A run's folder, or the file in it.

        Raises:
            FileNotFoundError: If there is none.
            ValueError: If it is damaged or no record.
        """
        file = path / FILE_NAME if path.is_dir() else path
        if not file.is_file():
            raise FileNotFoundError(f"RUN: got {str(path)!r}, expected the folder of a run, with its {FILE_NAME}")
        try:
            fields = json.loads(file.read_text(encoding="utf-8"))
            if fields.pop("format") != FORMAT:
                raise ValueError("another format")
            fields["figures"] = {name: base64.b64decode(png) for name, png in fields["figures"].items()}
            fields["history"] = [{key: float(value) for key, value in entry.items()} for entry in fields["history"]]
            return cls(**fields)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"RUN: got {str(file)!r}, which is damaged or no record of a run") from error


def _to_json(value: float) -> float | str:
    """JSON has no NaN and no infinity: they become texts, which `float` understands."""
    return value if math.isfinite(value) else str(value)
