"""Worker processes of a study.

The study process only schedules: each worker process has a separate GPU or separate cores, and
executes several trials, which share TensorFlow's startup and the compiled augmentation. The output
of a trial is appended to its log file.
"""

import dataclasses
import functools
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Generator, Sequence
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from simclr_tf.errors import UserError
from simclr_tf.study.trial import Trial, TrialEvaluation, train_and_evaluate
from simclr_tf.utils.log import show_progress
from simclr_tf.utils.signals import catch_signals, signal_name

logger = logging.getLogger(__name__)

_TRIALS_PER_PROCESS = 20  # TensorFlow leaks some 40 MB with each
_LOG_INTERVAL = 30.0  # seconds between the progress lines of a trial
_POLL_INTERVAL = 1.0  # seconds between checks for signals


@dataclasses.dataclass(frozen=True)
class Resources:
    """Devices of a worker process."""

    cores: tuple[int, ...] = ()  # (): all
    gpus: str | None = None  # of CUDA_VISIBLE_DEVICES; None: unchanged
    num_replicas: int = 0  # of every trial, on these devices; 0: one device


def _too_many(name: str, value: int, limit: int, kind: str) -> UserError:
    return UserError(
        f"--{name}={value}: expected at most {limit}, the number of {kind}. Fix: --{name}={limit}"
    )


def allocate_workers(processes: int, num_replicas: int, gpus: int) -> list[Resources]:
    """Divides the machine among worker processes: a GPU each, or without GPUs part of the cores."""
    if gpus:
        if num_replicas > 1:
            if processes > 1:
                raise UserError(
                    f"--processes={processes}: with --num_replicas={num_replicas} a single run "
                    "uses all GPUs. Fix: omit one of the two"
                )
            if num_replicas > gpus:
                raise _too_many("num_replicas", num_replicas, gpus, "visible GPUs")
            return [Resources(num_replicas=num_replicas)]
        if processes > gpus:
            raise _too_many("processes", processes, gpus, "visible GPUs")
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(number) for number in range(gpus)]
        return [Resources(gpus=name) for name in names[: processes or gpus]]
    if processes < 2:
        return [Resources(num_replicas=num_replicas)]
    if not hasattr(os, "sched_setaffinity"):
        raise UserError(
            f"--processes={processes}: expected 1, because this system cannot assign cores to "
            "processes. Fix: omit it"
        )
    cores = sorted(os.sched_getaffinity(0))
    if processes > len(cores):
        raise _too_many("processes", processes, len(cores), "available cores")
    shares = [tuple(cores[k::processes]) for k in range(processes)]
    return [Resources(share, num_replicas=num_replicas) for share in shares]


class _Worker:
    """A process that executes one trial at a time and is replaced when it has ended."""

    def __init__(self, resources: Resources):
        self._resources = resources
        self._pool: ProcessPoolExecutor | None = None
        self._pid = 0
        self._remaining = 0
        self.future: futures.Future | None = None

    def start(self, trial: Trial, evaluation: TrialEvaluation) -> None:
        """Starts a trial; its outcome is that of `future`."""
        if not self._remaining:
            self.close()
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(
                1, context, initializer=_initialize_worker, initargs=(self._resources,)
            )
            self._pid = self._pool.submit(os.getpid).result()
            self._remaining = _TRIALS_PER_PROCESS
        assert self._pool is not None
        self._remaining -= 1
        self.trial = trial
        self.started_at = self._logged_at = time.monotonic()
        self.future = self._pool.submit(_run_trial, trial, evaluation, self._resources.num_replicas)

    def failure(self) -> str:
        """Returns the reason why the trial failed, or ""; `future` is done."""
        assert self.future is not None
        future, self.future = self.future, None
        try:
            failure, is_reusable = future.result()
        except BrokenProcessPool:
            log = self.trial.log_file
            failure = f"the process was killed or crashed; {log} has its last output"
            is_reusable = False
        if not is_reusable:
            self._remaining = 0
        return failure

    def log_last_line(self) -> None:
        """Logs the last line of the trial's output at intervals."""
        if time.monotonic() - self._logged_at < _LOG_INTERVAL:
            return
        self._logged_at = time.monotonic()
        with suppress(OSError):
            text = self.trial.log_file.read_text(encoding="utf-8", errors="replace").strip()
            if text:
                logger.info(f"  {self.trial.name}: {text.splitlines()[-1].strip()}")

    def interrupt(self) -> None:
        """Makes the process save a checkpoint and exit, if it executes a trial."""
        if self.future is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGTERM)

    def close(self) -> None:
        """Waits until the process has ended, which an idle one does at once."""
        if self._pool is None:
            return
        try:
            self._pool.shutdown()
        except BaseException:  # a second Ctrl-C
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            raise
        self._pool, self.future = None, None


