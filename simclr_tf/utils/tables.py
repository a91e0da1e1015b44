"""Tables as aligned text or Markdown."""

from collections.abc import Iterable, Sequence

from tabulate import tabulate

_ALIGNMENTS = {"l": "left", "r": "right", "c": "center"}


def format_table(
    rows: Iterable[Sequence[object]],
    headers: Sequence[object],
    *,
    markdown: bool = False,
    align: str | None = None,
) -> str:
    r"""Formats a table; cells are shown as `str` makes them.

    >>> from simclr_tf.utils.tables import format_table
    >>> print(format_table([["knn", 93.1], ["linear", 8.25]], ["top-1 %", "encoder"]))
    top-1 %    encoder
    knn           93.1
    linear        8.25

    Args:
        rows: as many cells each as there are headers.
        headers: column titles.
        markdown: format as a GitHub Markdown table.
        align: a letter per column, "l", "r" or "c". Default: first column left, others right.

    Returns:
        The table without a final line break.
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
