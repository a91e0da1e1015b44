"""Self-contained HTML pages: Jinja templates, Plotly, tables and plots."""

import html
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import plotly.io
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from simclr_tf import __version__
from simclr_tf.errors import UserError
from simclr_tf.utils.files import atomic_write, format_bytes

# Top left of a figure, clear of its axes and of Plotly's buttons.
LEGEND = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}

_MAX_BYTES = 12_000_000


@dataclass(frozen=True)
class Table:
    """Rows under a header; the first cell of a row is its name."""

    header: Sequence[object]
    rows: Sequence[Sequence[object]]


class Plot:
    """A Plotly figure with its description for screen readers (`label`) and a table of its values.

    `name` is its ID in the page. Names in the figure must be escaped by `escape_for_plotly`.
    """

    def __init__(self, name: str, title: str, label: str, figure: go.Figure, table: Table):
        self.name, self.title, self.label, self.table = name, title, label, table
        # Plotly's own encoder supports arrays and writes NaN as null.
        drawing = json.loads(figure.to_json())
        drawing["layout"].pop("template", None)  # the page has a light and a dark one
        self.height = drawing["layout"].setdefault("height", 320)
        self.drawing = {"data": drawing["data"], "layout": drawing["layout"]}


def escape_for_plotly(name: str) -> str:
    """Escapes a name for Plotly, which interprets some HTML in texts."""
    return html.escape(name, quote=False)


def write_page(path: Path, template: str, size_hint: str, **content: Any) -> int:
    """Writes a page as one file that needs no network; returns its size in bytes.

    All values of `content` are escaped. An error about a page above 12 MB ends with `size_hint`.
    """
    environment = Environment(
        loader=PackageLoader("simclr_tf.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    files = resources.files("simclr_tf.reporting") / "templates"
    templates = {"light": "plotly_white", "dark": "plotly_dark"}
    text = environment.get_template(template).render(
        **content,
        version=__version__,
        # Only scripts with this nonce run: the page's own.
        nonce=secrets.token_urlsafe(),
        style=Markup((files / "report.css").read_text(encoding="utf-8")),
        script=Markup((files / "report.js").read_text(encoding="utf-8")),
        plotly=Markup(get_plotlyjs()),
        themes={
            scheme: plotly.io.templates[name].to_plotly_json() for scheme, name in templates.items()
        },
    )
    contents = text.encode(errors="backslashreplace")
    if len(contents) > _MAX_BYTES:
        raise UserError(
            f"the report takes {format_bytes(len(contents))}: expected at most "
            f"{format_bytes(_MAX_BYTES)}. Fix: {size_hint}"
        )
    atomic_write(path, contents)
    return len(contents)
