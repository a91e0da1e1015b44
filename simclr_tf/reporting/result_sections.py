"""Report sections of results: the most important values, and accuracy per class."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from simclr_tf.embedding.embedded_dataset import escape_control_chars
from simclr_tf.embedding.nearest import nearest_others
from simclr_tf.errors import UserError
from simclr_tf.evaluation.knn import default_k, nearest_neighbors, weighted_votes
from simclr_tf.evaluation.metrics import confusion_matrix
from simclr_tf.evaluation.results import PER_CLASS_FILE, read_confusion, result_dir
from simclr_tf.reporting.embedded_split import EmbeddedSplit
from simclr_tf.reporting.html import Plot, Table, escape_for_plotly
from simclr_tf.reporting.plots import MISSING, bar_plot, parse_percent, without_probes
from simclr_tf.reporting.run_info import RunInfo
from simclr_tf.runs.metrics_log import ENCODER_PROBES, has_finite_value
from simclr_tf.runs.results_file import Record, ResultTable, group_into_tables, with_defaults

# The most informative metrics first.
_LATEST_METRICS = {
    "knn_top1": "k-NN during training",
    "linear_probe_top1": "linear probe during training",
    "validation_accuracy": "validation accuracy",
    "validation_agreement": "agreement with the teacher",
    "linear_accuracy": "linear head, training images",
    "accuracy": "accuracy, training images",
    "contrastive_accuracy": "contrastive accuracy",
    "loss": "loss",
}
_TEMPERATURE = 0.1
_MAX_MATRIX_CLASSES = 200
_MAX_CONFUSIONS = 20


def headline(info: RunInfo) -> dict[str, Any]:
    """Summarizes evaluations.json and the metrics of a run, newest first.

    Returns {"cards": (value, name, details) of the most important values, "plot": Plot of the
    newest results on the run's labeled data or None, "tables": (title, Table) of the others}.
    """
    tables = group_into_tables(info.records)[::-1]
    tables.sort(key=lambda table: table.dataset != info.labeled_data.dataset)
    cards: list[tuple[str, str, str]] = []
    plot = None
    shown = without_probes(_encoder_first(tables[0])) if tables else None
    if shown and shown.rows:
        plot = bar_plot("figures", tables[0].title, shown, tables[0].metric)
        cards = _best_result_card(tables[0], shown)
    for name, title in _LATEST_METRICS.items():
        row = next((row for row in info.rows[::-1] if has_finite_value(row, name)), None)
        if row:
            value = f"{row[name]:.3f}" if name == "loss" else f"{100 * row[name]:.1f} %"
            where = f"{info.probed}, " if name in ENCODER_PROBES else ""
            cards.append((value, title, f"{where}step {row['step']:,}"))
    # The plot includes a table of its values, which lacks nothing but probes.
    plot_is_complete = (
        plot is not None and shown is not None and len(shown.rows) == len(tables[0].rows) - 1
    )
    listed = [(t.title, Table(t.rows[0], t.rows[1:])) for t in tables[plot_is_complete:]]
    return {"cards": cards, "plot": plot, "tables": listed}


def _encoder_first(results: ResultTable) -> Table:
    header = results.rows[0]
    order = sorted(range(1, len(header)), key=lambda i: header[i] != "encoder")
    header, *rows = [[row[0], *(row[i] for i in order)] for row in results.rows]
    return Table(header, rows)


def _best_result_card(results: ResultTable, shown: Table) -> list[tuple[str, str, str]]:
    """Returns a card of the encoder's best result, next to the baselines of the same protocol."""
    if shown.header[1] != "encoder":
        return []
    best = max(shown.rows, key=lambda row: parse_percent(row[1]) or -1.0)
    if best[1] == MISSING:
        return []
    baselines = [
        f"{name} {value}"
        for name, value in zip(shown.header[2:], best[2:], strict=True)
        if value != MISSING
    ]
    context = f"{results.dataset}, step {results.step:,}"
    details = "; ".join([", ".join(baselines), context] if baselines else [context])
    return [(f"{best[1]} %", f"{best[0]}, {results.metric.removesuffix(' %')}", details)]


def class_report_from_evaluations(
    run: Path, records: Sequence[Record], step: int
) -> dict[str, Any] | None:
    """Reads the files of the encoder's best evaluation at a step; returns None without one.

    Returns {"source": the classifier and its data, "per_class": Table, "confusions": Table of the
    most frequent ones or None, "plot": confusion matrix or None}; there is no matrix for too many
    classes, or for images with multiple labels.
    """
    encoder_records = [
        record
        for record in map(with_defaults, records)
        if record["step"] == step
        and "/" not in record["protocol"]
        and not record["protocol"].startswith("probe:")
        and (result_dir(run, record) / PER_CLASS_FILE).exists()
    ]
    if not encoder_records:
        return None
    best = max(encoder_records, key=lambda record: record["value"])
    directory = result_dir(run, best)
    setting = f" ({best['setting']})" if best["setting"] else ""
    source = (
        f"{best['protocol']}{setting} of {best['dataset']}: trained on {best['num_train']:,} "
        f"images of {best['train_split']}, tested on {best['num_test']:,} of {best['test_split']}, "
        f"step {best['step']}: {best['metric']} {best['value']:.1%}"
    )
    if (confusion := read_confusion(directory)) is not None:
        matrix, names = confusion
        return _from_confusion_matrix(matrix, list(map(escape_control_chars, names)), source)
    try:
        with (directory / PER_CLASS_FILE).open(encoding="utf-8", newline="") as file:
            header, *rows = csv.reader(file)
    except (ValueError, OSError, csv.Error) as error:
        raise UserError(f"{directory} is damaged: {error}. Fix: evaluate the run again") from None
    per_class = Table(header, [[_class_name(row[0]), *row[1:]] for row in rows])
    return {"source": source, "per_class": per_class, "confusions": None, "plot": None}


def class_report_from_knn(bank: EmbeddedSplit, test: EmbeddedSplit | None) -> dict[str, Any] | None:
    """Classifies the images of `test`, or those of `bank` leave-one-out, by their neighbors.

    Returns None if images do not have exactly one label, or if there are too few; otherwise as
    `class_report_from_evaluations`.
    """
    names, queries = bank.class_names, test or bank
    if not names or queries.class_names != names:
        return None
    in_bank, has_label = bank.rows.labels >= 0, queries.rows.labels >= 0
    features, labels = bank.rows.features[in_bank], bank.rows.labels[in_bank]
    query_features, truth = queries.rows.features[has_label], queries.rows.labels[has_label]
    leave_one_out = test is None
    if len(features) <= leave_one_out or not len(query_features):
        return None
    k = min(default_k(labels), len(features) - leave_one_out)
    if leave_one_out:
        similarity, nearest = nearest_others(features, np.arange(len(features)), k)
    else:
        similarity, nearest = nearest_neighbors(features, query_features, k)
    votes = weighted_votes(similarity, labels[nearest], len(names), _TEMPERATURE)
    matrix = confusion_matrix(votes, truth, len(names))
    trained_on = "the others" if leave_one_out else f"{len(features):,} images of {bank.split}"
    source = (
        f"k-NN (k={k}, T={_TEMPERATURE:g}) of this report, because this step has no evaluation "
        f"with per-class results: {len(query_features):,} images of {queries.split}, classified "
        f"by {trained_on}: top-1 {matrix.trace() / matrix.sum():.1%}"
    )
    return _from_confusion_matrix(matrix, names, source)


def _from_confusion_matrix(matrix: np.ndarray, names: Sequence[str], source: str) -> dict[str, Any]:
    totals = matrix.sum(axis=1)
    fractions = matrix / np.maximum(totals, 1)[:, np.newaxis]
    wrong = np.where(np.eye(len(names), dtype=bool), 0, matrix)
    per_class = [
        (
            name,
            total,
            f"{fractions[i, i]:.1%}" if total else MISSING,
            f"{names[wrong[i].argmax()]} ({wrong[i].max() / total:.1%})"
            if wrong[i].any()
            else MISSING,
        )
        for i, (name, total) in enumerate(zip(names, totals.tolist(), strict=True))
    ]
    order = np.argsort(-wrong, axis=None, kind="stable")[:_MAX_CONFUSIONS]
    cells = [divmod(int(index), len(names)) for index in order if wrong.flat[index]]
    confused = [(names[a], names[b], int(wrong[a, b]), f"{fractions[a, b]:.1%}") for a, b in cells]
    table = Table(("class", "images", "accuracy", "most often classified as"), per_class)
    confusions = Table(("true class", "classified as", "images", "of the class"), confused)
    small = len(names) <= _MAX_MATRIX_CLASSES
    plot = _plot_matrix(fractions, names, table) if small else None
    return {"source": source, "per_class": table, "confusions": confusions, "plot": plot}


def _plot_matrix(fractions: np.ndarray, names: Sequence[str], table: Table) -> Plot:
    # Positions by number, because two names can be equal once they are escaped.
    labels = [escape_for_plotly(name) for name in names]
    ticks = {"tickvals": list(range(len(names))), "ticktext": labels}
    text = [[f"{100 * value:.0f}" if value >= 0.005 else "" for value in row] for row in fractions]
    annotate = len(names) <= 20
    figure = go.Figure(
        go.Heatmap(
            z=np.round(fractions, 4).tolist(),
            zmin=0,
            zmax=1,
            colorscale="Blues",
            text=text if annotate else None,
            texttemplate="%{text}" if annotate else None,
            hovertemplate="%{y} classified as %{x}: %{z:.1%}<extra></extra>",
            colorbar={"tickformat": ".0%", "thickness": 10, "title": None},
        )
    )
    figure.update_layout(
        xaxis={"title": "classified as", "tickangle": -60, **ticks},
        yaxis={"title": "true class", "autorange": "reversed", **ticks},
        margin={"l": 8, "r": 8, "t": 40, "b": 8},
        height=max(420, min(900, 200 + 30 * len(names))),
    )
    accuracy = np.diag(fractions)
    best, worst = int(accuracy.argmax()), int(accuracy.argmin())
    label = (
        f"Confusion matrix of {len(names)} classes, in percent of the true class. Most accurate: "
        f"{names[best]}, {accuracy[best]:.0%}; least: {names[worst]}, {accuracy[worst]:.0%}."
    )
    return Plot("confusion", "Confusion matrix, % of the true class", label, figure, table)


def _class_name(cell: str) -> str:
    """Returns a class name without the apostrophe that protects spreadsheets from formulas."""
    is_protected = len(cell) > 1 and cell[0] == "'" and cell[1] in "=+-@\t\r"
    return escape_control_chars(cell[1:] if is_protected else cell)
