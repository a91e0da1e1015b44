"""An embedded set: its features, and what the image behind each row is called."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from simclr_tf.data import ImageSource

_BLOCK_BYTES = 2**26
_BLOCK_ROWS = 2**14
# What would end a line or a field, or is not to be written as UTF-8; and the escape itself.
_UNSAFE = re.compile(r"[\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@dataclass(frozen=True)
class EmbeddedDataset:
    """The features of a source, row by row.

    Attributes:
        source: of the images.
        features: float32 [N, D], mapped from a file.
        labels: int64 [N] or [N, C], as in `evaluation.features.Features`.
    """

    source: ImageSource
    features: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        """Return N."""
        return len(self.features)

    def image_ids(self, positions: np.ndarray) -> list[str]:
        """Return the names of these rows, each one line of UTF-8."""
        return [escape_control_chars(name) for name in self.source.image_ids(positions)]

    def class_names(self, positions: np.ndarray) -> list[str] | None:
        """Return the classes of these rows, or None where the source has no labels.

        A row without a label has "", one with several their names with `|` between them.
        """
        names = self.source.class_names
        if not names:
            return None
        names = tuple(map(escape_control_chars, names))
        labels = self.labels[positions]
        if labels.ndim == 1:
            return [names[label] if label >= 0 else "" for label in labels]
        return ["|".join(names[i] for i in np.flatnonzero(row)) for row in labels]

    def iter_blocks(self) -> Iterator[np.ndarray]:
        """Yield the positions of successive blocks, whose features take up to 64 MiB."""
        count = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // self.features[0].nbytes))
        for start in range(0, len(self), count):
            yield np.arange(start, min(start + count, len(self)))


def escape_control_chars(name: str) -> str:
    r"""Return a name with backslashes doubled and control characters as `\n`, `\x1b`, `\udc80`."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), name)
