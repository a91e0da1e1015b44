"""Features as .npy with a table of ids, and as Parquet: a block at a time, whole or not at all."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simclr_tf.embedding.embedded_dataset import EmbeddedDataset
from simclr_tf.utils.files import atomic_path
from simclr_tf.utils.progress import LineProgress

Say = Callable[[str], None]


def write_npy(rows: EmbeddedDataset, path: Path, say: Say = print) -> None:
    """Write the features, float32 [N, D], so that `np.load(path, mmap_mode="r")` maps them."""
    progress = LineProgress(path.name, len(rows), say)
    with atomic_path(path) as unfinished:
        whole = np.lib.format.open_memmap(unfinished, "w+", np.float32, rows.features.shape)
        for block in rows.iter_blocks():
            whole[block[0] : block[-1] + 1] = rows.features[block[0] : block[-1] + 1]
            progress.show(block[-1] + 1)
        whole.flush()
        del whole


def write_ids(rows: EmbeddedDataset, path: Path, say: Say = print) -> None:
    """Write a CSV file of `index,id` and, where there are labels, `label`: a line per image."""
    progress = LineProgress(path.name, len(rows), say)
    labelled = bool(rows.source.class_names)
    with (
        atomic_path(path) as unfinished,
        unfinished.open("w", encoding="utf-8", newline="") as file,
    ):
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["index", "id", "label"][: 2 + labelled])
        for block in rows.iter_blocks():
            columns = [block.tolist(), rows.image_ids(block)]
            names = rows.class_names(block)
            table.writerows(zip(*columns, *([] if names is None else [names]), strict=True))
            progress.show(block[-1] + 1)


def write_parquet(rows: EmbeddedDataset, path: Path, say: Say = print) -> None:
    """Write the columns id (string), label (string, null where there is none) and features.

    `features` is a list of D float32; a row group takes up to 64 MiB.
    """
    progress = LineProgress(path.name, len(rows), say)
    dims = rows.features.shape[1]
    fields = {"id": pa.string(), "label": pa.string(), "features": pa.list_(pa.float32(), dims)}
    schema = pa.schema(fields)
    with (
        atomic_path(path) as unfinished,
        # Features hardly repeat: a dictionary of them would be built in vain.
        pq.ParquetWriter(unfinished, schema, use_dictionary=["label"]) as file,
    ):
        for block in rows.iter_blocks():
            names = rows.class_names(block) or [""] * len(block)
            values = pa.array(rows.features[block[0] : block[-1] + 1].ravel())
            columns = [
                pa.array(rows.image_ids(block), pa.string()),
                pa.array([name or None for name in names], pa.string()),
                pa.FixedSizeListArray.from_arrays(values, dims),
            ]
            file.write_table(pa.Table.from_arrays(columns, schema=schema))
            progress.show(block[-1] + 1)
