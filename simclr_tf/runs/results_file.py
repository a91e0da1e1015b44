"""evaluations.json and its tables."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simclr_tf.errors import UserError
from simclr_tf.utils.files import atomic_write, directory_lock
from simclr_tf.utils.paths import printable
from simclr_tf.utils.tables import format_table

Record = Mapping[str, Any]

_REQUIRED_KEYS = {
    *("protocol", "dataset", "train_split", "test_split"),
    *("top1", "num_train", "num_test", "step"),
}
# Records of one table agree in these.
_GROUP_KEYS = ("dataset", "train_split", "test_split", "step", "metric")


def read_evaluations(path: str | Path) -> list[Record]:
    """Returns the records of an evaluations.json, oldest first; empty if it does not exist."""
    path = Path(path)
    if not path.exists():
        return []
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path} is not valid JSON ({error}). Fix: repair it or move it away"
        ) from error
    if not isinstance(records, list) or not all(
        isinstance(record, dict) and set(record) >= _REQUIRED_KEYS for record in records
    ):
        raise UserError(f"{path} is not a list of evaluations. Fix: repair it or move it away")
    return records


def append_evaluations(path: str | Path, records: Iterable[Record]) -> None:
    """Appends records to an evaluations.json, which is created if absent, in one atomic step.

    A record that differs from an existing one only in `seconds` replaces it. A damaged file is not
    changed.
    """
    path = Path(path)
    added = [dict(record) for record in records]
    identities = [_identity(record) for record in added]
    with directory_lock(path.parent):
        previous = [old for old in read_evaluations(path) if _identity(old) not in identities]
        atomic_write(path, json.dumps(previous + added, indent=1, allow_nan=False) + "\n")


def _identity(record: Record) -> Record:
    return {**record, "seconds": 0}


def with_defaults(record: Record) -> Record:
    """Returns a record with the keys that earlier versions did not write."""
    return {"setting": "", "metric": "top-1", "value": record["top1"], **record}


@dataclass(frozen=True)
class ResultTable:
    """Results of one dataset and step in percent: a row per protocol, a column per encoder.

    The first of `rows` is the header: the metric, then the encoders. All cells are text.
    """

    dataset: str
    step: int
    title: str
    rows: list[list[str]]

    @property
    def metric(self) -> str:
        """The metric with its unit, such as "top-1 %"."""
        return self.rows[0][0]


def group_into_tables(records: Iterable[Record]) -> list[ResultTable]:
    """Returns a table for every (dataset, splits, step, metric), the newest last.

    The newest of several records with equal protocol, setting and number of labels is shown.
    """
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in map(with_defaults, records):
        key = tuple(record[name] for name in _GROUP_KEYS)
        groups[key] = [*groups.pop(key, []), record]
    return [_build_table(group) for group in groups.values()]


def format_results(records: Sequence[Record], markdown: bool = False) -> str:
    """Returns the tables of records as text or Markdown."""
    return "\n\n".join(
        (f"{table.title}\n\n" if markdown else f"{table.title}\n")
        + format_table(table.rows[1:], table.rows[0], markdown=markdown)
        for table in group_into_tables(records)
    )


def _build_table(records: Sequence[Record]) -> ResultTable:
    cells: dict[str, dict[str, str]] = {}
    columns: dict[str, None] = {}
    for record, name in zip(records, _row_names(records), strict=True):
        column = record["protocol"].partition("/")[2] or "encoder"
        columns[column] = None
        cells.setdefault(name, {})[column] = f"{100 * record['value']:.1f}"
    rows = [[f"{records[-1]['metric']} %", *columns]]
    rows += [[name, *(row.get(c, "–") for c in columns)] for name, row in cells.items()]
    last = records[-1]
    num_train = max(record["num_train"] for record in records)
    title = (
        f"{printable(last['dataset'])}, step {last['step']}: {num_train:,} images of "
        f"{last['train_split']} for training, {last['num_test']:,} of {last['test_split']} for "
        "testing"
    )
    return ResultTable(last["dataset"], last["step"], title, rows)


def _row_names(records: Sequence[Record]) -> list[str]:
    """Returns the protocols, with setting and number of labels where these distinguish rows."""
    protocols = [record["protocol"].partition("/")[0] for record in records]
    settings: dict[str, set[str]] = {}
    for record, protocol in zip(records, protocols, strict=True):
        settings.setdefault(protocol, set()).add(record["setting"])
    max_labels = max(record["num_train"] for record in records)
    names = []
    for record, protocol in zip(records, protocols, strict=True):
        details = [record["setting"]] if len(settings[protocol]) > 1 and record["setting"] else []
        if record["num_train"] < max_labels:
            details.append(f"{record['num_train']} labels")
        names.append(f"{protocol} ({'; '.join(details)})" if details else protocol)
    return names
