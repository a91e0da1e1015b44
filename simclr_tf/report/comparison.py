"""Several runs side by side."""

import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import plotly.graph_objects as go

from simclr_tf.errors import UserError
from simclr_tf.evaluation.tables import name_of_classifier
from simclr_tf.evaluations import Record, completed
from simclr_tf.report.about import Told, facts, remake, tell
from simclr_tf.report.curves import curves_of_runs
from simclr_tf.report.page import LEGEND, Plot, Table, plain, write_page
from simclr_tf.run import Run, settings_of
from simclr_tf.runs.listing import size_text

_say = functools.partial(print, flush=True)
_NONE = "–"


def report_runs(model_dirs: Sequence[str | Path], output: str | Path) -> Path:
    """Writes a comparison of runs, from their files alone; returns the file.

    Raises:
        UserError: one is no run or named twice, a file is damaged, or the report cannot be written.
    """
    paths = [Path(path) for path in model_dirs]
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("--runs names a run twice: name each once")
    output = Path(output)
    Run(output.parent).check_place("--output")
    runs = dict(zip(_names(paths), (tell(Run(path)) for path in paths), strict=True))
    tables, plots = _figures(runs)
    size = write_page(
        output,
        "comparison.html",
        name=f"{len(runs)} runs",
        notes=[f"{name}: {note}" for name, told in runs.items() for note in told.notes],
        tables=tables,
        plots=plots,
        curves=curves_of_runs({name: told.rows for name, told in runs.items()}),
        differing=_differing(runs),
        facts=_facts(runs),
        commands={name: remake(told, told.run.path) for name, told in runs.items()},
    )
    _say(f"report of {len(runs)} runs: {output} ({size_text(size)})")
    return output


def _names(paths: Sequence[Path]) -> list[str]:
    """Their last parts, or as much more of the paths as tells them apart."""
    whole = [path.resolve() for path in paths]
    shared = Path(os.path.commonpath([path.parent for path in whole]))
    last = [path.name for path in whole]
    return last if len(set(last)) == len(last) else [str(p.relative_to(shared)) for p in whole]


def _figures(runs: Mapping[str, Told]) -> tuple[list[tuple[str, Table]], list[Plot]]:
    """The newest figure of every kind, by dataset, splits and metric: tables and pictures."""
    found: dict[tuple[str, ...], dict[str, dict[tuple[str, str], float]]] = {}
    for name, told in runs.items():
        for record in map(completed, told.records):
            about = (record["dataset"], record["train_split"], record["test_split"])
            of_run = found.setdefault((*about, record["metric"]), {}).setdefault(name, {})
            of_run[_kind(record)] = record["value"]
    tables, plots = [], []
    for number, ((dataset, train, test, metric), values) in enumerate(found.items(), 1):
        kinds = list(dict.fromkeys(kind for of_run in values.values() for kind in of_run))
        kinds.sort(key=lambda kind: bool(kind[1]))  # what judges the encoder itself first
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
        plots.append(_bars(f"figures-{number}", title, table, list(runs)))
    return tables, plots


def _kind(record: Record) -> tuple[str, str]:
    """The protocol as it is called in the tables of several runs, and the baseline if it is one."""
    return name_of_classifier(record), record["protocol"].partition("/")[2]


def _percent(value: float | None) -> str:
    return _NONE if value is None else f"{100 * value:.1f}"


def _bars(name: str, title: str, table: Table, runs: Sequence[str]) -> Plot:
    figure = go.Figure()
    rows = [row for row in table.rows if not str(row[0]).startswith("probe:")]
    for i, run in enumerate(runs, 1):
        figure.add_bar(
            y=[plain(str(row[0])) for row in rows],
            x=[None if row[i] == _NONE else float(str(row[i])) for row in rows],
            name=plain(run),
            orientation="h",
            hovertemplate="%{y}: %{x:.1f} %",
        )
    figure.update_layout(
        xaxis={"title": "percent", "rangemode": "tozero"},
        yaxis={"autorange": "reversed", "automargin": True},
        legend=LEGEND,
        margin={"l": 8, "r": 12, "t": 40, "b": 40},
        height=140 + (12 * len(runs) + 14) * len(rows),
    )
    said = "; ".join(", ".join(map(str, row)) for row in rows)
    return Plot(name, title, f"Bars of {', '.join(runs)}: {said}.", figure, table)


def _differing(runs: Mapping[str, Told]) -> Table:
    """The settings in which the runs differ, beside the seed, and what they are."""
    all_settings = {name: settings_of(told.config, told.plan) for name, told in runs.items()}
    names = dict.fromkeys(setting for found in all_settings.values() for setting in found)
    rows = [
        (setting, *(str(found.get(setting, _NONE)) or _NONE for found in all_settings.values()))
        for setting in names
    ]
    return Table(("setting", *runs), [row for row in rows if len(set(row[1:])) > 1])


def _facts(runs: Mapping[str, Told]) -> Table:
    told = [dict(facts(run)) for run in runs.values()]
    # That of this report is the same for all.
    rows = [(what, *(of_run[what] for of_run in told)) for what in told[0] if what != "this report"]
    return Table(("", *runs), rows)
