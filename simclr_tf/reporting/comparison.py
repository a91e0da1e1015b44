"""Several runs side by side."""

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from simclr_tf.errors import UserError
from simclr_tf.evaluation.run_table import classifier_label
from simclr_tf.reporting.bars import NONE, bars, judging
from simclr_tf.reporting.html import Plot, Table, write_page
from simclr_tf.reporting.plots import plot_runs_curves
from simclr_tf.reporting.run_info import RunInfo, load_run_info, reproduce_command, summary_rows
from simclr_tf.runs.results_file import Record, with_defaults
from simclr_tf.runs.run_dir import RunDir, identity_settings
from simclr_tf.utils.files import check_output_path, format_bytes

_say = functools.partial(print, flush=True)


def report_runs(model_dirs: Sequence[str | Path], output: str | Path) -> Path:
    """Writes a comparison of runs, from their files alone; returns the file.

    Raises:
        UserError: one is no run or named twice, a file is damaged, or the report cannot be written.
    """
    paths = [Path(path) for path in model_dirs]
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("--runs names a run twice: name each once")
    output = Path(output)
    check_output_path(output, "output", is_file=True)
    runs = dict(zip(_names(paths), (load_run_info(RunDir(path)) for path in paths), strict=True))
    tables, plots = result_tables(runs)
    size = write_page(
        output,
        "comparison.html",
        name=f"{len(runs)} runs",
        notes=[f"{name}: {note}" for name, info in runs.items() for note in info.notes],
        tables=tables,
        plots=plots,
        curves=plot_runs_curves({name: info.rows for name, info in runs.items()}),
        differing=_differing(runs),
        summary_rows=_facts(runs),
        commands={name: reproduce_command(info, info.run.path) for name, info in runs.items()},
        remedy="compare fewer runs",
    )
    _say(f"report of {len(runs)} runs: {output} ({format_bytes(size)})")
    return output


def _names(paths: Sequence[Path]) -> list[str]:
    """Their last parts, or as much more of the paths as tells them apart."""
    whole = [path.resolve() for path in paths]
    shared = Path(os.path.commonpath([path.parent for path in whole]))
    last = [path.name for path in whole]
    return last if len(set(last)) == len(last) else [str(p.relative_to(shared)) for p in whole]


def result_tables(runs: Mapping[str, RunInfo]) -> tuple[list[tuple[str, Table]], list[Plot]]:
    """The newest figure of every kind, by dataset, splits and metric: tables and pictures."""
    found: dict[tuple[str, ...], list[tuple[str, Record]]] = {}
    for name, info in runs.items():
        for record in map(with_defaults, info.records):
            about = tuple(record[key] for key in ("dataset", "train_split", "test_split", "metric"))
            found.setdefault(about, []).append((name, record))
    tables, plots = [], []
    for number, ((dataset, train, test, metric), members) in enumerate(found.items(), 1):
        most = max(record["num_train"] for _, record in members)
        values: dict[str, dict[tuple[str, ...], float]] = {}
        for name, record in members:
            values.setdefault(name, {})[_kind(record, most)] = record["value"]
        kinds = list(dict.fromkeys(kind for of_run in values.values() for kind in of_run))
        kinds.sort(key=lambda kind: bool(kind[-1]))  # what judges the encoder itself first
        title = f"{dataset}: learnt from {train}, judged on {test}, {metric} in percent"
        rows = [
            (
                ", ".join(filter(None, kind)),
                *(_percent(values.get(name, {}).get(kind)) for name in runs),
            )
            for kind in kinds
        ]
        table = Table(("", *runs), rows)
        tables.append((title, table))
        plots.append(bars(f"figures-{number}", title, judging(table), "percent"))
    return tables, plots


def _kind(record: Record, most: int) -> tuple[str, ...]:
    """The protocol as in the tables of several runs, the labels if fewer, and the baseline."""
    labels = f"{record['num_train']:,} labels" if record["num_train"] < most else ""
    return classifier_label(record), labels, record["protocol"].partition("/")[2]


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}"


def _differing(runs: Mapping[str, RunInfo]) -> Table:
    """The settings in which the runs differ, beside the seed, and what they are."""
    all_settings = {name: identity_settings(info.config, info.plan) for name, info in runs.items()}
    names = dict.fromkeys(setting for found in all_settings.values() for setting in found)
    rows = [
        (setting, *(str(found.get(setting, NONE)) or NONE for found in all_settings.values()))
        for setting in names
    ]
    return Table(("setting", *runs), [row for row in rows if len(set(row[1:])) > 1])


def _facts(runs: Mapping[str, RunInfo]) -> Table:
    info = [dict(summary_rows(run)) for run in runs.values()]
    # That of this report is the same for all.
    rows = [(what, *(of_run[what] for of_run in info)) for what in info[0] if what != "this report"]
    return Table(("", *runs), rows)
