"""Files that are either old or new."""

import os

import pytest

from simclr_tf.files import streamed, streamed_directory, write_atomically


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


def test_a_streamed_file_or_directory_appears_whole(tmp_path):
    with streamed(tmp_path / "made" / "file") as place:
        place.write_text("new")
        assert not (tmp_path / "made" / "file").exists()
    assert (tmp_path / "made" / "file").read_text() == "new"
    for text in ("first", "second"):
        (tmp_path / ".place.replaced").mkdir()  # of a kill
        with streamed_directory(tmp_path / "place") as place:
            (place / text).write_text(text)
        assert [file.name for file in (tmp_path / "place").iterdir()] == [text]
    with pytest.raises(OSError, match="full"), streamed_directory(tmp_path / "place") as place:
        (place / "third").touch()
        raise OSError("full")
    assert [file.name for file in (tmp_path / "place").iterdir()] == ["second"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["made", "place"]
