"""Status of a run: how the outcome of a training is recorded and read."""

import json
import resource

import pytest

from simclr_tf.errors import UserError
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.runs.status import RunStatus, check_not_running, get_status, track_status


@pytest.fixture
def run(tmp_path):
    return RunDir(tmp_path / "run")


def ended(run, error=None):
    """Returns the status of a run of 10 steps, 5 of them saved, after its training ended."""
    try:
        with track_status(run) as start:
            start(0)
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
def test_status_is_the_outcome_of_the_training(run, error, expected):
    assert ended(run, error) == expected


def test_a_run_in_training_is_locked(run):
    with track_status(run) as start:
        start(0)
        assert get_status(run, 10, 5).name == "running"
        with pytest.raises(UserError, match=r"run is being trained \(process \d+ on "):
            check_not_running(run)
        with pytest.raises(UserError, match="is being trained"), track_status(run) as again:
            again(0)
        # The refused process has not changed the status.
        assert get_status(run, 10, 5).name == "running"
    check_not_running(run)
    assert get_status(run, 10, 10) == RunStatus("done")


def test_an_error_before_the_start_is_not_recorded(run):
    with pytest.raises(UserError, match="a mistake"), track_status(run):
        raise UserError("a mistake")
    assert not run.path.exists()
    ended(run, SystemExit(143))
    with pytest.raises(UserError, match="other settings"), track_status(run):
        raise UserError("other settings")
    assert get_status(run, 10, 5) == RunStatus("interrupted", "by SIGTERM")


def test_start_refuses_a_run_that_was_trained_in_the_meantime(run):
    ended(run)
    run.checkpoint_dir.mkdir()
    (run.checkpoint_dir / "checkpoint").write_text('model_checkpoint_path: "step-5"\n', "utf-8")
    (run.checkpoint_dir / "step-5.index").touch()
    before = run.state_file.read_bytes()
    with (
        pytest.raises(UserError, match="by another process in the meantime"),
        track_status(run) as start,
    ):
        start(0)
    assert run.state_file.read_bytes() == before
    check_not_running(run)


def test_a_run_whose_process_was_killed_is_interrupted(run):
    ended(run)
    state = json.loads(run.state_file.read_text(encoding="utf-8"))
    run.state_file.write_text(json.dumps({**state, "state": "running"}), "utf-8")
    found = get_status(run, 10, 5)
    assert found.name == "interrupted" and "killed?" in found.reason


def test_status_without_state_file_follows_from_the_checkpoint(run):
    run.path.mkdir()
    assert get_status(run, 10, 10) == RunStatus("done")
    assert get_status(run, 10, 5) == RunStatus("interrupted")
    run.state_file.write_text("{", encoding="utf-8")
    assert get_status(run, 10, 5) == RunStatus("interrupted")


def test_a_full_disk_does_not_hide_the_error_of_a_training(run):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(UserError, match="the cause"), track_status(run) as start:
            start(0)
            resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
            raise UserError("the cause")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert get_status(run, 10, 5).name == "interrupted"
