"""Frozen features of a whole split: the input of every evaluation protocol."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from simclr_tf.augment import eval_transform
from simclr_tf.data import Source, named, ordered_batches
from simclr_tf.errors import UserError

# A keras.Model or a loaded SavedModel: called as encoder(images [N, S, S, 3], training=False).
Encoder = Callable[..., tf.Tensor]


@dataclass(frozen=True)
class Features:
    """What an encoder says about a split, in the split's order.

    `features` is float32 [N, D]; `labels` is int64 [N], -1 where an image has none.
    """

    features: np.ndarray
    labels: np.ndarray

    @property
    def num_examples(self) -> int:
        """Return N."""
        return len(self.features)


class FeatureExtractor:
    """Turns splits into features with one graph, however many splits and however often.

    Args:
        encoder: called in inference mode on float32 images [batch_size, S, S, 3] in [0, 1]; its
            weights may change between calls.
        image_size: S, the side in pixels to which `eval_transform` brings the images.
        batch_size: images per call; the last batch is padded.
    """

    def __init__(self, encoder: Encoder, image_size: int, batch_size: int = 256) -> None:
        self._batch_size = batch_size

        @tf.function(autograph=False)
        def embed(images: tf.Tensor, aspect: tf.Tensor | None) -> tf.Tensor:
            outputs = encoder(eval_transform(images, image_size, aspect), training=False)
            if outputs.shape.rank != 2:
                raise UserError(
                    f"the encoder gives outputs of shape {outputs.shape}, and evaluation needs "
                    "one vector per image: let it end in a global pooling"
                )
            return tf.cast(outputs, tf.float32)

        self._embed = embed

    def __call__(self, source: Source) -> Features:
        """Return the features of every example of `source`, in the source's order.

        Raises:
            UserError: the source is empty, an image cannot be read, or the encoder gives something
                other than one vector per image, or a feature that is not finite.
        """
        if not source.num_examples:
            raise UserError(f"{source.name} holds no images; choose another split")
        with named(source):
            return self._extract(source)

    def _extract(self, source: Source) -> Features:
        features: list[np.ndarray] = []
        labels: list[np.ndarray] = []
        for batch in ordered_batches(source, self._batch_size):
            images, aspect = batch["image"], batch.get("aspect")
            count = len(images)
            missing = self._batch_size - count
            images = tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]])
            if aspect is not None:
                aspect = tf.pad(aspect, [[0, missing]], constant_values=1.0)
            block = self._embed(images, aspect).numpy()[:count]
            finite = np.isfinite(block).all(axis=1)
            if not finite.all():
                first = len(features) * self._batch_size + int(np.argmin(finite))
                raise UserError(
                    f"the encoder gives features that are not finite (first for image {first} of "
                    f"{source.name}): its weights have diverged; evaluate an earlier checkpoint, "
                    "or train again with a lower --learning_rate"
                )
            features.append(block)
            labels.append(batch["label"].numpy() if "label" in batch else np.full(count, -1))
        return Features(np.concatenate(features), np.concatenate(labels).astype(np.int64))


def extract_features(
    encoder: Encoder, source: Source, image_size: int, batch_size: int = 256
) -> Features:
    """Return the features of one split, as `FeatureExtractor` does for several."""
    return FeatureExtractor(encoder, image_size, batch_size)(source)
