"""Where exports go: written beside and moved into place, the newest steps kept."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from simclr_tf.errors import UserError


@contextlib.contextmanager
def in_place(output: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Gives a place beside `output` to write a file or directory to, and then moves it there.

    Where writing fails or is cut, what was there stays.

    Raises:
        UserError: `output` is there and `overwrite` is not set.
    """
    output = Path(output)
    if output.exists() and not overwrite:
        raise UserError(f"--output={output} is there already; remove it or name another place")
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = output.with_name(f".incomplete.{output.name}")
    discarded = output.with_name(f".replaced.{output.name}")
    for leftover in (scratch, discarded):  # of an export that was killed
        remove(leftover)
    yield scratch
    if output.is_dir():  # cannot be replaced while it holds anything
        os.replace(output, discarded)
    os.replace(scratch, output)
    remove(discarded)


def remove(path: Path) -> None:
    """Removes a file or a directory, where there is one."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_older(export_dir: Path, step: int, keep: int) -> None:
    """Keeps what was exported of `step` and of the newest others, `keep` steps in all.

    Args:
        export_dir: holds STEP, STEP.tflite, STEP-float16 and their like.
        step: stays, even where others are newer.
        keep: 0 or less keeps all.
    """
    exported: dict[int, list[Path]] = {}
    for path in export_dir.iterdir():
        if named := re.match(r"(\d+)(?![^-.])", path.name):
            exported.setdefault(int(named[1]), []).append(path)
    older = sorted(set(exported) - {step})
    for outdated in older[: max(0, len(exported) - keep)] if keep > 0 else []:
        for path in exported[outdated]:
            remove(path)
