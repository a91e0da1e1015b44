"""What TensorBoard shows of a run, apart from its profile: written to the run's `tensorboard`."""

import json
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.plugins.hparams import api as hparams
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from simclr_tf.config import to_json
from simclr_tf.runs.run_dir import RunDir, identity_settings


class TensorBoardWriter:
    """Writes for TensorBoard.

    Args:
        run: whose config.json is there.
        step: from which on the run goes.
    """

    def __init__(self, run: RunDir, step: int):
        config, plan = run.read_config()
        _start(run.tensorboard_dir, step)
        self._writer = tf.summary.create_file_writer(str(run.tensorboard_dir))
        settings = {
            name.removeprefix("--"): value
            for name, value in identity_settings(config, plan).items()
            if isinstance(value, bool | int | float | str)
        }
        document = {"config": to_json(config), "plan": to_json(plan)}
        with self._writer.as_default(step=step):
            hparams.hparams(settings)
            # Markdown: indented, it is shown as it stands, whatever names it holds.
            lines = json.dumps(document, indent=2).splitlines()
            tf.summary.text("config", "\n".join(f"    {line}" for line in lines))
        self._writer.flush()

    def show(
        self,
        step: int,
        figures: Mapping[str, float],
        pictures: Mapping[str, np.ndarray],
        trust_ratios: np.ndarray,
    ) -> None:
        """Writes a row of figures, pictures uint8 [H, W, 3], and a histogram of ratios [K]."""
        with self._writer.as_default(step=step):
            for name, value in figures.items():
                tf.summary.scalar(name, value)
            for name, picture in pictures.items():
                tf.summary.image(name, picture[tf.newaxis])
            if len(trust_ratios):
                tf.summary.histogram("trust_ratio", trust_ratios)
        self._writer.flush()


def _start(directory: Path, step: int) -> None:
    """Has TensorBoard forget what an earlier start logged after a step: it comes again.

    Said at the first start, too: TensorBoard forgets nothing before the second.
    """
    # Its file's name sorts before that of the writer that is made next.
    writer = EventFileWriter(str(directory))
    start = SessionLog(status=SessionLog.START)
    writer.add_event(Event(wall_time=time.time(), step=step + 1, session_log=start))
    writer.close()
