"""Many trials in a few processes: what is left is done, what fails is said, nothing is done twice.

A process that crashes takes one trial with it. The study's own process computes nothing.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from multiprocessing.connection import wait

from tqdm import tqdm

from simclr_tf.errors import UserError
from simclr_tf.study.trial import Judging, Trial
from simclr_tf.study.worker import Slot, work
from simclr_tf.training.interruption import catch_signals

_TRIALS_PER_PROCESS = 20  # TensorFlow keeps some 40 MB of each
_SAID_EVERY = 30.0  # seconds between a trial's lines
_LOOKED_EVERY = 1.0  # seconds between looks at signals


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a trial ended: `failure` is empty, or says in a line why it failed."""

    trial: Trial
    seconds: float
    failure: str = ""


class _Process:
    """A worker, which starts again where it has ended."""

    def __init__(self, slot: Slot):
        self._slot = slot
        self._process: multiprocessing.process.BaseProcess | None = None
        self._left = 0
        self.trial: Trial | None = None

    def give(self, trial: Trial, judging: Judging) -> None:
        if self._process is not None and not (self._left and self._process.is_alive()):
            self.dismiss()
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self.connection, theirs = context.Pipe()
            # A daemon is ended with this process even where a second Ctrl-C keeps us from it.
            self._process = context.Process(target=work, args=(theirs, self._slot), daemon=True)
            self._process.start()
            theirs.close()  # else its end would not show
            self._left = _TRIALS_PER_PROCESS
        self._left -= 1
        self.trial, self.since = trial, time.monotonic()
        self.said = self.since
        with contextlib.suppress(ConnectionError):  # it died just now: there will be no answer
            self.connection.send(trial.log_file)
            self.connection.send((trial, judging))

    def answer(self) -> Outcome:
        """Takes the answer that is there, or learns that the process has died."""
        assert self.trial is not None and self._process is not None
        try:
            failure, ends = self.connection.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode or 0
            how = f"signal {-code}" if code < 0 else f"status {code}"
            failure = f"its process ended with {how}; {self.trial.log_file} has its last words"
            ends = True
        if ends:
            self._left = 0
        outcome = Outcome(self.trial, time.monotonic() - self.since, failure)
        self.trial = None
        return outcome

    def stop(self) -> None:
        """Tells it to save a checkpoint and end, where it is at a trial."""
        if self._process is not None and self.trial is not None:
            self._process.terminate()

    def dismiss(self) -> None:
        """Waits until it has ended: at once where it is idle."""
        if self._process is None:
            return
        with contextlib.suppress(ConnectionError):  # it has ended
            self.connection.send(None)
        try:
            self._process.join()
        finally:
            self._process.kill()  # only where Ctrl-C did not let us wait
            self.connection.close()
            self._process, self.trial = None, None


def run_trials(
    trials: Sequence[Trial],
    slots: Sequence[Slot],
    judging: Judging,
    say: Callable[[str], None],
    already: int = 0,
) -> Generator[Outcome, None, None]:
    """Carries out trials, one at a time in each slot, and yields how each ended.

    Args:
        trials: what is to be done.
        slots: at least one.
        judging: of all trials.
        say: takes the lines for the user.
        already: how many trials of the study were finished before.

    Raises:
        SystemExit: 143 after SIGTERM, 130 after SIGINT, once the running trials have saved.
    """
    waiting, processes = deque(trials), [_Process(slot) for slot in slots]
    began, count = time.monotonic(), already + len(trials)
    done_images, left_images = 0.0, sum(trial.images for trial in trials)
    with catch_signals() as received:
        try:
            while not received:
                for process in processes:
                    if process.trial is None and waiting:
                        process.give(waiting.popleft(), judging)
                busy = {p.connection: p for p in processes if p.trial is not None}
                if not busy:
                    return
                for connection in wait(list(busy), timeout=_LOOKED_EVERY):
                    outcome = busy[connection].answer()  # type: ignore[index]
                    if received:  # it ended of the same signal
                        break
                    already += 1
                    done_images += outcome.trial.images
                    left_images -= outcome.trial.images
                    rest = (time.monotonic() - began) / done_images * left_images
                    how = f"failed: {outcome.failure}" if outcome.failure else "finished"
                    took, left = map(tqdm.format_interval, (outcome.seconds, rest))
                    name = outcome.trial.name
                    say(f"run {already} of {count}, {name}: {how} ({took}; {left} left)")
                    yield outcome
                for process in busy.values():
                    _show(process, say)
        finally:
            for process in processes:
                process.stop()  # all of them save at the same time
            for process in processes:
                process.dismiss()
    say(f"stopped: {already} of {count} runs are finished; the same command goes on")
    raise SystemExit(128 + received[0])


def _show(process: _Process, say: Callable[[str], None]) -> None:
    """Says the last line of a trial, now and then."""
    now = time.monotonic()
    if process.trial is None or now - process.said < _SAID_EVERY:
        return
    process.said = now
    try:
        lines = process.trial.log_file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    if lines.strip():
        say(f"  {process.trial.name}: {lines.strip().splitlines()[-1].strip()}")


def slots_for(processes: int, num_replicas: int, gpus: int) -> list[Slot]:
    """Deals out the machine: a GPU each, or where there is none a share of the cores.

    Args:
        processes: how many slots; 0: one for each GPU, or one.
        num_replicas: of every trial; above 1 all GPUs are one slot's.
        gpus: how many are visible.

    Raises:
        UserError: there is not enough of them.
    """
    if gpus:
        if num_replicas > 1:
            if processes > 1:
                raise UserError(
                    f"--processes={processes}: with --num_replicas={num_replicas} one run at a "
                    "time has all GPUs; leave one of them out"
                )
            if num_replicas > gpus:
                raise UserError(f"--num_replicas={num_replicas}: {gpus} GPUs are visible")
            return [Slot(num_replicas=num_replicas)]
        if processes > gpus:
            raise UserError(f"--processes={processes}: {gpus} GPUs are visible")
        named = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = named.split(",") if named else [str(number) for number in range(gpus)]
        return [Slot(gpus=name) for name in names[: processes or gpus]]
    if processes < 2:
        return [Slot(num_replicas=num_replicas)]
    if not hasattr(os, "sched_setaffinity"):
        raise UserError(f"--processes={processes}: this system does not give processes cores")
    cores = sorted(os.sched_getaffinity(0))
    if processes > len(cores):
        raise UserError(f"--processes={processes}: there are {len(cores)} cores")
    shares = [tuple(cores[k::processes]) for k in range(processes)]
    return [Slot(share, num_replicas=num_replicas) for share in shares]
