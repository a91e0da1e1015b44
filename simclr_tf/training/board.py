"""What TensorBoard shows of a run, apart from its profile: written to the run's `tensorboard`."""

import json
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from simclr_tf.config import to_json
from simclr_tf.run import Run, settings_of


class Board:
    """Writes for TensorBoard.

    Args:
        run: whose config.json is there.
        step: from which on the run goes.
    """

    def __init__(self, run: Run, step: int):
        config, plan = run.read()
        self._writer = tf.summary.create_file_writer(str(run.tensorboard_dir))
        settings = {
            name.removeprefix("--"): value
            for name, value in settings_of(config, plan).items()
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
