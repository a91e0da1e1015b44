"""Writers of features and IDs: .npy, CSV and Parquet, block by block and atomically."""

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from simclr_tf.embedding.embedded_dataset import EmbeddedDataset
from simclr_tf.utils.files import atomic_path
from simclr_tf.utils.progress import Progress


def write_npy(dataset: EmbeddedDataset, path: Path) -> None:
    """Writes the features, float32 [N, D]; `np.load(path, mmap_mode="r")` maps the file."""
    with atomic_path(path) as temporary:
        mapped = np.lib.format.open_memmap(temporary, "w+", np.float32, dataset.features.shape)
        for block in _blocks(dataset, path):
            mapped[block[0] : block[-1] + 1] = dataset.features[block[0] : block[-1] + 1]
        mapped.flush()
        del mapped


def write_ids(dataset: EmbeddedDataset, path: Path) -> None:
    """Writes a CSV file with a row per image: `index,id` and, for a labeled dataset, `label`."""
    labeled = bool(dataset.source.class_names)
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["index", "id", "label"][: 2 + labeled])
        for block in _blocks(dataset, path):
            columns = [block.tolist(), dataset.image_ids(block)]
            names = dataset.class_names(block)
            table.writerows(zip(*columns, *([] if names is None else [names]), strict=True))


def write_parquet(dataset: EmbeddedDataset, path: Path) -> None:
    """Writes the columns id (string), label (string or null) and features (list of D float32).

    Each block of rows is a row group, of at most 64 MiB.
    """
    dims = dataset.features.shape[1]
    fields = {"id": pa.string(), "label": pa.string(), "features": pa.list_(pa.float32(), dims)}
    schema = pa.schema(fields)
    with (
        atomic_path(path) as temporary,
        # Feature values rarely repeat: dictionary encoding would not pay off.
        pq.ParquetWriter(temporary, schema, use_dictionary=["label"]) as file,
    ):
        for block in _blocks(dataset, path):
            names = dataset.class_names(block) or [""] * len(block)
            values = pa.array(dataset.features[block[0] : block[-1] + 1].ravel())
            columns = [
                pa.array(dataset.image_ids(block), pa.string()),
                pa.array([name or None for name in names], pa.string()),
                pa.FixedSizeListArray.from_arrays(values, dims),
            ]
            file.write_table(pa.Table.from_arrays(columns, schema=schema))


def _blocks(dataset: EmbeddedDataset, path: Path) -> Iterator[np.ndarray]:
    """Yields the blocks of a dataset, and shows the progress of writing them."""
    with Progress(path.name, len(dataset)) as progress:
        for block in dataset.iter_blocks():
            yield block
            progress.update(int(block[-1]) + 1)
