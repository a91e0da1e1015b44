"""Comparison of runs as one HTML page."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from simclr_tf.errors import UserError
from simclr_tf.evaluation.run_table import classifier_label
from simclr_tf.reporting.html import Plot, Table, write_page
from simclr_tf.reporting.plots import MISSING, bar_plot, plot_runs_curves, without_probes
from simclr_tf.reporting.run_info import RunInfo, load_run_info, recorded_command, summary_rows
from simclr_tf.runs.results_file import Record, with_defaults
from simclr_tf.runs.run_dir import RunDir, identity_settings
from simclr_tf.utils.files import check_output_path, format_bytes

logger = logging.getLogger(__name__)


def report_runs(model_dirs: Sequence[str | Path], output: str | Path) -> Path:
    """Writes a comparison of runs as one HTML file, without loading models or images.

    Args:
        model_dirs: two or more run directories.
        output: the file to write.

    Returns:
        The file.

    Raises:
        UserError: a directory is not a run or is repeated, a file is damaged, or the report cannot
            be written.
    """
    paths = [Path(path) for path in model_dirs]
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("--runs: expected different runs, got one of them twice")
    output = Path(output)
    check_output_path(output, "output", is_file=True)
    runs = dict(
        zip(_short_names(paths), (load_run_info(RunDir(path)) for path in paths), strict=True)
    )
    tables, plots = result_tables(runs)
    size = write_page(
        output,
        "comparison.html",
        name=f"{len(runs)} runs",
        notes=[f"{name}: {note}" for name, info in runs.items() for note in info.notes],
        tables=tables,
        plots=plots,
        curves=plot_runs_curves({name: info.rows for name, info in runs.items()}),
        differing=_differing_settings(runs),
        summary_rows=_summary_table(runs),
        commands={name: recorded_command(info) for name, info in runs.items()},
        size_hint="compare fewer runs",
    )
    logger.info(f"report of {len(runs)} runs: {output} ({format_bytes(size)})")
    return output


def _short_names(paths: Sequence[Path]) -> list[str]:
    """Returns the directory names, or longer parts of the paths if names repeat."""
    whole = [path.resolve() for path in paths]
    shared = Path(os.path.commonpath([path.parent for path in whole]))
    last = [path.name for path in whole]
    return last if len(set(last)) == len(last) else [str(p.relative_to(shared)) for p in whole]


def result_tables(runs: Mapping[str, RunInfo]) -> tuple[list[tuple[str, Table]], list[Plot]]:
    """Returns tables and plots of the newest results, by dataset, splits and metric."""
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
            values.setdefault(name, {})[_result_key(record, most)] = record["value"]
        kinds = list(dict.fromkeys(kind for of_run in values.values() for kind in of_run))
        kinds.sort(key=lambda kind: bool(kind[-1]))  # the encoder itself before baselines
        title = f"{dataset}: trained on {train}, tested on {test}, {metric} in percent"
        rows = [
            (
                ", ".join(filter(None, kind)),
                *(_percent(values.get(name, {}).get(kind)) for name in runs),
            )
            for kind in kinds
        ]
        table = Table(("", *runs), rows)
        tables.append((title, table))
        plots.append(bar_plot(f"figures-{number}", title, without_probes(table), "percent"))
    return tables, plots


def _result_key(record: Record, most: int) -> tuple[str, ...]:
    """Returns the classifier, the number of labels if reduced, and the baseline."""
    labels = f"{record['num_train']:,} labels" if record["num_train"] < most else ""
    return classifier_label(record), labels, record["protocol"].partition("/")[2]


def _percent(value: float | None) -> str:
    return MISSING if value is None else f"{100 * value:.1f}"


def _differing_settings(runs: Mapping[str, RunInfo]) -> Table:
    """Returns a table of the settings that differ between the runs."""
    all_settings = {name: identity_settings(info.config, info.plan) for name, info in runs.items()}
    names = dict.fromkeys(setting for found in all_settings.values() for setting in found)
    rows = [
        (setting, *(str(found.get(setting, MISSING)) or MISSING for found in all_settings.values()))
        for setting in names
    ]
    return Table(("setting", *runs), [row for row in rows if len(set(row[1:])) > 1])


def _summary_table(runs: Mapping[str, RunInfo]) -> Table:
    info = [dict(summary_rows(run)) for run in runs.values()]
    # The software and machine of this report are the same for all.
    rows = [(what, *(of_run[what] for of_run in info)) for what in info[0] if what != "this report"]
    return Table(("", *runs), rows)
