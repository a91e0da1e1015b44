"""Files that are either old or new."""

import csv
import os

import pytest

from simclr_tf.files import write_atomically, write_csv


def test_others_may_read_what_they_could_read_before(tmp_path):
    path = tmp_path / "made" / "file.json"
    write_atomically(path, "é\n")
    assert path.read_text(encoding="utf-8") == "é\n"
    plain = tmp_path / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_table_may_hold_any_files_name(tmp_path):
    strange = os.fsdecode(b"caf\xe9.png")
    write_csv(tmp_path / "table.csv", [("=x", 'a,"b"\nc', strange, -1)])
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["'=x", 'a,"b"\nc', r"caf\udce9.png", "-1"]]
