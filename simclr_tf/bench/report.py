"""What a bench hands back: a table to read, and the same for other programs."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from simclr_tf.bench.measure import HardwareInfo


@dataclasses.dataclass(frozen=True)
class Report:
    """The outcome of a bench.

    Attributes:
        machine: what it ran on.
        columns: the table's heads.
        rows: its cells.
        notes: what a reader must know, a line each.
        results: the figures, a dict of JSON's types for each row.
    """

    machine: HardwareInfo
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    results: Sequence[dict[str, Any]]

    def text(self) -> str:
        """Returns the table and the notes."""
        return "\n".join(["", table(self.columns, self.rows), "", *self.notes, str(self.machine)])

    def to_json(self, bench: str, options: dict[str, Any]) -> str:
        """Returns what a file holds: the bench's name, its options, machine, notes and results."""
        document = {
            "bench": bench,
            "options": options,
            "machine": dataclasses.asdict(self.machine),
            "notes": list(self.notes),
            "results": list(self.results),
        }
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def rounds_note(repeats: int) -> str:
    """Returns what a reader must know of figures that are `Spread`s of rounds."""
    return (
        f"Figures: median (min–max) of {repeats} rounds that take each in turn; ratios: of the two "
        "figures of each round."
    )


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns the cells in columns, flush right; a row may be shorter than the heads.

    The last cell of a short row is a remark: it may be wider than its column.
    """
    full = [row for row in [columns, *rows] if len(row) == len(columns)]
    short = [row[:-1] for row in rows if len(row) < len(columns)]
    widths = [
        max(len(row[i]) for row in [*full, *short] if i < len(row)) for i in range(len(columns))
    ]
    lines = []
    for row in [columns, ["-" * width for width in widths], *rows]:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=False)]
        if len(row) < len(columns):
            cells[-1] = row[-1]
        lines.append("  ".join(cells))
    return "\n".join(lines)
