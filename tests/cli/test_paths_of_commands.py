"""Paths of commands: the home directory, commas, and quotes in printed commands."""

import os
import shlex
import shutil
from pathlib import Path

import pytest

from simclr_tf.runs.run_dir import RunDir
from tests.commands import TINY, error_of, output_of

NAME = "lr=0.1,it's a run"


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """The home directory, while the working directory is another one."""
    (tmp_path / "home").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    yield tmp_path / "home"
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.fixture
def odd_run(pretrained, home) -> Path:
    """A run in the home directory with a comma, a quote and spaces in its name."""
    return shutil.copytree(pretrained, home / NAME)


def printed_commands(output: str) -> list[list[str]]:
    """Returns the words that a shell reads in the commands after "next:"."""
    lines = output.rpartition("next:")[2].splitlines()
    return [shlex.split(line) for line in lines if line.strip()]


def test_training_in_the_home_directory_prints_commands_for_a_shell(home, photos):
    shutil.copytree(photos, home / "photos")
    (home / "my.flags").write_text("--dataset=folder:~/photos\n", encoding="utf-16")
    flags = [*TINY, "--flagfile=~/my.flags", "--train_split=train", f"--model_dir=~/{NAME}"]
    output = output_of("pretrain", *flags, "--train_batch_size=8", "--train_steps=1")
    run = home / NAME
    assert printed_commands(output) == [
        ["simclr-tf", "evaluate", f"--model_dir={run}"],
        ["tensorboard", "--logdir", str(run / "tensorboard")],
    ]
    assert f"--model_dir={run}" in RunDir(run).read_command()
    assert f"--dataset=folder:{home}/photos" in RunDir(run).read_command()


def test_commands_take_and_print_a_run_with_any_name(home, odd_run):
    hint = output_of("show", f"~/{NAME}").rpartition("no evaluations yet: ")[2]
    evaluate, name, flag = shlex.split(hint)
    assert [evaluate, name, flag] == ["simclr-tf", "evaluate", f"--model_dir={odd_run}"]
    assert str(odd_run) in output_of("runs", "~")
    output = output_of(name, flag, "--protocols=knn", "--knn_k=5")
    assert printed_commands(output) == [["simclr-tf", "export", f"--model_dir={odd_run}"]]
    assert (odd_run / "evaluations.json").exists()


@pytest.mark.parametrize(
    ("command", "flag"),
    [
        (["pretrain", *TINY], "--model_dir"),
        (["export", "--model_dir=~/[run]"], "--model_dir"),
        (["export", f"--model_dir=~/{NAME}"], "--output"),
        (["study", "temperature", *TINY, "--list=false"], "--output"),
    ],
)
def test_names_that_tensorflow_cannot_read_are_refused(home, odd_run, command, flag):
    shutil.copytree(odd_run, home / "[run]")
    given = [] if "--model_dir=~/[run]" in command else [f"{flag}=~/[run]"]
    if flag == "--output" and command[0] == "export":
        given = [f"{flag}=~/[new]"]
    assert f"{flag}={home}/[" in error_of(*command, *given)


def test_names_of_runs_that_are_not_utf8_are_refused(home, odd_run):
    name = os.fsdecode(b"caf\xe9")
    shutil.copytree(odd_run, home / name)
    for command in (
        ["pretrain", *TINY, f"--model_dir=~/{name}"],
        ["evaluate", f"--model_dir=~/{name}"],
        ["finetune", f"--checkpoint=~/{name}", "--model_dir=~/f"],
        ["embed", f"--model_dir=~/{NAME}", f"--output=~/{name}"],
    ):
        assert "expected a path in UTF-8" in error_of(*command)


def test_report_compares_runs_with_commas(home, odd_run):
    shutil.copytree(odd_run, home / "b")
    output_of("report", f"--runs=~/{NAME},~/b", "--output=~/report.html")
    assert (home / "report.html").exists()
    error = error_of("report", "--runs=~/b,~/c", "--output=~/other.html")
    assert f"{home}/c holds no run" in error


def test_embed_writes_to_the_home_directory(home, odd_run):
    flags = ["--format=projector", "--output=~/my features"]
    output = output_of("embed", f"--model_dir=~/{NAME}", *flags)
    (words,) = printed_commands(output)
    assert words == ["tensorboard", "--logdir", str(home / "my features" / "projector")]
