"""Loading a run's model with the weights of a checkpoint."""

from pathlib import Path

import tensorflow as tf
import tf_keras as keras

from simclr_tf.errors import UserError
from simclr_tf.models import Classifier, SimCLR
from simclr_tf.models.build import build_model
from simclr_tf.runs.run_dir import RunDir


def load_model(model_dir: str | Path, step: int | None = None) -> SimCLR | Classifier:
    """Returns the model of a run with the weights of a checkpoint.

    Args:
        model_dir: the run directory.
        step: of the checkpoint; None: the newest.

    Returns:
        The SimCLR model (of a fine-tuned run the Classifier), compiled;
        `model.encoder(images, training=False)` gives the features of images [N, S, S, 3] in [0, 1];
        `int(model.step)` is the step of the weights.

    Raises:
        UserError: if there is no run or no checkpoint, or they do not fit each other.
    """
    run = RunDir(Path(model_dir))
    model = build_model(*run.read_config())
    restore(model, run, step)
    return model


def restore(model: keras.Model, run: RunDir, step: int | None = None) -> None:
    """Restores every variable of a compiled model, and nothing less, from a run's checkpoint.

    Raises:
        UserError: if there is no checkpoint, or it does not fit.
    """
    path = run.checkpoint(step)
    try:
        tf.train.Checkpoint(model=model).restore(path).assert_consumed()
    except (AssertionError, IndexError, ValueError, tf.errors.OpError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"{path} does not hold this model: {reason}; to go back to an older checkpoint, name "
            f"it in {run.checkpoint_dir}/checkpoint"
        ) from None
