"""The first things to know of a run: its figures, the baselines' beside them."""

from dataclasses import dataclass

import plotly.graph_objects as go

from simclr_tf.evaluations import Table as Figures
from simclr_tf.evaluations import tables
from simclr_tf.report.about import Told
from simclr_tf.report.page import LEGEND, Plot, Table, as_table, plain

# Of the last row of metrics, what says most, in this order.
_LAST = {
    "knn_top1": "k-NN while training",
    "linear_probe_top1": "linear probe while training",
    "validation_accuracy": "validation accuracy",
    "validation_agreement": "agreement with the teacher",
    "linear_accuracy": "linear head, training images",
    "accuracy": "accuracy, training images",
    "contrastive_accuracy": "contrastive accuracy",
}


@dataclass(frozen=True)
class Card:
    """A number in large letters, and what it is."""

    value: str
    what: str
    beside: str = ""


@dataclass(frozen=True)
class Headline:
    """Cards, a picture of the newest evaluations, and the others in tables, newest first."""

    cards: list[Card]
    plot: Plot | None
    tables: list[tuple[str, Table]]


def headline(told: Told) -> Headline:
    """Return what a run's evaluations.json and its last row of metrics say."""
    found = tables(told.records)[::-1]
    cards = [_best(found[0])] if found else []
    last = told.rows[-1] if told.rows else {}
    for name, what in _LAST.items():
        if last.get(name) is not None:
            cards.append(Card(f"{100 * last[name]:.1f} %", what, f"step {last['step']:,}"))
    if "loss" in last:
        cards.append(Card(f"{last['loss']:.3f}", "loss", f"step {last['step']:,}"))
    plot = _plot(found[0]) if found else None
    # The newest stands with its picture.
    listed = [(table.title, as_table(table.rows)) for table in found[bool(plot) :]]
    return Headline(cards, plot, listed)


def _judging(table: Figures) -> list[list[str]]:
    """Its rows but for probes of transformations, which judge no encoder."""
    return [row for row in table.rows[1:] if not row[0].startswith("probe:")]


def _best(table: Figures) -> Card:
    """The encoder's best figure, with the baselines of the same protocol."""
    metric, *columns = table.rows[0]
    rows = _judging(table) or table.rows[1:]
    column = 1 + columns.index("encoder") if "encoder" in columns else 1
    best = max(rows, key=lambda row: _number(row[column]) or 0.0)
    beside = [
        f"{name} {value}"
        for i, (name, value) in enumerate(zip(columns, best[1:], strict=True), 1)
        if i != column and value != "–"
    ]
    return Card(f"{best[column]} %", f"{best[0]}, {metric.removesuffix(' %')}", ", ".join(beside))


def _number(cell: str) -> float | None:
    return None if cell == "–" else float(cell)


def _plot(table: Figures) -> Plot | None:
    rows = _judging(table)
    if not rows:
        return None
    figure = go.Figure()
    names = [plain(row[0]) for row in rows]
    columns = [i for i in range(1, len(rows[0])) if any(row[i] != "–" for row in rows)]
    # The encoder first: its bars stand out, whichever was evaluated first.
    columns.sort(key=lambda i: table.rows[0][i] != "encoder")
    for i in columns:
        column = table.rows[0][i]
        figure.add_bar(
            y=names,
            x=[_number(row[i]) for row in rows],
            name=plain(column),
            orientation="h",
            hovertemplate="%{y}: %{x:.1f} %",
        )
    figure.update_layout(
        xaxis={"title": table.rows[0][0], "rangemode": "tozero"},
        yaxis={"autorange": "reversed", "automargin": True},
        legend=LEGEND,
        margin={"l": 8, "r": 12, "t": 40, "b": 40},
        height=140 + (12 * len(columns) + 14) * len(rows),
    )
    said = "; ".join(" ".join(row) for row in rows)
    label = f"Bars: {table.title}. {', '.join(table.rows[0])}: {said}."
    return Plot("figures", table.title, label, figure, as_table(table.rows))
