"""Features on their way to a file: in parts, so that what is cut short goes on from the last."""

import io
import time
from pathlib import Path

import numpy as np

from simclr_tf.utils.files import atomic_write

_PART_BYTES = 2**26
_PART_ROWS = 2**14
_PART_SECONDS = 60.0  # what a kill costs at most


class FeatureStore:
    """Rows of features and labels, in memory or in a directory.

    The directory holds part-START-features.npy and part-START-labels.npy while rows are added, and
    in the end features.npy and labels.npy, which are read memory-mapped. A part that is there in
    full is not asked for again; one that was cut short is.

    Args:
        directory: where the rows are kept; None: in memory.
        num_rows: N, how many there will be.
    """

    def __init__(self, directory: Path | None, num_rows: int):
        self._directory, self._num_rows = directory, num_rows
        self._pending: list[tuple[np.ndarray, np.ndarray]] = []
        self._starts: list[int] = []
        self.count = 0  # rows so far
        if directory is not None and not self.complete:
            while (rows := self._part(self.count)) is not None:
                self._starts.append(self.count)
                self.count += len(rows[1])
        self._kept, self._kept_at = self.count, time.monotonic()

    @property
    def complete(self) -> bool:
        """Whether all rows are there already."""
        return self._directory is not None and self._final("labels").exists()

    def add(self, features: np.ndarray, labels: np.ndarray) -> None:
        """Add the next rows: float32 [n, D] and int64 [n] or [n, C]."""
        self._pending.append((features, labels))
        self.count += len(features)
        pending = self.count - self._kept
        full = pending >= _PART_ROWS or pending * features[0].nbytes >= _PART_BYTES
        full = full or time.monotonic() - self._kept_at > _PART_SECONDS
        if self._directory is not None and full:
            self._keep()

    def finish(self) -> None:
        """Put the parts together, once all rows are there."""
        if self._directory is None:
            return
        self._keep()
        for kind in ("features", "labels"):  # the labels last: they say that all is there
            final = self._final(kind)
            unfinished = final.with_suffix(".incomplete")
            first = _read(self._name(kind, 0))
            whole = np.lib.format.open_memmap(
                unfinished, "w+", first.dtype, (self._num_rows, *first.shape[1:])
            )
            for start in self._starts:
                part = _read(self._name(kind, start))
                whole[start : start + len(part)] = part
            whole.flush()
            del whole
            unfinished.replace(final)
        for start in self._starts:
            for kind in ("features", "labels"):
                self._name(kind, start).unlink()

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (features [N, D], labels [N] or [N, C]), once all rows are there."""
        if self._directory is None:
            features, labels = zip(*self._pending, strict=True)
            return np.concatenate(features), np.concatenate(labels)
        return _read(self._final("features")), np.array(_read(self._final("labels")))

    def _keep(self) -> None:
        if not self._pending:
            return
        features, labels = zip(*self._pending, strict=True)
        for kind, rows in (("features", features), ("labels", labels)):
            atomic_write(self._name(kind, self._kept), _npy(np.concatenate(rows)))
        self._starts.append(self._kept)
        self._kept, self._pending, self._kept_at = self.count, [], time.monotonic()

    def _part(self, start: int) -> tuple[np.ndarray, np.ndarray] | None:
        if not all(self._name(kind, start).exists() for kind in ("features", "labels")):
            return None
        try:
            features, labels = (_read(self._name(kind, start)) for kind in ("features", "labels"))
        except (ValueError, EOFError):  # damaged: made again
            return None
        return (features, labels) if len(features) == len(labels) else None

    def _name(self, kind: str, start: int) -> Path:
        assert self._directory is not None
        return self._directory / f"part-{start:09}-{kind}.npy"

    def _final(self, kind: str) -> Path:
        assert self._directory is not None
        return self._directory / f"{kind}.npy"


def _npy(rows: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, rows, allow_pickle=False)
    return file.getvalue()


def _read(path: Path) -> np.ndarray:
    return np.load(path, mmap_mode="r", allow_pickle=False)
