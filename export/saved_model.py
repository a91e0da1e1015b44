"""Export to a Reusable SavedModel."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.errors import UserError
from simclr_tf.evaluation.protocols import AffineClassifier
from simclr_tf.exporter.image_bytes import decode_and_crop
from simclr_tf.exporter.inference_copy import float32_inference_copy
from simclr_tf.exporter.model_card import add_checksum
from simclr_tf.utils.files import atomic_path, write_errors_name
from simclr_tf.utils.paths import user_path

WEIGHTS = "variables/variables.data-00000-of-00001"


def export_saved_model(
    encoder: keras.Model,
    output: str | Path,
    *,
    image_size: int,
    model_card: str,
    projection_head: keras.Model | None = None,
    classifier: AffineClassifier | None = None,
    classifier_input: keras.Model | None = None,
    class_names: Sequence[str] = (),
    float16: bool = False,
    storage_size: int | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes an encoder as a Reusable SavedModel, complete or not at all.

    The loaded object maps images, float32 [N, S, S, 3] in [0, 1], to features, float32 [N, D]:
    `obj(images, training=False)`; with `training=True` batch normalization uses the batch's
    statistics and updates its moving averages. It has `variables`, `trainable_variables` and
    `regularization_losses`, and these signatures:

    - `serving_default`: `images` → `features`
    - `all_outputs`: `images` → every `block_groupK` [N, h, w, c], `features`, `projection` [N, P]
      with a projection head, and `logits` [N, C] with a classifier
    - `classify`, with a classifier: `images` → `logits`, `probabilities` [N, C], `label` int64 [N]
      and `class_name`, strings [N]. `obj.class_names()` returns the names of all C classes.
    - `serving_encoded`, with a `storage_size`: `image_bytes`, strings [N] of JPEG or PNG files of
      any size → `features` and the outputs of `classify`

    The export is a float32 copy with ordinary batch normalization, for any precision and
    distribution of `encoder`, which may be in training. With several workers all of them must call
    this function, each with a different `output`, because batch-norm statistics are averaged.

    >>> import tempfile
    >>> import numpy as np
    >>> import tensorflow as tf
    >>> from simclr_tf.exporter import export_saved_model
    >>> import tf_keras as keras
    >>> encoder = keras.Sequential(
    ...     [keras.Input((8, 8, 3)), keras.layers.Conv2D(32, 3), keras.layers.GlobalMaxPool2D()])
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = export_saved_model(
    ...         encoder, f"{directory}/encoder", image_size=8, model_card="# Encoder")
    ...     loaded = tf.saved_model.load(str(path))
    ...     loaded(np.zeros([2, 8, 8, 3], np.float32)).shape
    TensorShape([2, 32])

    Args:
        encoder: functional or Sequential model, images → [N, D].
        output: the directory to create.
        image_size: S, in pixels.
        model_card: Markdown, written to README.md in the directory; a checksum is appended.
        projection_head: features → [N, P]; its variables are not in `obj.variables`.
        classifier: of the features, or of the output of `classifier_input`; its variables are
            `obj.classifier_variables`.
        classifier_input: features → input of the classifier.
        class_names: of the classifier's C logits.
        float16: store kernels in float16, for inference; computation stays float32.
        storage_size: side of the square at which evaluation stores images before it crops them.
        overwrite: replace `output` if it exists.

    Returns:
        `output` as a Path.

    Raises:
        UserError: `output` exists and `overwrite` is not set, it cannot be written, or a model is
            neither functional nor Sequential.
    """
    output = user_path(output)
    check_does_not_exist(output, overwrite)

    def copy_model(model: keras.Model | None) -> keras.Model | None:
        return None if model is None else float32_inference_copy(model, float16)

    head = None
    if classifier is not None:
        head = _ClassifierHead(classifier, copy_model(classifier_input), class_names)
    root, signatures = _build_reusable_saved_model(
        float32_inference_copy(encoder, float16),
        copy_model(projection_head),
        head,
        image_size,
        storage_size,
    )
    with atomic_path(output) as temporary, write_errors_name(output, tf.errors.OpError):
        tf.saved_model.save(root, str(temporary), signatures=signatures)
        card = add_checksum(model_card, temporary, WEIGHTS)
        (temporary / "README.md").write_text(card, encoding="utf-8")
    return output


