"""Tables as aligned text or Markdown."""

from collections.abc import Iterable, Sequence

from tabulate import tabulate

_ALIGNMENTS = {"l": "left", "r": "right"}


def format_table(
    rows: Iterable[Sequence[object]],
    headers: Sequence[object],
    *,
    markdown: bool = False,
    align: str | None = None,
) -> str:
    """Formats a table as text or GitHub Markdown, without a final line break.

    `align` has a letter per column, "l" or "r"; by default only the first is left-aligned.
    """
    align = align or "l" + "r" * (len(headers) - 1)
    cells = [[_to_cell(value, markdown) for value in row] for row in (headers, *rows)]
    return tabulate(
        cells[1:],
        cells[0],
        tablefmt="pipe" if markdown else "plain",
        disable_numparse=True,
        colalign=[_ALIGNMENTS[letter] for letter in align],
    )


def _to_cell(value: object, markdown: bool) -> str:
    text = " ".join(str(value).splitlines()) or ""
    return text.replace("|", "\\|") if markdown else text
