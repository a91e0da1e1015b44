"""metrics.jsonl: one row of metrics per logged step."""

import json
import math
from pathlib import Path
from typing import Any

from simclr_tf.errors import UserError
from simclr_tf.utils.files import atomic_write

Row = dict[str, Any]

ENCODER_PROBES = ("knn_top1", "linear_probe_top1")  # measured on `PretrainConfig.probe_data`


def read_metrics(path: Path) -> list[Row]:
    """Returns the rows in order, each with "step" and "epoch"; empty if the file does not exist.

    An incomplete last line, which is being written or was when the process was killed, is ignored.
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
                f"{path} is damaged in line {number}. Fix: remove that line or restore a copy"
            )
        rows.append(row)
    return rows


def has_finite_value(row: Row, name: str) -> bool:
    """Returns True if a row has a finite number for this metric."""
    return isinstance(row.get(name), int | float) and math.isfinite(row[name])


def truncate_metrics(path: Path, step: int) -> None:
    """Removes the rows after a restored step and an incomplete last line."""
    if path.exists():
        rows = [row for row in read_metrics(path) if row["step"] <= step]
        atomic_write(path, "".join(json.dumps(row) + "\n" for row in rows))
