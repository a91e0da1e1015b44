"""evaluations.json, and the table that a user reads."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simclr_tf.errors import UserError
from simclr_tf.utils.files import atomic_write, directory_lock

Record = Mapping[str, Any]

_KEYS = {
    "protocol",
    "dataset",
    "train_split",
    "test_split",
    "top1",
    "num_train",
    "num_test",
    "step",
}
# What makes two records belong to one table.
_GROUP_KEYS = ("dataset", "train_split", "test_split", "step", "metric")


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
    if not isinstance(records, list) or not all(map(_is_record, records)):
        raise UserError(f"{path} is not a list of evaluations; mend it or move it away")
    return records


def _is_record(record: Any) -> bool:
    return isinstance(record, dict) and set(record) >= _KEYS


def append_evaluations(path: str | Path, records: Iterable[Record]) -> None:
    """Add records at the end of an evaluations.json, made if absent, in one atomic step.

    One that was there already but for its seconds, as when an evaluation was stopped and begun
    again, takes the place of the old one.

    Raises:
        UserError: the file is there and corrupt; it is left as it is.
    """
    path = Path(path)
    added = [dict(record) for record in records]
    said = [_identity(record) for record in added]
    with directory_lock(path.parent):
        everything = [old for old in read_evaluations(path) if _identity(old) not in said] + added
        atomic_write(path, json.dumps(everything, indent=1, allow_nan=False) + "\n")


def _identity(record: Record) -> Record:
    return {**record, "seconds": 0}


@dataclass(frozen=True)
class ResultTable:
    """Figures in percent: protocols down, the encoder and its baselines across.

    `rows` are of text, the first is the header: the metric, then what was measured. All are of one
    dataset and step.
    """

    dataset: str
    step: int
    title: str
    rows: list[list[str]]

    @property
    def metric(self) -> str:
        """What the figures are."""
        return self.rows[0][0]


def group_into_tables(records: Iterable[Record]) -> list[ResultTable]:
    """Lay out the figures, in a table for every (dataset, splits, step, metric), the newest last.

    Of equal protocols with equal settings and as many labels the newest counts.
    """
    kinds: dict[tuple[Any, ...], list[Record]] = {}
    for record in map(with_defaults, records):
        setting = tuple(record[key] for key in _GROUP_KEYS)
        kinds[setting] = [*kinds.pop(setting, []), record]
    return [_build_table(members) for members in kinds.values()]


def format_results(records: Sequence[Record], markdown: bool = False) -> str:
    """Return the `tables` of records as text, or as Markdown."""
    return "\n\n".join(_as_text(table, markdown) for table in group_into_tables(records))


def with_defaults(record: Record) -> Record:
    """Return a record with the keys that earlier versions did not write."""
    return {"setting": "", "metric": "top-1", "value": record["top1"], **record}


def _build_table(records: Sequence[Record]) -> ResultTable:
    names = _row_names(records)
    cells: dict[str, dict[str, str]] = {}
    columns: dict[str, None] = {}
    for record, name in zip(records, names, strict=True):
        column = record["protocol"].partition("/")[2] or "encoder"
        columns[column] = None
        cells.setdefault(name, {})[column] = f"{100 * record['value']:.1f}"
    rows = [[f"{records[-1]['metric']} %", *columns]]
    rows += [[name, *(row.get(c, "–") for c in columns)] for name, row in cells.items()]
    last = records[-1]
    most = max(record["num_train"] for record in records)
    title = (
        f"{last['dataset']}: {most} images of {last['train_split']} to learn from, "
        f"{last['num_test']} of {last['test_split']} to be judged on, step {last['step']}"
    )
    return ResultTable(last["dataset"], last["step"], title, rows)


def _as_text(table: ResultTable, markdown: bool) -> str:
    rows = table.rows
    if markdown:
        rule = ["---", *("---:" for _ in rows[0][1:])]
        return "\n".join([table.title, "", *map(markdown_row, [rows[0], rule, *rows[1:]])])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        ).rstrip()
        for row in rows
    ]
    return "\n".join([table.title, *lines])


def _row_names(records: Sequence[Record]) -> list[str]:
    """The protocols, with their setting or number of labels where that tells rows apart."""
    protocols = [record["protocol"].partition("/")[0] for record in records]
    several: dict[str, set[str]] = {}
    for record, protocol in zip(records, protocols, strict=True):
        several.setdefault(protocol, set()).add(record["setting"])
    labels = {record["num_train"] for record in records}
    names = []
    for record, protocol in zip(records, protocols, strict=True):
        words = [record["setting"]] if len(several[protocol]) > 1 and record["setting"] else []
        if len(labels) > 1 and record["num_train"] < max(labels):
            words.append(f"{record['num_train']} labels")
        names.append(f"{protocol} ({'; '.join(words)})" if words else protocol)
    return names


def markdown_row(cells: Iterable[object]) -> str:
    """Return a row of a Markdown table, safe from what names may hold."""
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
