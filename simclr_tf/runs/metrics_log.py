"""metrics.jsonl: a row of figures for every logged step of a run."""

import json
import math
from pathlib import Path
from typing import Any

from simclr_tf.errors import UserError
from simclr_tf.utils.files import atomic_write

Row = dict[str, Any]


def read_metrics(path: Path) -> list[Row]:
    """Returns the rows in their order; none where there is no file.

    Every row has its "step" and "epoch". A last line without its end is being written, or was when
    a run was killed: it is left out.

    Raises:
        UserError: a line is damaged.
    """
    if not path.exists():
        return []
    rows: list[Row] = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            break
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict) or not {"step", "epoch"} <= set(row):
            raise UserError(
                f"{path} is damaged in line {number}; remove that line, or put back a copy"
            )
        rows.append(row)
    return rows


def has_finite_value(row: Row, name: str) -> bool:
    """Whether a row has this figure, and it is a number."""
    return isinstance(row.get(name), int | float) and math.isfinite(row[name])


def truncate_metrics(path: Path, step: int) -> None:
    """Removes the rows after a restored step, and a last line that a kill cut short."""
    if path.exists():
        kept = [row for row in read_metrics(path) if row["step"] <= step]
        atomic_write(path, "".join(json.dumps(row) + "\n" for row in kept))
