"""The exporter: an encoder becomes a Reusable SavedModel that needs nothing of this package."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.evaluation.protocols import AffineClassifier
from simclr_tf.exporter.image_bytes import decode_and_crop
from simclr_tf.exporter.inference_copy import plain_copy
from simclr_tf.exporter.model_card import with_checksum
from simclr_tf.exporter.output_path import check_free
from simclr_tf.utils.files import atomic_path

CARD = "README.md"
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
    """Write `encoder` as a Reusable SavedModel, complete or not at all.

    The loaded object maps images, float32 [N, S, S, 3] in [0, 1], to features, float32 [N, D]:
    `obj(images, training=False)`; with `training=True` batch normalisation uses the batch's
    statistics and updates its moving averages. It has `variables`, `trainable_variables` and
    `regularization_losses`, the signature `serving_default` (`images` → `features`) and the
    signature `all_outputs` (→ every `block_groupK` [N, h, w, c], `features`, and `projection`
    where there is a head). With a classifier, `all_outputs` has `logits` [N, C] too, and the
    signature `classify` gives `logits`, `probabilities` [N, C], `label` int64 [N] and `class_name`
    [N], a string; `obj.class_names()` gives the names of all C. With a `storage_size` the signature
    `serving_encoded` takes `image_bytes`, strings [N] that hold JPEG or PNG files of any size, and
    gives `features`, and what `classify` gives.

    What is written is a float32 copy with ordinary batch normalisation, whatever the precision
    and the distribution of `encoder`, which may be in training and is left as it is. Under a
    strategy of several workers all of them must call this, each with an `output` of its own:
    averaging batch-norm statistics over replicas takes them all.

    Args:
        encoder: functional or Sequential, images → [N, D].
        output: the directory to make.
        image_size: S, in pixels.
        model_card: Markdown, written beside the model as README.md; a checksum is added.
        projection_head: features → [N, P]; its variables are not among `obj.variables`.
        classifier: of the features, or of what `classifier_input` makes of them; its variables are
            `obj.classifier_variables`.
        classifier_input: features → what the classifier sees, or None.
        class_names: of the classifier's C logits.
        float16: keep kernels in half precision: half the bytes, for inference. They are computed
            with in float32; batch normalisation stays float32.
        storage_size: the side of the square that evaluation stores images of any size at, from
            which it crops: the same for encoded images.
        overwrite: replace `output` if it is there.

    Returns:
        `output` as a Path.

    Raises:
        UserError: `output` is there and `overwrite` is not set, or a model is neither functional
            nor Sequential.
    """
    check_free(output, overwrite)
    copy = plain_copy(encoder, float16)
    head = None if projection_head is None else plain_copy(projection_head, float16)
    top = None
    if classifier is not None:
        hidden = None if classifier_input is None else plain_copy(classifier_input, float16)
        top = _Classifier(classifier, hidden, class_names)
    root, signatures = _reusable(copy, head, top, image_size, storage_size)
    with atomic_path(output) as scratch:
        tf.saved_model.save(root, str(scratch), signatures=signatures)
        card = with_checksum(model_card, scratch, WEIGHTS)
        (scratch / CARD).write_text(card, encoding="utf-8")
    return Path(output)


class _Reusable(tf.Module):
    """What is saved: functions and lists of variables.

    The Keras models stay out of it, or their own functions and metadata would be saved too.
    """

    # tf.Module's own are properties, which are not saved.
    variables: Any = None
    trainable_variables: Any = None


class _Classifier:
    """The affine head of an export, what stands before it, and its answer."""

    def __init__(
        self, fitted: AffineClassifier, hidden: keras.Model | None, class_names: Sequence[str]
    ):
        kernel, bias = (tf.constant(part, tf.float32) for part in (fitted.kernel, fitted.bias))
        if kernel.shape[1] != len(class_names):
            raise ValueError(f"{kernel.shape[1]} logits, but {len(class_names)} class names")
        self._kernel = tf.Variable(kernel, name="classifier/kernel")
        self._bias = tf.Variable(bias, name="classifier/bias")
        self._hidden = hidden
        self.names = tf.constant(list(class_names))

    @property
    def variables(self) -> list[tf.Variable]:
        return [*(self._hidden.variables if self._hidden else ()), self._kernel, self._bias]

    def logits(self, features: tf.Tensor) -> tf.Tensor:
        hidden = features if self._hidden is None else self._hidden(features, training=False)
        return tf.matmul(hidden, self._kernel) + self._bias

    def answer(self, features: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = self.logits(features)
        label = tf.argmax(logits, axis=1)
        return {
            "logits": logits,
            "probabilities": tf.nn.softmax(logits),
            "label": label,
            "class_name": tf.gather(self.names, label),
        }


def _reusable(
    encoder: keras.Model,
    head: keras.Model | None,
    classifier: _Classifier | None,
    image_size: int,
    storage_size: int | None,
) -> tuple[_Reusable, Mapping[str, Any]]:
    """Return the object to save and its signatures."""
    images_spec = tf.TensorSpec([None, image_size, image_size, 3], tf.float32, name="images")
    endpoints = {
        layer.name: layer.output
        for layer in encoder.layers
        if re.fullmatch(r"block_group\d+", layer.name)
    }
    everything = keras.Model(encoder.inputs, {**endpoints, "features": encoder.output})

    @tf.function(autograph=False)
    def call(images, training=False):
        return encoder(images, training=training)

    @tf.function(autograph=False, input_signature=[images_spec])
    def serve(images):
        return {"features": encoder(images, training=False)}

    @tf.function(autograph=False, input_signature=[images_spec])
    def all_outputs(images):
        outputs = everything(images, training=False)
        if head is not None:
            outputs["projection"] = head(outputs["features"], training=False)
        if classifier is not None:
            outputs["logits"] = classifier.logits(outputs["features"])
        return outputs

    @tf.function(autograph=False, input_signature=[images_spec])
    def classify(images):
        assert classifier is not None
        return classifier.answer(encoder(images, training=False))

    @tf.function(
        autograph=False, input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")]
    )
    def encoded(image_bytes):
        features = encoder(decode_and_crop(image_bytes, image_size, storage_size), training=False)
        answer = {} if classifier is None else classifier.answer(features)
        return {"features": features, **answer}

    for training in (False, True):
        call.get_concrete_function(images_spec, training=training)

    root = _Reusable()
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
