"""evaluations.json, and the table that a user reads."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from simclr_tf.errors import UserError
from simclr_tf.files import write_atomically

Record = Mapping[str, Any]

# What makes two records belong to one table.
_SETTING = ("dataset", "train_split", "test_split", "step")


def read_evaluations(path: str | Path) -> list[Record]:
    """Return the records of an evaluations.json, oldest first; an empty list if there is no file.

    Raises:
        UserError: the file is not a JSON list of objects.
    """
    path = Path(path)
    if not path.exists():
        return []
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid JSON ({error}); mend it or move it away") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise UserError(f"{path} is not a list of evaluations; mend it or move it away")
    return records


def append_evaluations(path: str | Path, records: Iterable[Record]) -> None:
    """Add records at the end of an evaluations.json, made if absent, in one atomic step.

    Raises:
        UserError: the file is there and corrupt; it is left as it is.
    """
    path = Path(path)
    everything = [*read_evaluations(path), *(dict(record) for record in records)]
    write_atomically(path, json.dumps(everything, indent=1, allow_nan=False) + "\n")


def format_table(records: Sequence[Record], markdown: bool = False) -> str:
    """Lay out top-1 accuracies in percent: protocols down, the encoder and its baselines across.

    There is a table for every (dataset, splits, step); of equal protocols the newest counts.
    """
    settings = dict.fromkeys(tuple(record[key] for key in _SETTING) for record in records)
    tables = [
        _one_table(
            [record for record in records if tuple(record[key] for key in _SETTING) == setting],
            markdown,
        )
        for setting in settings
    ]
    return "\n\n".join(tables)


def _one_table(records: Sequence[Record], markdown: bool) -> str:
    cells: dict[str, dict[str, str]] = {}
    columns: dict[str, None] = {}
    for record in records:
        protocol, _, baseline = record["protocol"].partition("/")
        column = baseline or "encoder"
        columns[column] = None
        cells.setdefault(protocol, {})[column] = f"{100 * record['top1']:.1f}"
    rows = [["top-1 %", *columns]]
    rows += [[protocol, *(row.get(c, "–") for c in columns)] for protocol, row in cells.items()]
    last = records[-1]
    title = (
        f"{last['dataset']}: {last['num_train']} images of {last['train_split']} to learn from, "
        f"{last['num_test']} of {last['test_split']} to be judged on, step {last['step']}"
    )
    if markdown:
        rows.insert(1, ["---", *("---:" for _ in columns)])
        return "\n".join([title, "", *("| " + " | ".join(row) + " |" for row in rows)])
    widths = [max(len(row[i]) for row in rows) for i in range(len(columns) + 1)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        ).rstrip()
        for row in rows
    ]
    return "\n".join([title, *lines])