def check_does_not_exist(output: str | Path, overwrite: bool = False) -> None:
    """Raises UserError if `output` exists and `overwrite` is not set."""
    if not overwrite and os.path.lexists(output):
        raise UserError(
            f"--output={output}: expected a path that does not exist, got an existing one. "
            "Fix: remove it or choose another --output"
        )


class _ReusableSavedModel(tf.Module):
    """Root object: functions and lists of variables.

    Keras models are not attributes, because their functions and metadata would be saved, too.
    """

    # The attributes of tf.Module are properties, which are not saved.
    variables: Any = None
    trainable_variables: Any = None


class _ClassifierHead:
    """Optional hidden layers and the affine classifier."""

    def __init__(
        self, fitted: AffineClassifier, input_model: keras.Model | None, class_names: Sequence[str]
    ):
        if fitted.kernel.shape[1] != len(class_names):
            raise ValueError(f"{fitted.kernel.shape[1]} logits, but {len(class_names)} class names")
        self._kernel = tf.Variable(fitted.kernel, dtype=tf.float32, name="classifier/kernel")
        self._bias = tf.Variable(fitted.bias, dtype=tf.float32, name="classifier/bias")
        self._input_model = input_model
        inputs = input_model.variables if input_model else []
        self.variables = [*inputs, self._kernel, self._bias]
        self.names = tf.constant(list(class_names))

    def logits(self, features: tf.Tensor) -> tf.Tensor:
        if self._input_model is not None:
            features = self._input_model(features, training=False)
        return tf.matmul(features, self._kernel) + self._bias

    def predict(self, features: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = self.logits(features)
        label = tf.argmax(logits, axis=1)
        return {
            "logits": logits,
            "probabilities": tf.nn.softmax(logits),
            "label": label,
            "class_name": tf.gather(self.names, label),
        }


def _build_reusable_saved_model(
    encoder: keras.Model,
    head: keras.Model | None,
    classifier: _ClassifierHead | None,
    image_size: int,
    storage_size: int | None,
) -> tuple[_ReusableSavedModel, Mapping[str, Any]]:
    """Returns the object to save and its signatures."""
    images_spec = tf.TensorSpec([None, image_size, image_size, 3], tf.float32, name="images")
    endpoints = {
        layer.name: layer.output
        for layer in encoder.layers
        if re.fullmatch(r"block_group\d+", layer.name)
    }
    multi_output_model = keras.Model(encoder.inputs, {**endpoints, "features": encoder.output})

    @tf.function(autograph=False)
    def call(images, training=False):
        return encoder(images, training=training)

    @tf.function(autograph=False, input_signature=[images_spec])
    def serve(images):
        return {"features": encoder(images, training=False)}

    @tf.function(autograph=False, input_signature=[images_spec])
    def all_outputs(images):
        outputs = multi_output_model(images, training=False)
        if head is not None:
            outputs["projection"] = head(outputs["features"], training=False)
        if classifier is not None:
            outputs["logits"] = classifier.logits(outputs["features"])
        return outputs

    @tf.function(autograph=False, input_signature=[images_spec])
    def classify(images):
        assert classifier is not None
        return classifier.predict(encoder(images, training=False))

    @tf.function(
        autograph=False, input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")]
    )
    def encoded(image_bytes):
        features = encoder(decode_and_crop(image_bytes, image_size, storage_size), training=False)
        prediction = {} if classifier is None else classifier.predict(features)
        return {"features": features, **prediction}

    for training in (False, True):
        call.get_concrete_function(images_spec, training=training)

    root = _ReusableSavedModel()
    root.__call__ = call
    root.variables = list(encoder.variables)
    root.trainable_variables = list(encoder.trainable_variables)
    root.regularization_losses = [
        tf.function(lambda i=i: encoder.losses[i], input_signature=[])
        for i in range(len(encoder.losses))
    ]
    root.projection_variables = list(head.variables) if head is not None else []
    root.classifier_variables = classifier.variables if classifier is not None else []
    signatures = {"serving_default": serve, "all_outputs": all_outputs}
    if classifier is not None:
        signatures["classify"] = classify
        root.class_names = tf.function(lambda: classifier.names, input_signature=[])
    if storage_size is not None:
        signatures["serving_encoded"] = encoded
    return root, signatures