def run_trials(
    trials: Sequence[Trial],
    workers: Sequence[Resources],
    evaluation: TrialEvaluation,
    num_finished: int = 0,
) -> Generator[tuple[Trial, str], None, None]:
    """Executes trials, one at a time in each process; yields (trial, reason of its failure or "").

    After a signal, it raises SystemExit once the running trials have saved.
    """
    waiting, pool = deque(trials), [_Worker(resources) for resources in workers]
    start, total = time.monotonic(), num_finished + len(trials)
    cost_done, cost_left = 0.0, sum(trial.cost for trial in trials)
    with catch_signals(_log_signal) as received:
        try:
            while not received:
                for worker in pool:
                    if worker.future is None and waiting:
                        worker.start(waiting.popleft(), evaluation)
                busy = {worker.future: worker for worker in pool if worker.future}
                if not busy:
                    return
                done, _ = futures.wait(busy, _POLL_INTERVAL, futures.FIRST_COMPLETED)
                for future, worker in busy.items():
                    worker.log_last_line()
                    if received:  # the trials end because of the same signal
                        break
                    if future not in done:
                        continue
                    trial, failure = worker.trial, worker.failure()
                    num_finished += 1
                    cost_done += trial.cost
                    cost_left -= trial.cost
                    now = time.monotonic()
                    remaining = (now - start) / cost_done * cost_left
                    elapsed, left = map(tqdm.format_interval, (now - worker.started_at, remaining))
                    state = f"failed: {failure}" if failure else "finished"
                    logger.info(
                        f"run {num_finished} of {total}, {trial.name}: {state} ({elapsed}; {left} "
                        "left)"
                    )
                    yield trial, failure
        finally:
            for worker in pool:
                worker.interrupt()  # all of them save at the same time
            for worker in pool:
                worker.close()
    logger.info(
        f"stopped: {num_finished} of {total} runs are finished. Run the same command to resume"
    )
    raise SystemExit(128 + received[0])


def _log_signal(number: int, is_repeated: bool) -> None:
    if not is_repeated:
        logger.info(f"{signal_name(number)}: the study stops as soon as its current runs are saved")


def _initialize_worker(resources: Resources) -> None:
    """Prepares a worker process, before it imports TensorFlow."""
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    # Ctrl-C reaches all processes of a terminal; this one waits for the study's SIGTERM.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # tqdm's own lock has a semaphore, about which Python warns if this process is killed.
    tqdm.set_lock(threading.RLock())
    if resources.cores:
        os.sched_setaffinity(0, resources.cores)
    if resources.gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = resources.gpus


def _stop_with_parent():
    """Ends a trial as SIGTERM does, with a checkpoint, when the study's process has ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _run_trial(trial: Trial, evaluation: TrialEvaluation, num_replicas: int) -> tuple[str, bool]:
    """Executes a trial in a worker process; returns why it failed, and if the process is usable."""
    _redirect_output(trial.log_file)
    show_progress()
    try:
        train_and_evaluate(trial, evaluation, _make_distribution(num_replicas))
        return "", True
    except UserError as error:
        print(f"error: {error}")
        return str(error), True
    except SystemExit as stop:  # after a signal; the pool would keep the process
        sys.stdout.flush()
        os._exit(stop.code if isinstance(stop.code, int) else 1)
    except Exception as error:
        traceback.print_exc()
        first_line = (str(error).strip() or "no message").splitlines()[0]
        return f"{type(error).__name__}: {first_line[:200]}", False  # its state is unknown


@functools.cache
def _make_distribution(num_replicas):
    from simclr_tf.option_groups import Distribution
    from simclr_tf.training.distribution import make_distribution

    strategy = "mirrored" if num_replicas else "one_device"
    return make_distribution(Distribution(strategy=strategy, num_replicas=num_replicas))


def _redirect_output(path: Path) -> None:
    """Appends all output of this process, including that of C++ code, to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        stream.flush()
        os.dup2(file, number)
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.close(file)
