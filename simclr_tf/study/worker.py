"""A process that carries out one trial after another.

Several trials in one process pay for TensorFlow's start and for compiled augmentation once. What
they print goes into the run directory's log.txt.
"""

import dataclasses
import gc
import multiprocessing
import os
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from simclr_tf.errors import UserError

if TYPE_CHECKING:  # TensorFlow comes after the process has its cores
    from simclr_tf.study.trial import Judging, Trial
    from simclr_tf.training.distribution import DistributionContext


@dataclasses.dataclass(frozen=True)
class Slot:
    """What of the machine one process has.

    Attributes:
        cores: it runs on; (): on any.
        gpus: value of CUDA_VISIBLE_DEVICES; None: as it is.
        num_replicas: of every trial, on the slot's devices; 0: one device.
    """

    cores: tuple[int, ...] = ()
    gpus: str | None = None
    num_replicas: int = 0


def work(connection: Connection, slot: Slot) -> None:
    """Carries out the trials that come over the connection, until None comes.

    Of each there comes first where its lines go, then (trial, judging). The answer is why it
    failed, a line or "", and whether this process ends now: it does after what is no UserError, for
    nobody knows what that left behind.
    """
    threading.Thread(target=_follow_parent, daemon=True).start()
    if slot.cores:
        os.sched_setaffinity(0, slot.cores)
    if slot.gpus is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = slot.gpus
    replicas = None
    while True:
        try:
            log = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        if log is None:
            return
        _print_into(log)
        try:
            trial, judging = connection.recv()  # the first one imports TensorFlow
            if replicas is None:
                replicas = _open_replicas(slot.num_replicas)
            _carry_out(trial, judging, replicas)
            connection.send(("", False))
        except UserError as error:
            print(f"error: {error}")
            connection.send((str(error), False))
        except Exception as error:
            traceback.print_exc()
            first = (str(error).strip() or "no message").splitlines()[0]
            connection.send((f"{type(error).__name__}: {first[:200]}", True))
            return


def _follow_parent():
    """Ends a trial as SIGTERM does, with a checkpoint, when the study's process is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _print_into(path: Path) -> None:
    """Lets everything that this process prints, C++ included, go to the end of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    for stream, number in ((sys.stdout, 1), (sys.stderr, 2)):
        stream.flush()
        os.dup2(file, number)
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    os.close(file)


def _open_replicas(count):
    from simclr_tf.config import Distribution
    from simclr_tf.training.distribution import make_distribution

    strategy = "mirrored" if count else "one_device"
    return make_distribution(Distribution(strategy=strategy, num_replicas=count))


def _carry_out(trial: "Trial", judging: "Judging", replicas: "DistributionContext") -> None:
    import tf_keras as keras

    from simclr_tf.config import FinetuneConfig
    from simclr_tf.evaluation.load_encoder import encoder_from_model, encoder_from_run
    from simclr_tf.runs.run_dir import RunDir
    from simclr_tf.training.tasks import finetune, pretrain
    from simclr_tf.utils.files import directory_lock
    from simclr_tf.utils.log import show_progress

    show_progress()
    keras.backend.clear_session()  # what the trial before has left, however it ended
    gc.collect()
    run = RunDir(trial.path)
    waiting = "another process is at this run: waiting for it"
    # A process that has lost its study may still be saving a checkpoint. (The run's own directory
    # is locked where evaluations.json grows.)
    with directory_lock(run.checkpoint_dir, lambda: print(waiting)):
        train = finetune if isinstance(trial.config, FinetuneConfig) else pretrain
        model = train(trial.config, trial.path, replicas)  # type: ignore[arg-type]
        if replicas.num_replicas > 1:
            trained = encoder_from_run(trial.path)
        else:
            trained = encoder_from_model(model, run.read_config()[0])
        judging.judge(run, trained)
