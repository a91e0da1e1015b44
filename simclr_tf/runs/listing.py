"""Runs as lines for the terminal."""

from collections.abc import Sequence

from simclr_tf.runs.summary import Probe, Summary
from simclr_tf.utils.files import format_bytes

_HEADER = ("run", "state", "step", "of", "%", "best probe", "at step", "size")


def table(summaries: Sequence[Summary]) -> str:
    """Returns a line for each run, and below them why some have ended early."""
    rows = [_HEADER, *map(_cells, summaries)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER))]
    numbers = {"step", "of", "%", "at step", "size"}
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if name in numbers else cell.ljust(width)
            for name, cell, width in zip(_HEADER, row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    reasons = [f"{s.path}: {s.state}: {s.reason}" for s in summaries if is_told(s)]
    return "\n".join([*lines, *([""] if reasons else []), *reasons])


def is_told(summary: Summary) -> bool:
    """Whether there is more to say than the state's name."""
    return bool(summary.reason) and (summary.state != "running" or not summary.certain)


def _cells(summary: Summary) -> tuple[str, ...]:
    probe = summary.best_probe
    steps = ("–", "–", "–")
    if summary.total_steps:
        share = f"{100 * summary.step // summary.total_steps}"
        steps = (str(summary.step), str(summary.total_steps), share)
    return (
        summary.path,
        summary.state + ("" if summary.certain else "?"),
        *steps,
        shown(probe) if probe else "–",
        str(probe.step) if probe else "",
        format_bytes(summary.size),
    )


def shown(probe: Probe) -> str:
    """Returns a probe in percent."""
    return f"{probe.name} {100 * probe.value:.1f}"
