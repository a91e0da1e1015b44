"""Comparison of runs as one HTML page."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from simclr_tf.errors import UserError
from simclr_tf.evaluation.run_table import classifier_label
from simclr_tf.reporting.html import Plot, Table, write_page
from simclr_tf.reporting.plots import MISSING, bar_plot, plot_runs_curves, without_probes
from simclr_tf.reporting.run_info import RunInfo, load_run_info, summary_rows
from simclr_tf.runs.results_file import Record, with_defaults
from simclr_tf.runs.run_dir import RunDir, identity_settings
from simclr_tf.utils.files import check_output_path, format_bytes
from simclr_tf.utils.paths import user_path

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

    Example:
    >>> from simclr_tf.reporting import report_runs
    >>> path = report_runs(["runs/a", "runs/b"], "comparison.html")  # doctest: +SKIP
    """
    paths = [user_path(path) for path in model_dirs]
    if len({path.resolve() for path in paths}) < len(paths):
        raise UserError("--runs: expected different runs, got one of them twice")
    output = user_path(output)
    check_output_path(output, "output", is_file=True)
    infos = [load_run_info(RunDir(path)) for path in paths]
    runs = dict(zip(_short_names(paths), infos, strict=True))
    tables, plots = result_tables(runs)
    size = write_page(
        output,
        "comparison.html",
        name=f"{len(runs)} runs",
        notes=[f"{name}: {note}" for name, info in runs.items() for note in info.notes],
        tables=tables,
        plots=plots,
        curves=plot_runs_curves(
            {name: info.rows for name, info in runs.items()},
            {name: info.probed for name, info in runs.items()},
        ),
        differing=_differing_settings(runs),
        summary_rows=_summary_table(runs),
        commands={name: info.command for name, info in runs.items()},
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
    groups: dict[tuple[str, ...], list[tuple[str, Record]]] = {}
    for name, info in runs.items():
        for record in map(with_defaults, info.records):
            key = tuple(
                record[field] for field in ("dataset", "train_split", "test_split", "metric")
            )
            groups.setdefault(key, []).append((name, record))
    tables, plots = [], []
    for number, ((dataset, train, test, metric), members) in enumerate(groups.items(), 1):
        max_labels = max(record["num_train"] for _, record in members)
        cells: dict[tuple[str, ...], dict[str, str]] = {}
        for name, record in members:
            row = cells.setdefault(_row_key(record, max_labels), {})
            row[name] = f"{100 * record['value']:.1f}"
        rows = [
            (", ".join(filter(None, key)), *(cells[key].get(name, MISSING) for name in runs))
            for key in sorted(cells, key=lambda key: bool(key[-1]))  # baselines last
        ]
        title = f"{dataset}: trained on {train}, tested on {test}, {metric} in percent"
        table = Table(("", *runs), rows)
        tables.append((title, table))
        plots.append(bar_plot(f"figures-{number}", title, without_probes(table), "percent"))
    return tables, plots


def _row_key(record: Record, max_labels: int) -> tuple[str, ...]:
    """Returns the classifier, the number of labels if reduced, and the baseline."""
    labels = f"{record['num_train']:,} labels" if record["num_train"] < max_labels else ""
    return classifier_label(record), labels, record["protocol"].partition("/")[2]


def _differing_settings(runs: Mapping[str, RunInfo]) -> Table:
    settings = [identity_settings(info.config, info.plan) for info in runs.values()]
    rows = [
        (name, *(str(found.get(name, MISSING)) or MISSING for found in settings))
        for name in dict.fromkeys(name for found in settings for name in found)
    ]
    return Table(("setting", *runs), [row for row in rows if len(set(row[1:])) > 1])


def _summary_table(runs: Mapping[str, RunInfo]) -> Table:
    summaries = [dict(summary_rows(info)) for info in runs.values()]
    # The software and machine of this report are the same for all.
    names = [name for name in summaries[0] if name != "this report"]
    return Table(("", *runs), [(name, *(s[name] for s in summaries)) for name in names])
