"""Where exports go: nothing is overwritten unasked, and the newest steps are kept."""

import re
from pathlib import Path

from simclr_tf.errors import UserError
from simclr_tf.utils.files import remove


def check_free(output: str | Path, overwrite: bool = False) -> None:
    """Raises UserError if `output` is there and `overwrite` is not set."""
    if Path(output).exists() and not overwrite:
        raise UserError(f"--output={output} is there already; remove it or name another place")


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
