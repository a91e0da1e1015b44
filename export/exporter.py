"""The exporter: an encoder becomes a Reusable SavedModel that needs nothing of this package."""

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.errors import UserError
from simclr_tf.evaluation.protocols import AffineClassifier

CARD = "README.md"


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
    [N], a string.

    What is written is a float32 copy with ordinary batch normalisation, whatever the precision
    and the distribution of `encoder`, which may be in training and is left as it is. Under a
    strategy of several workers all of them must call this, each with an `output` of its own:
    averaging batch-norm statistics over replicas takes them all.

    Args:
        encoder: functional or Sequential, images → [N, D].
        output: the directory to make.
        image_size: S, in pixels.
        model_card: Markdown, written beside the model as README.md.
        projection_head: features → [N, P]; its variables are not among `obj.variables`.
        classifier: of the features, or of what `classifier_input` makes of them; its variables are
            `obj.classifier_variables`.
        classifier_input: features → what the classifier sees, or None.
        class_names: of the classifier's C logits.
        overwrite: replace `output` if it is there.

    Returns:
        `output` as a Path.

    Raises:
        UserError: `output` is there and `overwrite` is not set, or a model is neither functional
            nor Sequential.
    """
    output = Path(output)
    if output.exists() and not overwrite:
        raise UserError(f"--output={output} is there already; remove it or name another directory")
    for model in filter(None, (encoder, projection_head, classifier_input)):
        if not model.inputs:
            raise UserError(
                f"the model {model.name!r} is a subclass without a graph of layers, which cannot "
                "be exported; build it with the functional API or as keras.Sequential"
            )
    output.parent.mkdir(parents=True, exist_ok=True)
    scratch = output.with_name(f".{output.name}.incomplete")
    discarded = output.with_name(f".{output.name}.replaced")
    for leftover in (scratch, discarded):  # of an export that was killed
        if leftover.exists():
            shutil.rmtree(leftover)
    head = None if projection_head is None else _plain_copy(projection_head)
    top = None
    if classifier is not None:
        hidden = None if classifier_input is None else _plain_copy(classifier_input)
        top = _Classifier(classifier, hidden, class_names)
    root, signatures = _reusable(_plain_copy(encoder), head, top, image_size)
    tf.saved_model.save(root, str(scratch), signatures=signatures)
    (scratch / CARD).write_text(model_card, encoding="utf-8")
    if output.exists():
        # A directory cannot be replaced while it holds anything.
        os.replace(output, discarded)
        os.replace(scratch, output)
        shutil.rmtree(discarded)
    else:
        os.replace(scratch, output)
    return output


def export_step(
    encoder: keras.Model, export_dir: str | Path, step: int, *, keep: int = 1, **settings: Any
) -> Path:
    """Write `EXPORT_DIR/STEP/` as TensorFlow Serving wants it, and keep the newest `keep` steps.

    An export of the same step is replaced. `keep` 0 or less keeps all. The other arguments are
    those of `export_saved_model`.
    """
    export_dir = Path(export_dir)
    output = export_saved_model(encoder, export_dir / str(step), overwrite=True, **settings)
    steps = sorted(int(p.name) for p in export_dir.iterdir() if re.fullmatch(r"\d+", p.name))
    older = [s for s in steps if s != step]
    for outdated in older[: max(0, len(steps) - keep)] if keep > 0 else []:
        shutil.rmtree(export_dir / str(outdated))
    return output


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
        self._names = tf.constant(list(class_names))

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
            "class_name": tf.gather(self._names, label),
        }


def _reusable(
    encoder: keras.Model,
    head: keras.Model | None,
    classifier: _Classifier | None,
    image_size: int,
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
    return root, signatures | ({"classify": classify} if classifier is not None else {})


def _plain_copy(model: keras.Model) -> keras.Model:
    """Rebuild `model` in float32 with unsynchronised batch normalisation and the same weights."""

    def plain(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.Model):
            return keras.models.clone_model(layer, clone_function=plain)
        # tf_keras leaves `synchronized` out of the configuration: what is made from it is plain.
        return layer.__class__.from_config(_in_float32(layer.get_config()))

    inputs = keras.Input(model.input_shape[1:], dtype=tf.float32, name=model.input_names[0])
    copy = keras.models.clone_model(model, input_tensors=inputs, clone_function=plain)
    copy.set_weights(model.get_weights())
    # What was frozen while training is for the model's user to freeze.
    copy.trainable = True
    return copy


def _in_float32(config: Any) -> Any:
    """Return a layer's configuration with every `dtype` in it float32."""
    if isinstance(config, dict):
        return {
            key: "float32" if key == "dtype" else _in_float32(value)
            for key, value in config.items()
        }
    if isinstance(config, list):
        return [_in_float32(value) for value in config]
    if isinstance(config, tuple):
        return tuple(_in_float32(value) for value in config)
    return config
