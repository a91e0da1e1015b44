"""`--cache_dataset`: a source decoded once into memory."""

from __future__ import annotations

import os

import numpy as np

from simclr_tf.data.base import ArraySource, ImageSource, decode_records
from simclr_tf.data.decode_errors import decode_errors_name_image
from simclr_tf.errors import UserError


def total_memory_bytes() -> int:
    """Bytes of memory that this machine has."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def load_into_memory(source: ImageSource) -> ArraySource:
    """Decodes a source once into an array.

    Raises:
      UserError: the array would take more than half of the machine's memory, or an image cannot
        be decoded.
    """
    shape = (source.num_examples, *source.image_shape)
    need = int(np.prod(shape))
    memory = total_memory_bytes()
    if need > memory // 2:
        raise UserError(
            f"--cache_dataset: {source.name} takes {need / 2**30:.1f} GiB decoded, more than half "
            f"of this machine's {memory / 2**30:.1f} GiB: leave --cache_dataset off"
        )
    images = np.empty(shape, np.uint8)
    columns: dict[str, list[np.ndarray]] = {}
    start = 0
    with decode_errors_name_image(source):
        for batch in decode_records(source, source.records_in_order(), 256).as_numpy_iterator():
            stop = start + len(batch["image"])
            images[start:stop] = batch.pop("image")
            start = stop
            for key, values in batch.items():
                columns.setdefault(key, []).append(values)
    merged = {key: np.concatenate(parts) for key, parts in columns.items()}
    cached = ArraySource(
        source.name,
        images,
        merged.get("label"),
        source.class_names,
        merged.get("aspect"),
        ids=source.image_ids,
    )
    cached.multi_label = source.multi_label
    return cached
