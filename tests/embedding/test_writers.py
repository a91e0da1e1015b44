"""Features and ids read back by the programs that are to read them; memory; kills."""

import csv
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from simclr_tf.data.base import ArraySource
from simclr_tf.embedding import embedded_dataset as rows_module
from simclr_tf.embedding.embedded_dataset import EmbeddedDataset, escape_control_chars
from simclr_tf.embedding.writers import write_ids, write_npy, write_parquet
from tests.sets import CLASSES, rows

NAMES = ['a,b"c.png', "<script>.png", "$x$.png", "line\nbreak\r.png", "tab\t.png", "ü/猫.png"]
NAMES += ["back\\n.png", "half \udc80.png", "=1+1.png", "esc\x1b[31m.png", "next\x85\u2028.png"]


@pytest.fixture(autouse=True)
def _several_blocks(monkeypatch):
    monkeypatch.setattr(rows_module, "_BLOCK_ROWS", 7)


def test_npy_is_mapped_and_equal(tmp_path):
    embedded = rows()
    write_npy(embedded, tmp_path / "features.npy")
    found = np.load(tmp_path / "features.npy", mmap_mode="r")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, embedded.features)
    assert [file.name for file in tmp_path.iterdir()] == ["features.npy"]


def test_ids_are_one_line_each_and_can_be_read_back(tmp_path):
    embedded = rows(len(NAMES), names=NAMES)
    write_ids(embedded, tmp_path / "ids.csv")
    text = (tmp_path / "ids.csv").read_text(encoding="utf-8")
    assert len(text.splitlines()) == 1 + len(NAMES)
    head, *found = csv.reader(text.splitlines())
    assert head == ["index", "id", "label"]
    assert [row[0] for row in found] == [str(i) for i in range(len(NAMES))]
    undone = [row[1].encode("ascii", "backslashreplace").decode("unicode_escape") for row in found]
    assert undone == NAMES
    wanted = [
        escape_control_chars(CLASSES[label]) if label >= 0 else "" for label in embedded.labels
    ]
    assert [row[2] for row in found] == wanted


def test_without_labels_there_is_no_column_of_them(tmp_path):
    write_ids(rows(labelled=False), tmp_path / "ids.csv")
    lines = (tmp_path / "ids.csv").read_text().splitlines()
    assert lines[:2] == ["index,id", "0,0"] and len(lines) == 41


def test_several_labels_of_an_image_stand_together(tmp_path):
    labels = np.array([[1, 0, -1], [0, 0, 0]])
    source = ArraySource("several", np.zeros((2, 4, 4, 3), np.uint8), labels, ("a", "b", "c"))
    embedded = EmbeddedDataset(source, np.ones((2, 3), np.float32), labels)
    write_ids(embedded, tmp_path / "ids.csv")
    assert (tmp_path / "ids.csv").read_text() == "index,id,label\n0,0,a|c\n1,1,\n"


@pytest.mark.parametrize("labelled", [True, False])
def test_parquet_has_a_list_per_row_in_several_groups(tmp_path, labelled):
    embedded = rows(len(NAMES), names=NAMES, labelled=labelled)
    write_parquet(embedded, tmp_path / "features.parquet")
    file = pq.ParquetFile(tmp_path / "features.parquet")
    assert file.num_row_groups == 2
    table = file.read()
    assert table.schema.field("features").type == pa.list_(pa.float32(), 6)
    found = table["features"].combine_chunks().flatten().to_numpy().reshape(-1, 6)
    np.testing.assert_array_equal(found, embedded.features)
    assert table["id"].to_pylist() == [escape_control_chars(name) for name in NAMES]
    known = [
        escape_control_chars(CLASSES[n]) if n >= 0 and labelled else None for n in embedded.labels
    ]
    assert table["label"].to_pylist() == known


def test_features_in_a_file_are_not_copied_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "_BLOCK_ROWS", 2**14)
    monkeypatch.setattr(rows_module, "_BLOCK_BYTES", 2**17)
    draw = np.random.default_rng(0)
    np.save(tmp_path / "cache.npy", draw.normal(size=(20_000, 64)).astype(np.float32))
    mapped = np.load(tmp_path / "cache.npy", mmap_mode="r")
    source = ArraySource("random", np.zeros((20_000, 1, 1, 3), np.uint8))
    embedded = EmbeddedDataset(source, mapped, np.full(20_000, -1))
    # Arrow's memory is not Python's.
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


@pytest.mark.parametrize("write", [write_npy, write_ids, write_parquet])
def test_what_is_cut_short_is_not_there(tmp_path, monkeypatch, write):
    embedded = rows()
    blocks = list(embedded.iter_blocks())

    def cut(self):
        yield blocks[0]
        raise OSError("no space left")

    path = tmp_path / "file"
    with monkeypatch.context() as patch:
        patch.setattr(EmbeddedDataset, "iter_blocks", cut)
        with pytest.raises(OSError, match="no space left"):
            write(embedded, path)
    assert not list(tmp_path.iterdir())
    (tmp_path / ".incomplete.file").write_bytes(b"of a kill" * 10_000)
    write(embedded, path)
    whole = path.read_bytes()
    assert [file.name for file in tmp_path.iterdir()] == ["file"] and b"of a kill" not in whole
