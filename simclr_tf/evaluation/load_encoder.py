"""The encoder of a run or of an exported model, and what tells its features from others'."""

from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf
import tf_keras as keras

from simclr_tf.config import PretrainConfig
from simclr_tf.errors import UserError
from simclr_tf.evaluation.features import Encoder, hash_weights
from simclr_tf.evaluation.transformation_probes import OutputsFn
from simclr_tf.models import Classifier, SimCLR
from simclr_tf.models.build import build_encoder
from simclr_tf.runs.load import load_model
from simclr_tf.runs.run_dir import RunDir


@dataclass(frozen=True)
class FrozenEncoder:
    """An encoder that stays as it is.

    Attributes:
        encoder: called as encoder(images float32 [B, S, S, 3] in [0, 1], training=False) gives h.
        identity: changes with whatever changes h.
        image_size: S, in pixels.
        step: the training step of its weights, 0 where nobody knows.
        represent: gives h as "" and g(h) as "projection"; None where there is no projection head.
        head_fingerprint: changes with whatever changes g.
    """

    encoder: Encoder
    fingerprint: str
    image_size: int
    step: int = 0
    outputs_fn: OutputsFn | None = None
    head_fingerprint: str = ""


def encoder_from_run(model_dir: str | Path) -> FrozenEncoder:
    """Return the encoder of a run, with the weights of its newest checkpoint.

    Raises:
        UserError: there is no run or no checkpoint, or they do not fit each other.
    """
    config, _ = RunDir(Path(model_dir)).read_config()
    return encoder_from_model(load_model(model_dir), config)


def encoder_from_model(model: SimCLR | Classifier, config: PretrainConfig) -> FrozenEncoder:
    """Return the encoder of a run's model, on one device."""
    identity = f"{hash_weights(model.encoder.variables)} {config.optimization.precision}"
    size, step = config.augmentation.image_size, int(model.step.numpy())
    if not isinstance(model, SimCLR):
        return FrozenEncoder(model.encoder, identity, size, step)

    def represent(images: tf.Tensor) -> dict[str, tf.Tensor]:
        features = model.encoder(images, training=False)
        return {"": features, "projection": model.projection_head(features, training=False)}

    of_head = hash_weights(model.projection_head.variables)
    return FrozenEncoder(model.encoder, identity, size, step, represent, of_head)


def untrained_encoder(config: PretrainConfig) -> tuple[keras.Model, str]:
    """Return the encoder of a run with the run's own first weights, and its identity."""
    keras.utils.set_random_seed(config.optimization.seed)
    encoder = build_encoder(config.encoder)
    return encoder, hash_weights(encoder.variables)


def encoder_from_saved_model(path: str | Path) -> FrozenEncoder:
    """Return the encoder that `simclr-tf export` wrote.

    Raises:
        UserError: it is no SavedModel of an image encoder.
    """
    try:
        loaded = tf.saved_model.load(str(path))
        spec = loaded.signatures["serving_default"].structured_input_signature[1]["images"]
        outputs = loaded.signatures["all_outputs"]
        identity = hash_weights(loaded.variables)
    except (OSError, KeyError, AttributeError) as error:
        raise UserError(
            f"--encoder={path}: not a SavedModel of an encoder ({str(error).splitlines()[0]}); "
            "name a directory that simclr-tf export wrote"
        ) from None
    if not spec.shape[1]:
        raise UserError(
            f"--encoder={path}: its signature does not say at which size it takes images; export "
            "it with one (simclr-tf export)"
        )
    if "projection" not in outputs.structured_outputs:
        return FrozenEncoder(loaded, identity, spec.shape[1])

    def represent(images: tf.Tensor) -> dict[str, tf.Tensor]:
        found = outputs(images=images)
        return {"": found["features"], "projection": found["projection"]}

    of_head = hash_weights(getattr(loaded, "projection_variables", ()))
    return FrozenEncoder(loaded, identity, spec.shape[1], 0, represent, of_head)
