"""A table of figures in percent as bars."""

import plotly.graph_objects as go

from simclr_tf.reporting.html import LEGEND, Plot, Table, escape_for_plotly

NONE = "–"  # in a table, where there is no figure


def percent_of(cell: object) -> float | None:
    """Return the figure in a table's cell; None where there is none."""
    return None if cell == NONE else float(str(cell))


def judging(table: Table) -> Table:
    """Return a table without probes of transformations, which judge no encoder."""
    return Table(table.header, [row for row in table.rows if not str(row[0]).startswith("probe:")])


def bars(name: str, title: str, table: Table, axis: str) -> Plot:
    """Return a group of bars for every row, with one bar of each column that has figures."""
    figure = go.Figure()
    columns = [i for i in range(1, len(table.header)) if any(row[i] != NONE for row in table.rows)]
    for i in columns:
        figure.add_bar(
            y=[escape_for_plotly(str(row[0])) for row in table.rows],
            x=[percent_of(row[i]) for row in table.rows],
            name=escape_for_plotly(str(table.header[i])),
            orientation="h",
            hovertemplate="%{y}: %{x:.1f} %",
        )
    figure.update_layout(
        xaxis={"title": axis, "rangemode": "tozero"},
        yaxis={"autorange": "reversed", "automargin": True},
        legend=LEGEND,
        margin={"l": 8, "r": 12, "t": 40, "b": 40},
        height=140 + (12 * len(columns) + 14) * len(table.rows),
    )
    said = "; ".join(" ".join(map(str, row)) for row in table.rows)
    return Plot(
        name, title, f"Bars: {title}. {', '.join(map(str, table.header))}: {said}.", figure, table
    )
