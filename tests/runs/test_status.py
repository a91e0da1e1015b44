"""How a training's end is recorded, and what is made of the record."""

import json
import subprocess

import pytest

from simclr_tf.errors import UserError
from simclr_tf.runs import status as state
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.runs.status import RunStatus, check_not_running, get_status, track_status


@pytest.fixture
def run(tmp_path):
    return RunDir(tmp_path / "run")


def ended(run, error=None):
    """The state of a run of 10 steps whose training ended so, with 5 of them saved."""
    try:
        with track_status(run) as begin:
            begin(0)
            if error:
                raise error
    except BaseException as caught:
        assert caught is error
    return get_status(run, 10, 5)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, RunStatus("done")),
        (SystemExit(143), RunStatus("interrupted", "by SIGTERM")),
        (SystemExit(130), RunStatus("interrupted", "by Ctrl-C")),
        (KeyboardInterrupt(), RunStatus("interrupted", "by Ctrl-C")),
        (UserError("the loss was not finite"), RunStatus("failed", "the loss was not finite")),
        (ValueError("one\ntwo"), RunStatus("failed", "ValueError: one")),
        (AssertionError(), RunStatus("failed", "AssertionError: ")),
    ],
)
def test_how_it_ended_is_what_is_said(run, error, expected):
    assert ended(run, error) == expected


def test_while_it_lasts_it_is_running_and_nobody_else_may_begin(run):
    with track_status(run) as begin:
        begin(0)
        assert get_status(run, 10, 5).name == "running" and get_status(run, 10, 5).certain
        with pytest.raises(UserError, match=r"run is being trained \(process \d+ on "):
            check_not_running(run)
        with pytest.raises(UserError, match="is being trained"), track_status(run) as again:
            again(0)
        # The second one, refused, has not touched what the first one says.
        assert get_status(run, 10, 5).name == "running"
    check_not_running(run)
    assert get_status(run, 10, 10) == RunStatus("done")


def test_what_never_began_leaves_no_trace(run):
    with pytest.raises(UserError, match="a mistake"), track_status(run):
        raise UserError("a mistake")
    assert not run.path.exists()
    ended(run, SystemExit(143))
    with pytest.raises(UserError, match="other settings"), track_status(run):
        raise UserError("other settings")
    assert get_status(run, 10, 5) == RunStatus("interrupted", "by SIGTERM")


def test_what_was_prepared_while_another_trained_is_not_begun(run):
    ended(run)
    run.checkpoint_dir.mkdir()
    (run.checkpoint_dir / "checkpoint").write_text('model_checkpoint_path: "step-5"\n', "utf-8")
    (run.checkpoint_dir / "step-5.index").touch()
    before = run.state_file.read_bytes()
    with pytest.raises(UserError, match="by another process while"), track_status(run) as begin:
        begin(0)
    assert run.state_file.read_bytes() == before
    check_not_running(run)


def noted(run, **changes):
    """A run whose note says "running", and whose process is gone."""
    ended(run)
    note = json.loads(run.state_file.read_text(encoding="utf-8"))
    run.state_file.write_text(json.dumps({**note, "state": "running", **changes}), "utf-8")
    return get_status(run, 10, 5)


@pytest.mark.parametrize("other", [{}, {"host": "container"}, {"boot": "before"}])
def test_a_note_that_outlived_its_process_on_this_machine_is_of_a_kill(run, other):
    found = noted(run, **other)
    assert found.name == "interrupted" and "killed?" in found.reason and found.certain


@pytest.mark.parametrize("other", [{"host": "b", "boot": "c"}, {"locked": False}])
def test_of_another_machine_nothing_is_certain(run, other):
    found = noted(run, **other)
    assert found.name == "running" and not found.certain
    assert "cannot be seen from here" in found.reason


def test_without_locks_the_process_itself_tells(run):
    gone = subprocess.Popen(["true"])
    gone.wait()
    found = noted(run, locked=False, pid=gone.pid)
    assert found.name == "interrupted" and "killed?" in found.reason


def test_without_a_note_the_checkpoint_says_it(run):
    run.path.mkdir()
    assert get_status(run, 10, 10) == RunStatus("done")
    assert get_status(run, 10, 5) == RunStatus("interrupted")
    run.state_file.write_text("{", encoding="utf-8")
    assert get_status(run, 10, 5) == RunStatus("interrupted")


def test_a_file_system_without_locks_and_a_full_one_end_no_training(run, monkeypatch):
    def refuse(*arguments):
        raise OSError("no locks")

    monkeypatch.setattr(state.fcntl, "flock", refuse)
    assert ended(run) == RunStatus("done")
    with pytest.raises(UserError, match="the cause"), track_status(run) as begin:
        begin(0)
        monkeypatch.setattr(state, "atomic_write", refuse)
        raise UserError("the cause")
