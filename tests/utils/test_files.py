"""Atomic writes, locks, output checks and file names."""

import csv
import os
import resource
import threading

import numpy as np
import pytest

from simclr_tf.errors import UserError
from simclr_tf.utils.files import (
    atomic_path,
    atomic_write,
    check_output_path,
    directory_lock,
    format_bytes,
    save_npz,
    slugify,
    truncate_filename,
    write_csv,
)


def test_atomic_write_gives_a_file_the_usual_permissions(tmp_path):
    path = tmp_path / "made" / "file.json"
    atomic_write(path, "é\n")
    assert path.read_text(encoding="utf-8") == "é\n"
    plain = tmp_path / "plain"
    plain.touch()
    assert path.stat().st_mode == plain.stat().st_mode


@pytest.fixture
def full_disk():
    """Makes the system refuse files of more than 1,000 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_atomic_write_preserves_the_old_file_when_the_disk_is_full(tmp_path, full_disk):
    path = tmp_path / "file"
    atomic_write(path, "old")
    with pytest.raises(UserError, match=r"file cannot be written: File too large\. Fix: free"):
        atomic_write(path, "new" * 1_000)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_save_npz_writes_all_arrays_or_nothing(tmp_path, full_disk):
    path = tmp_path / "made" / "arrays.npz"
    save_npz(path, a=np.arange(3), b=np.eye(2))
    with pytest.raises(UserError, match=r"arrays\.npz.* cannot be written"):
        save_npz(path, a=np.arange(3_000))
    with np.load(path) as arrays:
        np.testing.assert_array_equal(arrays["a"], [0, 1, 2])
        np.testing.assert_array_equal(arrays["b"], np.eye(2))
    assert list((tmp_path / "made").iterdir()) == [path]


def test_directory_lock_is_held_by_one_thread_at_a_time(tmp_path):
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


def test_slugify_gives_different_texts_different_names():
    assert slugify("train") == "train"
    names = {slugify(text) for text in ("train[:50%]", "train[:50]", "train[50:]", "train-50")}
    assert len(names) == 4
    assert all(name.startswith("train-50") for name in names)
    assert slugify("folder:../é/<b>").startswith("folder-..-é-b-")
    assert len(slugify("a/" * 1000)) < 80


def test_write_csv_accepts_formulas_and_undecodable_names(tmp_path):
    strange = os.fsdecode(b"caf\xe9.png")
    write_csv(tmp_path / "table.csv", [("=x", 'a,"b"\nc', strange, -1)])
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["'=x", 'a,"b"\nc', r"caf\udce9.png", "-1"]]


def test_atomic_path_replaces_a_file_or_directory_when_complete(tmp_path):
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
    with pytest.raises(UserError, match="full"), atomic_path(tmp_path / "place") as place:
        place.mkdir()
        (place / "third").touch()
        raise OSError("full")
    assert [file.name for file in (tmp_path / "place").iterdir()] == ["second"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["made", "place"]


def test_truncate_filename_cuts_long_names_and_keeps_them_distinct():
    assert truncate_filename("5859-shapes") == "5859-shapes"
    names = [truncate_filename("図" * 300 + end) for end in "ab"]
    assert all(len(name.encode()) <= 240 and name.startswith("図") for name in names)
    assert names[0] != names[1]


def test_check_output_path_leaves_no_trace(tmp_path):
    check_output_path(tmp_path, "output")
    check_output_path(tmp_path / "a" / "b", "output")
    check_output_path(tmp_path / "c" / "file.txt", "output", is_file=True)
    (tmp_path / "file.txt").write_text("old")
    check_output_path(tmp_path / "file.txt", "output", is_file=True)
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]
    assert (tmp_path / "file.txt").read_text() == "old"


@pytest.mark.parametrize("is_file", [False, True])
@pytest.mark.parametrize(
    "path",
    [
        *("/proc/nope", "/proc/nope/deeper", "gs://bucket/run", "gs:/bucket/run"),
        *("file/in/the/way", "x" * 256, "a\0b", "dangling/x"),
    ],
)
def test_check_output_path_names_what_cannot_be_written(tmp_path, monkeypatch, path, is_file):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("missing/target")
    with pytest.raises(UserError, match=r"^--model_dir=.*expected a \w+ that can be created.*Fix:"):
        check_output_path(path, "model_dir", is_file=is_file)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["dangling", "file"]


def test_check_output_path_refuses_the_wrong_kind(tmp_path):
    with pytest.raises(UserError, match="Is a directory"):
        check_output_path(tmp_path, "output", is_file=True)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--output=.*file: expected a directory"):
        check_output_path(tmp_path / "file", "output")


def test_check_output_path_refuses_a_read_only_directory(tmp_path):
    (tmp_path / "run").mkdir(mode=0o555)
    is_root = os.geteuid() == 0
    if is_root:  # permissions do not apply to root
        for directory in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
            directory.chmod(0o755)
        os.seteuid(65534)
    try:
        for path in (tmp_path / "run", tmp_path / "run" / "deeper"):
            with pytest.raises(UserError, match="Permission denied"):
                check_output_path(path, "model_dir")
        with pytest.raises(UserError, match="Permission denied"):
            atomic_write(tmp_path / "run" / "file", "text")
    finally:
        if is_root:
            os.seteuid(0)


@pytest.mark.parametrize("name", ["a[1]", "runs/a*", "a?/b", "a\\b"])
def test_check_output_path_refuses_patterns_for_checkpoints(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    check_output_path(name, "output")
    with pytest.raises(UserError, match=r"^--model_dir=.*: expected a path without .*Fix: choose"):
        check_output_path(name, "model_dir", has_checkpoints=True)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (12_345_678, "12.3 MB"), (999_999, "1 MB")],
)
def test_format_bytes_gives_three_digits(count, text):
    assert format_bytes(count) == text
