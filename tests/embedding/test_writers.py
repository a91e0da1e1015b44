"""Features and IDs read back by the programs that read them; memory; interruptions."""

import csv
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simclr_tf.data.base import ArraySource
from simclr_tf.embedding.embedded_dataset import EmbeddedDataset, escape_control_chars
from simclr_tf.embedding.writers import write_ids, write_npy, write_parquet
from simclr_tf.errors import UserError
from tests.embedded_datasets import CLASSES, random_dataset

NAMES = ['a,b"c.png', "<script>.png", "$x$.png", "line\nbreak\r.png", "tab\t.png", "ü/猫.png"]
NAMES += ["back\\n.png", "half \udc80.png", "=1+1.png", "esc\x1b[31m.png", "next\x85\u2028.png"]


def test_npy_is_mapped_and_equal(tmp_path):
    embedded = random_dataset(max_block_rows=7)
    write_npy(embedded, tmp_path / "features.npy")
    found = np.load(tmp_path / "features.npy", mmap_mode="r")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, embedded.features)
    assert [file.name for file in tmp_path.iterdir()] == ["features.npy"]


def test_ids_are_one_line_each_and_can_be_read_back(tmp_path):
    embedded = random_dataset(len(NAMES), names=NAMES, max_block_rows=7)
    write_ids(embedded, tmp_path / "ids.csv")
    text = (tmp_path / "ids.csv").read_text(encoding="utf-8")
    assert len(text.splitlines()) == 1 + len(NAMES)
    header, *found = csv.reader(text.splitlines())
    assert header == ["index", "id", "label"]
    assert [row[0] for row in found] == [str(i) for i in range(len(NAMES))]
    decoded = [row[1].encode("ascii", "backslashreplace").decode("unicode_escape") for row in found]
    assert decoded == NAMES
    expected = [escape_control_chars(CLASSES[n]) if n >= 0 else "" for n in embedded.labels]
    assert [row[2] for row in found] == expected


def test_ids_of_an_unlabeled_dataset_have_no_label_column(tmp_path):
    write_ids(random_dataset(labeled=False, max_block_rows=7), tmp_path / "ids.csv")
    lines = (tmp_path / "ids.csv").read_text().splitlines()
    assert lines[:2] == ["index,id", "0,0"] and len(lines) == 41


def test_multiple_labels_of_an_image_are_joined(tmp_path):
    labels = np.array([[1, 0, -1], [0, 0, 0]])
    source = ArraySource("several", np.zeros((2, 4, 4, 3), np.uint8), labels, ("a", "b", "c"))
    write_ids(EmbeddedDataset(source, np.ones((2, 3), np.float32), labels), tmp_path / "ids.csv")
    assert (tmp_path / "ids.csv").read_text() == "index,id,label\n0,0,a|c\n1,1,\n"


@pytest.mark.parametrize("labeled", [True, False])
def test_parquet_has_a_list_per_row_and_a_row_group_per_block(tmp_path, labeled):
    embedded = random_dataset(len(NAMES), names=NAMES, labeled=labeled, max_block_rows=7)
    write_parquet(embedded, tmp_path / "features.parquet")
    file = pq.ParquetFile(tmp_path / "features.parquet")
    assert file.num_row_groups == 2
    table = file.read()
    assert table.schema.field("features").type == pa.list_(pa.float32(), 6)
    found = table["features"].combine_chunks().flatten().to_numpy().reshape(-1, 6)
    np.testing.assert_array_equal(found, embedded.features)
    assert table["id"].to_pylist() == [escape_control_chars(name) for name in NAMES]
    known = [escape_control_chars(CLASSES[n]) if n >= 0 else None for n in embedded.labels]
    assert table["label"].to_pylist() == (known if labeled else [None] * len(NAMES))


def test_writers_use_less_memory_than_the_features(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "cache.npy", rng.normal(size=(20_000, 64)).astype(np.float32))
    mapped = np.load(tmp_path / "cache.npy", mmap_mode="r")
    source = ArraySource("random", np.zeros((20_000, 1, 1, 3), np.uint8))
    embedded = EmbeddedDataset(source, mapped, np.full(20_000, -1), max_block_bytes=2**17)
    # Arrow allocates outside of Python.
    arrow = pa.proxy_memory_pool(pa.default_memory_pool())
    before = pa.default_memory_pool()
    pa.set_memory_pool(arrow)
    tracemalloc.start()
    try:
        write_npy(embedded, tmp_path / "features.npy")
        write_ids(embedded, tmp_path / "ids.csv")
        write_parquet(embedded, tmp_path / "features.parquet")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)
    assert peak < mapped.nbytes / 2
    assert 0 < arrow.max_memory() < mapped.nbytes / 2


class _FailingSource(ArraySource):
    """Images whose IDs cannot be read after the first block."""

    def image_ids(self, positions):
        if positions[0] > 0:
            raise OSError("no space left")
        return super().image_ids(positions)


class _FailingFeatures(np.ndarray):
    def __getitem__(self, index):
        if isinstance(index, slice) and index.start > 0:
            raise OSError("no space left")
        return super().__getitem__(index)


@pytest.mark.parametrize("write", [write_npy, write_ids, write_parquet])
def test_an_interrupted_file_does_not_appear(tmp_path, write):
    embedded = random_dataset(labeled=False, max_block_rows=7)
    failing = _FailingSource("random", np.zeros((40, 4, 4, 3), np.uint8))
    path = tmp_path / "file"
    with pytest.raises(UserError, match="no space left"):
        features = embedded.features.view(_FailingFeatures)
        write(EmbeddedDataset(failing, features, embedded.labels, 7), path)
    assert not list(tmp_path.iterdir())
    (tmp_path / ".incomplete.file").write_bytes(b"of a kill" * 10_000)
    write(embedded, path)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]
    assert b"of a kill" not in path.read_bytes()
