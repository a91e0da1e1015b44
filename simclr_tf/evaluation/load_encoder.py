"""Frozen encoders of runs and of exported models."""

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
from simclr_tf.utils.paths import user_path


@dataclass(frozen=True)
class FrozenEncoder:
    """An encoder whose weights do not change; fingerprints differ if the outputs differ.

    `encoder` is called as encoder(images float32 [B, S, S, 3] in [0, 1], training=False). `step` is
    0 if unknown. `outputs_fn` returns {"": h, "projection": g(h)}, or is None without a projection
    head.
    """

    encoder: Encoder
    fingerprint: str
    image_size: int
    step: int = 0
    outputs_fn: OutputsFn | None = None
    head_fingerprint: str = ""


def encoder_from_run(model_dir: str | Path) -> FrozenEncoder:
    """Loads the encoder of a run with the weights of its newest checkpoint."""
    config, _ = RunDir(model_dir).read_config()
    return encoder_from_model(load_model(model_dir), config)


def encoder_from_model(model: SimCLR | Classifier, config: PretrainConfig) -> FrozenEncoder:
    """Returns the encoder of a run's model, on one device."""
    fingerprint = f"{hash_weights(model.encoder.variables)} {config.optimization.precision}"
    size, step = config.augmentation.evaluation_size, int(model.step.numpy())
    if not isinstance(model, SimCLR):
        return FrozenEncoder(model.encoder, fingerprint, size, step)

    def outputs_fn(images: tf.Tensor) -> dict[str, tf.Tensor]:
        features = model.encoder(images, training=False)
        return {"": features, "projection": model.projection_head(features, training=False)}

    head_fingerprint = hash_weights(model.projection_head.variables)
    return FrozenEncoder(model.encoder, fingerprint, size, step, outputs_fn, head_fingerprint)


def untrained_encoder(config: PretrainConfig) -> tuple[keras.Model, str]:
    """Returns the encoder of a run with its initial weights, and its fingerprint."""
    keras.utils.set_random_seed(config.optimization.seed)
    encoder = build_encoder(config.encoder)
    return encoder, hash_weights(encoder.variables)


def encoder_from_saved_model(path: str | Path) -> FrozenEncoder:
    """Loads the encoder of a SavedModel of `simclr-tf export`."""
    try:
        loaded = tf.saved_model.load(user_path(path))
        spec = loaded.signatures["serving_default"].structured_input_signature[1]["images"]
        outputs = loaded.signatures["all_outputs"]
        fingerprint = hash_weights(loaded.variables)
    except (OSError, KeyError, AttributeError) as error:
        raise UserError(
            f"--encoder={path}: expected a SavedModel of an encoder, got: "
            f"{str(error).splitlines()[0]}. Fix: choose a directory of simclr-tf export"
        ) from None
    size = spec.shape[1]
    if not size:
        raise UserError(
            f"--encoder={path}: its signature has no fixed image size. "
            "Fix: export it with one (simclr-tf export)"
        )
    if "projection" not in outputs.structured_outputs:
        return FrozenEncoder(loaded, fingerprint, size)

    def outputs_fn(images: tf.Tensor) -> dict[str, tf.Tensor]:
        result = outputs(images=images)
        return {"": result["features"], "projection": result["projection"]}

    head_fingerprint = hash_weights(getattr(loaded, "projection_variables", ()))
    return FrozenEncoder(loaded, fingerprint, size, 0, outputs_fn, head_fingerprint)
