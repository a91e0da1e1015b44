"""Loading a run's model with the weights of a checkpoint."""

import logging
from pathlib import Path

import tensorflow as tf
import tf_keras as keras

from simclr_tf.errors import UserError
from simclr_tf.models import Classifier, SimCLR
from simclr_tf.models.build import build_model
from simclr_tf.runs.run_dir import RunDir

logger = logging.getLogger(__name__)


def load_model(model_dir: str | Path, step: int | None = None) -> SimCLR | Classifier:
    """Loads the model of a run with the weights of a checkpoint.

    `model.encoder(images, training=False)` returns the features of images [N, S, S, 3] in [0, 1],
    and `int(model.step)` the step of the weights. Of a run with `ema_decay` they are the averages.

    >>> import tempfile
    >>> import simclr_tf as st
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     try:
    ...         model = st.load(directory)
    ...     except st.errors.UserError as error:
    ...         print(str(error).rpartition("/")[2].partition(" ")[2])
    holds no run (config.json: No such file or directory). Fix: choose the directory of a run

    Args:
        model_dir: the run directory.
        step: of the checkpoint. Default: the newest.

    Returns:
        The compiled SimCLR model; of a fine-tuned or distilled run, the Classifier.

    Raises:
        UserError: the run or checkpoint does not exist, or they do not match.
    """
    run = RunDir(model_dir)
    model = build_model(*run.read_config())
    restore(model, run, step)
    if model.averages is not None:
        model.set_layer_weights(model.evaluation_weights())
        logger.info(f"using the averaged weights of {run.path} (--ema_decay={model.ema_decay:g})")
    return model


def restore(model: keras.Model, run: RunDir, step: int | None = None) -> None:
    """Restores all variables of a compiled model from a run's checkpoint, without averaging."""
    path = run.checkpoint(step)
    try:
        tf.train.Checkpoint(model=model).restore(path).assert_consumed()
    except (AssertionError, IndexError, ValueError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{path} does not contain this model: {reason}. Fix: to use an older checkpoint, write "
            f"its name to {run.checkpoint_dir}/checkpoint"
        ) from None
