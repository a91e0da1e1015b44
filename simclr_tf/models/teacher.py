"""Teachers for distillation, loaded from a run or a SavedModel."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from simclr_tf.errors import UserError
from simclr_tf.evaluation.features import hash_weights
from simclr_tf.models import Classifier
from simclr_tf.runs.load import load_model
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.utils.paths import user_path

_HINT = (
    "Fix: choose a run of simclr-tf finetune or distill, or an export of one or of a run with "
    "evaluate --save_classifier"
)


@dataclass(frozen=True)
class Teacher:
    """A frozen classifier."""

    logits: Callable[[tf.Tensor], tf.Tensor]  # images [N, S, S, 3] in [0, 1] → [N, C], inference
    identity: str  # hash of the weights
    image_size: int
    class_names: tuple[str, ...]


def load_teacher(path: str | Path) -> Teacher:
    """Loads the classifier of a run's newest checkpoint, or of an exported SavedModel.

    Its variables are created in the strategy in scope.
    """
    run = RunDir(path)
    return _from_run(run) if run.config_file.exists() else _from_saved_model(path)


def _from_run(run: RunDir) -> Teacher:
    config, plan = run.read_config()
    model = load_model(run.path)
    if not isinstance(model, Classifier):
        raise UserError(f"--teacher={run.path}: a pretrained run has no classifier. {_HINT}")
    # Not the model itself, which would also hold its optimizer in memory.
    parts = [part for part in (model.encoder, model.projection, model.head) if part is not None]

    def logits(images: tf.Tensor) -> tf.Tensor:
        for part in parts:
            images = part(images, training=False)
        return images

    identity = hash_weights(variable for part in parts for variable in part.variables)
    return Teacher(logits, identity, config.augmentation.evaluation_size, plan.class_names)


def _from_saved_model(path: str | Path) -> Teacher:
    try:
        loaded = tf.saved_model.load(user_path(path))
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise UserError(
            f"--teacher={path}: expected a run or a SavedModel ({str(error).splitlines()[0]}). "
            f"{_HINT}"
        ) from None
    try:
        classify = loaded.signatures["classify"]
        size = classify.structured_input_signature[1]["images"].shape[1]
    except (AttributeError, KeyError):
        raise UserError(f"--teacher={path}: an export without a classifier. {_HINT}") from None
    try:
        names = tuple(name.decode() for name in loaded.class_names().numpy())
        variables = [*loaded.variables, *loaded.classifier_variables]
    except AttributeError:
        raise UserError(
            f"--teacher={path}: the export is from an older version and has no class names. Fix: "
            "export it again"
        ) from None

    def logits(images: tf.Tensor, keep: object = loaded) -> tf.Tensor:
        del keep  # a function of a SavedModel does not hold its variables
        return classify(images=images)["logits"]

    return Teacher(logits, hash_weights(variables), size, names)
