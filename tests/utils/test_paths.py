"""Paths as users write them, and quoted commands."""

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from simclr_tf.utils.paths import expand_paths, expand_user, shell_join, split_paths, user_path


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("path", "expanded"),
    [
        *(("~", "/home/someone"), ("~/runs/a", "/home/someone/runs/a")),
        *(
            ("folder:~/photos", "folder:/home/someone/photos"),
            ("keras_cv:~/p", "keras_cv:/home/someone/p"),
        ),
        # As in a shell, other names are files.
        *(("a~", "a~"), ("a/~/b", "a/~/b"), ("./~", "./~"), ("~nobody-there/b", "~nobody-there/b")),
        *(("", ""), ("cifar10", "cifar10"), ("gs://bucket/~", "gs://bucket/~")),
    ],
)
def test_leading_tilde_is_the_home_directory(path, expanded):
    assert expand_user(path) == expanded
    assert user_path(path) == Path(expanded)


def test_path_objects_are_expanded():
    assert user_path(Path("~/runs")) == Path("/home/someone/runs")


def test_paths_in_sequences_are_expanded_and_other_values_unchanged():
    array = object()
    values = ["~/a", Path("~/b"), Path("c"), 3, array]
    expected = ["/home/someone/a", Path("/home/someone/b"), Path("c"), 3, array]
    assert expand_paths(values) == expand_paths(tuple(values)) == expected


def test_comma_separates_paths_unless_it_belongs_to_an_existing_name(tmp_path):
    for name in ("a", "lr=0.1,epochs=9", "photos, new", "c"):
        (tmp_path / name).mkdir()
    assert split_paths("a,c") == ["a", "c"]
    assert split_paths(" a , c,") == ["a", "c"]
    assert split_paths("a,lr=0.1,epochs=9,c") == ["a", "lr=0.1,epochs=9", "c"]
    assert split_paths("shapes,folder:photos, new") == ["shapes", "folder:photos, new"]
    assert split_paths("missing,lr=0.1") == ["missing", "lr=0.1"]
    assert split_paths("~/x,~/y") == ["/home/someone/x", "/home/someone/y"]
    assert split_paths("") == split_paths(",") == []


@pytest.mark.parametrize(
    "name", ["plain", "my run", "it's", "$HOME", "a\nb", "ü", b"caf\xe9", "é\n"]
)
def test_shell_reads_the_words_of_a_quoted_command(name):
    word = f"--model_dir={os.fsdecode(name)}"
    command = shell_join(["printf", "%s", word])
    assert command.isprintable()
    assert subprocess.check_output(["bash", "-c", command]) == os.fsencode(word)
    if word.isprintable():
        assert command == shlex.join(["printf", "%s", word])
