"""Status of a run: running, done, interrupted or failed.

The training process holds a lock, which the operating system releases when the process ends, and
records the outcome in state.json. If state.json says "running" and the lock is free, the process
was killed.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from typing import Any, TextIO

from simclr_tf.errors import UserError
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.utils.files import atomic_write

_LOCK_ATTEMPTS, _RETRY_DELAY = 5, 0.1  # reading a status holds the lock for a moment, too


@dataclasses.dataclass(frozen=True)
class RunStatus:
    """Status of a run, and why it is not done or which process is training."""

    name: str  # "running", "done", "interrupted" or "failed"
    reason: str = ""


@contextlib.contextmanager
def track_status(run: RunDir) -> Iterator[Callable[[int], None]]:
    """Records the outcome of a training.

    Yields a function that marks the training as started at a step, and raises UserError if another
    process is training this run, or has trained it since. Errors before that call are not recorded.
    """
    lock: TextIO | None = None
    state: dict[str, Any] = {}

    def start(step: int) -> None:
        nonlocal lock
        lock = _lock(run)
        if run.latest_step() != step:
            raise UserError(
                f"{run.path} was trained by another process in the meantime. "
                "Fix: run the command again"
            )
        state.update(host=platform.node(), pid=os.getpid(), began=_now())
        _write(run, state, "running")

    try:
        yield start
    except BaseException as error:
        if state:
            # Report the original error even if the disk is full.
            with contextlib.suppress(UserError):
                _write(run, state, *_exit_status(error))
        raise
    else:
        if state:
            _write(run, state, "done")
    finally:
        if lock:
            lock.close()


def check_not_running(run: RunDir) -> None:
    """Raises UserError if another process is training this run."""
    if _is_locked(run):
        raise _already_running(run)


def get_status(run: RunDir, total_steps: int, saved_step: int) -> RunStatus:
    """Returns the status of a run whose newest checkpoint is of `saved_step`."""
    state = _read(run)
    if _is_locked(run):
        return RunStatus("running", _format_process(state))
    if not state:  # written by an earlier version
        return RunStatus("done" if saved_step >= total_steps else "interrupted")
    if state["state"] == "running":
        return RunStatus("interrupted", "the process ended without recording its state (killed?)")
    return RunStatus(state["state"], state.get("reason", ""))


def _lock(run: RunDir) -> TextIO:
    run.path.mkdir(parents=True, exist_ok=True)
    file = run.lock_file.open("a", encoding="utf-8")
    for _ in range(_LOCK_ATTEMPTS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            time.sleep(_RETRY_DELAY)  # `_is_locked` of another process holds it for a moment
        except OSError:  # the file system does not support locks
            return file
    file.close()
    raise _already_running(run)


def _is_locked(run: RunDir) -> bool:
    try:
        with run.lock_file.open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such file, or no support for locks
        return False
    return False


def _already_running(run: RunDir) -> UserError:
    return UserError(
        f"{run.path} is being trained ({_format_process(_read(run))}). "
        "Fix: wait for it, stop it, or choose another --model_dir"
    )


def _format_process(state: dict[str, Any]) -> str:
    return f"process {state.get('pid', '?')} on {state.get('host', '?')}"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _exit_status(error: BaseException) -> tuple[str, str]:
    """Returns the status and the reason to record for an exception."""
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return "interrupted", "by Ctrl-C" if getattr(error, "code", 130) == 130 else "by SIGTERM"
    first_line = str(error).strip().partition("\n")[0]
    is_user_error = isinstance(error, UserError)
    return "failed", first_line if is_user_error else f"{type(error).__name__}: {first_line}"


def _write(run: RunDir, state: dict[str, Any], name: str, reason: str = "") -> None:
    ended = {} if name == "running" else {"ended": _now()}
    document = {"state": name, "reason": reason, **state, **ended}
    atomic_write(run.state_file, json.dumps(document, indent=1) + "\n")


def _read(run: RunDir) -> dict[str, Any]:
    """Returns the contents of state.json, empty if it is missing or damaged."""
    try:
        state = json.loads(run.state_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) and "state" in state else {}
