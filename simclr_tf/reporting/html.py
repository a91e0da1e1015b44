"""The file: templates filled in, with the drawing library, the figures and all else inside."""

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

# Above a figure's left, where neither its axes nor the buttons of Plotly are.
LEGEND = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}

_MOST_BYTES = 12_000_000


@dataclass(frozen=True)
class Table:
    """EmbeddedDataset under a header; the first cell of a row is what the row is of."""

    header: Sequence[object]
    rows: Sequence[Sequence[object]]


class Plot:
    """A figure that the browser draws, and what stands for it where it is not seen.

    Args:
        name: its id in the page.
        title: its heading.
        label: what a screen reader says of it.
        figure: of Plotly, in whose texts names are `escape_for_plotly`.
        table: the same in numbers.
    """

    def __init__(self, name: str, title: str, label: str, figure: go.Figure, table: Table):
        self.name, self.title, self.label, self.table = name, title, label, table
        # By way of Plotly's own encoder, which knows arrays and has null for NaN.
        drawing = json.loads(figure.to_json())
        drawing["layout"].pop("template", None)  # the page has one for light and one for dark
        self.height = drawing["layout"].setdefault("height", 320)
        self.drawing = {"data": drawing["data"], "layout": drawing["layout"]}


def escape_for_plotly(name: str) -> str:
    """Return a name as Plotly shows it to the letter: it takes some HTML in texts for its own."""
    for letter, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        name = name.replace(letter, entity)
    return name


def as_table(rows: Sequence[Sequence[object]]) -> Table:
    """Return rows, of which the first is the header, as a table."""
    return Table(rows[0], rows[1:])


def write_page(path: Path, template: str, remedy: str, **content: Any) -> int:
    """Write a page in one file that asks nothing of a network; returns its size in bytes.

    Args:
        path: the file.
        template: one of the package's templates.
        remedy: what makes it smaller, for the user.
        content: what it shows; everything is escaped.

    Raises:
        UserError: it cannot be written, or is larger than 12 MB.
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
        # Scripts of this page's own bear it; whatever else were to look like one does not run.
        nonce=secrets.token_urlsafe(),
        style=Markup((files / "report.css").read_text(encoding="utf-8")),
        script=Markup((files / "report.js").read_text(encoding="utf-8")),
        plotly=Markup(get_plotlyjs()),
        themes={
            scheme: plotly.io.templates[name].to_plotly_json() for scheme, name in templates.items()
        },
    )
    contents = text.encode(errors="backslashreplace")
    if len(contents) > _MOST_BYTES:
        raise UserError(
            f"the report takes {format_bytes(len(contents))}, more than the 12 MB that go into one "
            f"file; {remedy}"
        )
    try:
        atomic_write(path, contents)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror}; make that place free, or name another "
            "--output"
        ) from None
    return len(contents)
