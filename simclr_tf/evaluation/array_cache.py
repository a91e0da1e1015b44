"""Arrays that took long to compute, kept in a file under a name that says of what they are."""

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from simclr_tf.utils.files import atomic_write

Arrays = Mapping[str, np.ndarray]


def kept(path: Path | None, compute: Callable[[], Arrays]) -> Arrays:
    """Return what an earlier call with this path computed, or else compute and keep it.

    Args:
        path: an .npz file, named by the content of all that the arrays depend on; None: nothing is
            kept. A damaged one is made again.
        compute: returns arrays of numbers or strings, by name.
    """
    if path is not None and path.exists():
        try:
            with np.load(path, allow_pickle=False) as found:
                return dict(found)
        except (ValueError, EOFError, zipfile.BadZipFile):
            pass
    arrays = {name: np.asarray(value) for name, value in compute().items()}
    if path is not None:
        file = io.BytesIO()
        # Told not to pickle, NumPy before 2.2 would keep `allow_pickle` as one more array.
        np.savez(file, **arrays)  # type: ignore[arg-type]
        atomic_write(path, file.getvalue())
    return arrays
