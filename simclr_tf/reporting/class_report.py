"""Which classes the encoder tells apart: from the run's evaluations, or by k-NN as of now."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from simclr_tf.embedding.embedded_dataset import escape_control_chars
from simclr_tf.errors import UserError
from simclr_tf.evaluation.knn import nearest_neighbors, weighted_votes
from simclr_tf.evaluation.metrics import confusion_matrix
from simclr_tf.evaluation.results import PER_CLASS_FILE, read_confusion, result_dir
from simclr_tf.reporting.embedded_split import EmbeddedSplit
from simclr_tf.reporting.html import Plot, Table, escape_for_plotly
from simclr_tf.reporting.nearest_neighbors import drop_self
from simclr_tf.runs.results_file import Record, with_defaults

_K, _TEMPERATURE = 200, 0.1
_MOST_CLASSES = 200  # of which a matrix is drawn
_CONFUSIONS = 20


@dataclass(frozen=True)
class ClassReport:
    """How well each class is found.

    Attributes:
        source: what judged them, in words, on how many images.
        per_class: a row for each class.
        confusions: the pairs that are most often confused.
        plot: the matrix; None where there are too many classes, or images of several.
    """

    source: str
    per_class: Table
    confusions: Table | None = None
    plot: Plot | None = None


def class_report_from_evaluations(
    run: Path, records: Sequence[Record], step: int
) -> ClassReport | None:
    """Return what the best evaluation of the encoder at a step left; None without one.

    Raises:
        UserError: its files are damaged.
    """
    own = [
        record
        for record in map(with_defaults, records)
        if record["step"] == step
        and "/" not in record["protocol"]
        and not record["protocol"].startswith("probe:")
    ]
    own = [record for record in own if (result_dir(run, record) / PER_CLASS_FILE).exists()]
    if not own:
        return None
    best = max(own, key=lambda record: record["value"])
    place = result_dir(run, best)
    setting = f" ({best['setting']})" if best["setting"] else ""
    source = (
        f"{best['protocol']}{setting} of {best['dataset']}: learnt from {best['num_train']:,} "
        f"images of {best['train_split']}, judged on {best['num_test']:,} of {best['test_split']}, "
        f"step {best['step']}: {best['metric']} {best['value']:.1%}"
    )
    if (confusion := read_confusion(place)) is not None:
        return _of_matrix(*confusion, source)
    try:
        header, *rows = _read(place / PER_CLASS_FILE)
    except (ValueError, OSError, csv.Error) as error:
        raise UserError(f"{place} is damaged: {error}; evaluate the run again") from None
    return ClassReport(source, Table(header, [[_name(row[0]), *row[1:]] for row in rows]))


def class_report_from_knn(bank: EmbeddedSplit, judged: EmbeddedSplit | None) -> ClassReport | None:
    """Return what the neighbours in `bank` say of `judged`, or of each other where that is None.

    None where not every image has one class, or there are none to learn from.
    """
    names, asked = bank.class_names, judged or bank
    if not names or asked.class_names != names:
        return None
    known, wanted = bank.rows.labels >= 0, asked.rows.labels >= 0
    features, labels = bank.rows.features[known], bank.rows.labels[known]
    queries, truth = asked.rows.features[wanted], asked.rows.labels[wanted]
    alone = judged is None
    if len(features) <= alone or not len(queries):
        return None
    k = min(_K, len(features) - alone)
    similarity, rows = nearest_neighbors(features, queries, k + alone)
    if alone:
        similarity, rows = drop_self(similarity, rows, np.arange(len(rows)))
    matrix = confusion_matrix(
        weighted_votes(similarity, labels[rows], len(names), _TEMPERATURE), truth, len(names)
    )
    of = "each other, " if alone else f"{len(features):,} images of {bank.split}, "
    share = matrix.trace() / matrix.sum()
    source = (
        f"k-NN (k={k}, T={_TEMPERATURE:g}) of this report: {len(queries):,} images of "
        f"{asked.split} judged by {of}as no evaluation of this step has left its own: "
        f"top-1 {share:.1%}"
    )
    return _of_matrix(matrix, names, source)


def _of_matrix(matrix: np.ndarray, names: Sequence[str], source: str) -> ClassReport:
    totals = matrix.sum(axis=1)
    shares = matrix / np.maximum(totals, 1)[:, np.newaxis]
    wrong = np.where(np.eye(len(names), dtype=bool), 0, matrix)
    per_class = [
        (
            name,
            total,
            f"{shares[i, i]:.1%}" if total else "–",
            f"{names[wrong[i].argmax()]} ({wrong[i].max() / total:.1%})" if wrong[i].any() else "–",
        )
        for i, (name, total) in enumerate(zip(names, totals.tolist(), strict=True))
    ]
    order = np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS]
    places = [divmod(int(place), len(names)) for place in order if wrong.flat[place]]
    confused = [(names[a], names[b], int(wrong[a, b]), f"{shares[a, b]:.1%}") for a, b in places]
    table = Table(("class", "images", "found", "most often taken for"), per_class)
    confusions = Table(("true class", "taken for", "images", "share of the class"), confused)
    drawn = _plot(shares, names, table) if len(names) <= _MOST_CLASSES else None
    return ClassReport(source, table, confusions, drawn)


def _plot(shares: np.ndarray, names: Sequence[str], table: Table) -> Plot:
    # By numbers, since two names may be the same once they are lines.
    ticks = {
        "tickvals": list(range(len(names))),
        "ticktext": [escape_for_plotly(name) for name in names],
    }
    text = [[f"{100 * value:.0f}" if value >= 0.005 else "" for value in row] for row in shares]
    few = len(names) <= 20
    figure = go.Figure(
        go.Heatmap(
            z=np.round(shares, 4).tolist(),
            zmin=0,
            zmax=1,
            colorscale="Blues",
            text=text if few else None,
            texttemplate="%{text}" if few else None,
            hovertemplate="%{y} taken for %{x}: %{z:.1%}<extra></extra>",
            colorbar={"tickformat": ".0%", "thickness": 10, "title": None},
        )
    )
    figure.update_layout(
        xaxis={"title": "taken for", "tickangle": -60, **ticks},
        yaxis={"title": "true class", "autorange": "reversed", **ticks},
        margin={"l": 8, "r": 8, "t": 40, "b": 8},
        height=max(420, min(900, 200 + 30 * len(names))),
    )
    found = np.diag(shares)
    best, least = int(found.argmax()), int(found.argmin())
    label = (
        f"Confusion matrix of {len(names)} classes, in percent of the true class. Found best: "
        f"{names[best]}, {found[best]:.0%}; least: {names[least]}, {found[least]:.0%}."
    )
    return Plot("confusion", "Confusion matrix, % of the true class", label, figure, table)


def _read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def _name(cell: str) -> str:
    """A class's name: our tables have an apostrophe before what looks like a formula."""
    formula = len(cell) > 1 and cell[0] == "'" and cell[1] in "=+-@\t\r"
    return escape_control_chars(cell[1:] if formula else cell)
