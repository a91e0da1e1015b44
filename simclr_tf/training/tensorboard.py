"""TensorBoard summaries of a run, apart from the profile."""

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
from simclr_tf.utils.paths import printable


class TensorBoardWriter:
    """Writes settings, metrics and images of a run that starts or resumes at a step."""

    def __init__(self, run: RunDir, step: int):
        config, plan = run.read_config()
        _write_session_start(run.tensorboard_dir, step)
        self._writer = tf.summary.create_file_writer(str(run.tensorboard_dir))
        settings = {
            name.removeprefix("--"): printable(value) if isinstance(value, str) else value
            for name, value in identity_settings(config, plan).items()
            if isinstance(value, bool | int | float | str)
        }
        document = {"config": to_json(config), "plan": to_json(plan)}
        with self._writer.as_default(step=step):
            hparams.hparams(settings)
            # Indented Markdown is shown verbatim, whatever names it contains.
            lines = json.dumps(document, indent=2).splitlines()
            tf.summary.text("config", "\n".join(f"    {line}" for line in lines))
        self._writer.flush()

    def write(
        self,
        step: int,
        scalars: Mapping[str, float],
        images: Mapping[str, np.ndarray],
        trust_ratios: np.ndarray,
    ) -> None:
        """Writes metrics, images uint8 [H, W, 3], and a histogram of trust ratios [K] if K > 0."""
        with self._writer.as_default(step=step):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)
            for name, image in images.items():
                tf.summary.image(name, image[tf.newaxis])
            if len(trust_ratios):
                tf.summary.histogram("trust_ratio", trust_ratios)
        self._writer.flush()


def _write_session_start(directory: Path, step: int) -> None:
    """Writes a SessionLog.START event, so TensorBoard drops events after the resumed step.

    The first start writes one, too, because TensorBoard acts only on the second one.
    """
    # This file's name sorts before that of the writer that is created next.
    writer = EventFileWriter(str(directory))
    start = SessionLog(status=SessionLog.START)
    writer.add_event(Event(wall_time=time.time(), step=step + 1, session_log=start))
    writer.close()
