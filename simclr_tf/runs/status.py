"""Whether a run is being trained, and how it ended.

The process that trains holds a lock, which ends with it however it ends, and notes in state.json
what it is about. So a run whose note says "running" and whose lock nobody holds was killed.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from simclr_tf.errors import UserError
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.utils.files import atomic_write

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_TRIES, _PAUSE = 5, 0.1  # whoever only looks holds the lock for a moment, too


@dataclasses.dataclass(frozen=True)
class RunStatus:
    """What a run is at.

    Attributes:
        name: "running", "done", "interrupted" or "failed".
        reason: why it is not done, where that is known.
        certain: False where it may run on another machine, whose locks are not seen from here.
    """

    name: str
    reason: str = ""
    certain: bool = True


@contextlib.contextmanager
def track_status(run: RunDir) -> Iterator[Callable[[int], None]]:
    """Records how a training ends.

    Gives the function that begins it at a step; an end without a beginning leaves no trace. That
    function raises UserError if another process trains this run, or has meanwhile.
    """
    lock: TextIO | None = None
    note: dict[str, Any] = {}

    def begin(step: int) -> None:
        nonlocal lock
        lock, locked = _lock(run)
        if run.latest_step() != step:
            raise UserError(
                f"{run.path} was trained by another process while this one prepared: start again"
            )
        note.update(_whoami(), locked=locked, began=_now())
        _write(run, note, "running")

    try:
        yield begin
    except BaseException as error:
        if note:
            # The disk may be full: whatever ended the training is what must be told.
            with contextlib.suppress(UserError, OSError):
                _write(run, note, *_end(error))
        raise
    else:
        if note:
            _write(run, note, "done")
    finally:
        if lock:
            lock.close()


def check_not_running(run: RunDir) -> None:
    """Raises UserError if another process trains this run."""
    if _is_locked(run):
        raise _taken(run)


def get_status(run: RunDir, total_steps: int, saved_step: int) -> RunStatus:
    """Returns the state of a run, of whose steps those up to `saved_step` are in a checkpoint."""
    note = _read(run)
    if _is_locked(run):
        return RunStatus("running", _who(note))
    if not note:  # of an earlier version
        return RunStatus("done" if saved_step >= total_steps else "interrupted")
    if note["state"] != "running":
        return RunStatus(note["state"], note.get("reason", ""))
    here = _whoami()
    is_here = any(note.get(x) == here[x] for x in ("host", "boot") if here[x])
    # Where the file system knows no locks, the process itself tells.
    if is_here and (note.get("locked") or not _lives(note.get("pid"))):
        return RunStatus("interrupted", "its process is gone without a word: killed?")
    return RunStatus("running", f"{_who(note)}, which cannot be seen from here", certain=False)


def _lock(run: RunDir) -> tuple[TextIO, bool]:
    """The open lock file, and whether it is locked: not every file system can."""
    run.path.mkdir(parents=True, exist_ok=True)
    file = run.lock_file.open("a", encoding="utf-8")
    for _ in range(_TRIES):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file, True
        except BlockingIOError:
            time.sleep(_PAUSE)
        except OSError:
            return file, False
    file.close()
    raise _taken(run)


def _is_locked(run: RunDir) -> bool:
    try:
        with run.lock_file.open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no such file, or no such locks
        return False
    return False


def _taken(run: RunDir) -> UserError:
    return UserError(
        f"{run.path} is being trained ({_who(_read(run))}): wait for it or stop it, or name "
        "another --model_dir"
    )


def _whoami() -> dict[str, Any]:
    # A container's name changes with each start, the boot with each start of the machine.
    boot = _BOOT.read_text(encoding="utf-8").strip() if _BOOT.is_file() else ""
    return {"host": platform.node(), "boot": boot, "pid": os.getpid()}


def _lives(pid: Any) -> bool:
    try:
        os.kill(int(pid), 0)
    except (TypeError, ValueError, ProcessLookupError):
        return False
    except PermissionError:  # another user's
        return True
    return True


def _who(note: dict[str, Any]) -> str:
    return f"process {note.get('pid', '?')} on {note.get('host', '?')}"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _end(error: BaseException) -> tuple[str, str]:
    """The state that an exception leaves, and why."""
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return "interrupted", "by Ctrl-C" if getattr(error, "code", 130) == 130 else "by SIGTERM"
    text = str(error).strip().splitlines()
    first = text[0] if text else ""
    return "failed", first if isinstance(error, UserError) else f"{type(error).__name__}: {first}"


def _write(run: RunDir, note: dict[str, Any], state: str, reason: str = "") -> None:
    ended = {} if state == "running" else {"ended": _now()}
    document = {"state": state, "reason": reason, **note, **ended}
    atomic_write(run.state_file, json.dumps(document, indent=1) + "\n")


def _read(run: RunDir) -> dict[str, Any]:
    """What state.json says; nothing if it is not there, or says nothing that can be read."""
    try:
        note = json.loads(run.state_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) and "state" in note else {}
