"""Files that are either old or new."""

import csv
import os
import threading

import pytest

from simclr_tf.utils.files import (
    atomic_path,
    atomic_write,
    directory_lock,
    slugify,
    truncate_filename,
    write_csv,
)


def test_others_may_read_what_they_could_read_before(tmp_path):
    path = tmp_path / "made" / "file.json"
    atomic_write(path, "é\n")
    assert path.read_text(encoding="utf-8") == "é\n"
    plain = tmp_path / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


def test_a_failed_write_leaves_the_old_file_alone(tmp_path, monkeypatch):
    path = tmp_path / "file"
    atomic_write(path, "old")

    def full(_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_is_held_by_one_at_a_time(tmp_path):
    held, may_go = threading.Event(), threading.Event()
    order = []

    def hold():
        with directory_lock(tmp_path / "made"):
            held.set()
            may_go.wait(60)
            order.append("first")

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    with directory_lock(tmp_path / "made", on_wait=may_go.set):
        order.append("second")
    thread.join()
    assert may_go.is_set() and order == ["first", "second"]
    assert list((tmp_path / "made").iterdir()) == []


def test_texts_have_names_of_their_own():
    assert slugify("train") == "train"
    names = {slugify(text) for text in ("train[:50%]", "train[:50]", "train[50:]", "train-50")}
    assert len(names) == 4
    assert all(name.startswith("train-50") for name in names)
    assert slugify("folder:../é/<b>").startswith("folder-..-é-b-")
    assert len(slugify("a/" * 1000)) < 80


def test_a_table_may_hold_any_files_name(tmp_path):
    strange = os.fsdecode(b"caf\xe9.png")
    write_csv(tmp_path / "table.csv", [("=x", 'a,"b"\nc', strange, -1)])
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["'=x", 'a,"b"\nc', r"caf\udce9.png", "-1"]]


def test_a_file_or_directory_appears_whole(tmp_path):
    with atomic_path(tmp_path / "made" / "file") as place:
        place.write_text("new")
        assert not (tmp_path / "made" / "file").exists()
    assert (tmp_path / "made" / "file").read_text() == "new"
    for text in ("first", "second"):
        (tmp_path / ".replaced.place").mkdir()  # of a kill
        with atomic_path(tmp_path / "place") as place:
            place.mkdir()
            (place / text).write_text(text)
        assert [file.name for file in (tmp_path / "place").iterdir()] == [text]
    with pytest.raises(OSError, match="full"), atomic_path(tmp_path / "place") as place:
        place.mkdir()
        (place / "third").touch()
        raise OSError("full")
    assert [file.name for file in (tmp_path / "place").iterdir()] == ["second"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["made", "place"]


def test_a_name_that_is_too_long_is_cut_and_stays_its_own():
    assert truncate_filename("5859-shapes") == "5859-shapes"
    names = [truncate_filename("図" * 300 + end) for end in "ab"]
    assert all(len(name.encode()) <= 240 and name.startswith("図") for name in names)
    assert names[0] != names[1]
