"""Matplotlib figures that are drawn without a display."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> tuple[Figure, FigureCanvasAgg]:
    """Returns a figure of this size in inches, with the layout "constrained", and its canvas."""
    # Imported here, because a command that draws nothing should not wait for it.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, FigureCanvasAgg(figure)
