"""The first things to know of a run: its figures, the baselines' beside them."""

from dataclasses import dataclass

from simclr_tf.reporting.bars import NONE, bars, judging, percent_of
from simclr_tf.reporting.html import Plot, Table, as_table
from simclr_tf.reporting.run_info import RunInfo
from simclr_tf.runs.metrics_log import has_finite_value
from simclr_tf.runs.results_file import ResultTable as Figures
from simclr_tf.runs.results_file import group_into_tables

# Of the metrics, what says most, in this order.
_LAST = {
    "knn_top1": "k-NN while training",
    "linear_probe_top1": "linear probe while training",
    "validation_accuracy": "validation accuracy",
    "validation_agreement": "agreement with the teacher",
    "linear_accuracy": "linear head, training images",
    "accuracy": "accuracy, training images",
    "contrastive_accuracy": "contrastive accuracy",
    "loss": "loss",
}


@dataclass(frozen=True)
class Card:
    """A number in large letters, and what it is."""

    value: str
    what: str
    beside: str = ""


@dataclass(frozen=True)
class Headline:
    """Cards; a picture of the newest evaluations on the run's own data; the others in tables."""

    cards: list[Card]
    plot: Plot | None
    tables: list[tuple[str, Table]]


def headline(info: RunInfo) -> Headline:
    """Return what a run's evaluations.json and its rows of metrics say, the newest first."""
    found = group_into_tables(info.records)[::-1]
    found.sort(key=lambda table: table.dataset != info.config.data.dataset)
    cards, plot = [], None
    judged = judging(_encoder_first(found[0])) if found else None
    if judged and judged.rows:
        plot = bars("figures", found[0].title, judged, found[0].metric)
        cards = _best(found[0], judged)
    for name, what in _LAST.items():
        row = next((row for row in info.rows[::-1] if has_finite_value(row, name)), None)
        if row:
            value = f"{row[name]:.3f}" if name == "loss" else f"{100 * row[name]:.1f} %"
            cards.append(Card(value, what, f"step {row['step']:,}"))
    # The first stands with its picture, which has all of it but for probes.
    whole = plot is not None and judged is not None and len(judged.rows) == len(found[0].rows) - 1
    listed = [(table.title, as_table(table.rows)) for table in found[whole:]]
    return Headline(cards, plot, listed)


def _encoder_first(figures: Figures) -> Table:
    header = figures.rows[0]
    order = sorted(range(1, len(header)), key=lambda i: header[i] != "encoder")
    return as_table([[row[0], *(row[i] for i in order)] for row in figures.rows])


def _best(figures: Figures, judged: Table) -> list[Card]:
    """The encoder's best figure, with the baselines of the same protocol; none of baselines."""
    if judged.header[1] != "encoder":
        return []
    best = max(judged.rows, key=lambda row: percent_of(row[1]) or -1.0)
    if best[1] == NONE:
        return []
    beside = [
        f"{name} {value}"
        for name, value in zip(judged.header[2:], best[2:], strict=True)
        if value != NONE
    ]
    about = f"{figures.dataset}, step {figures.step:,}"
    metric = figures.metric.removesuffix(" %")
    return [
        Card(
            f"{best[1]} %",
            f"{best[0]}, {metric}",
            "; ".join([", ".join(beside), about] if beside else [about]),
        )
    ]
