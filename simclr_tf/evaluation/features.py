"""Frozen features of a whole split: the input of every evaluation protocol."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from simclr_tf import __version__
from simclr_tf.augment import eval_transform
from simclr_tf.data import ImageSource, decode_errors_name_image, sequential_batches
from simclr_tf.data.base import content_hash
from simclr_tf.errors import UserError
from simclr_tf.evaluation.feature_store import FeatureStore
from simclr_tf.utils.files import directory_lock
from simclr_tf.utils.progress import LineProgress

# A keras.Model or a loaded SavedModel: called as encoder(images [N, S, S, 3], training=False).
Encoder = Callable[..., tf.Tensor]


@dataclass(frozen=True)
class Features:
    """What an encoder says about a split, in the split's order.

    `features` is float32 [N, D], perhaps mapped from a file; `labels` is int64 [N], -1 where an
    image has none, or where an image has any number of classes [N, C] of 1 (there), 0 (not there)
    and -1 (there, but not judged).
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
            weights may change between calls, where there is no `cache_dir`.
        image_size: S, the side in pixels to which `eval_transform` brings the images.
        batch_size: images per call; the last batch is padded.
        cache_dir: where features are kept, and found again by content; None: nowhere.
        identity: of the encoder, for the cache: another one for other features.
        say: takes the lines of progress.
    """

    def __init__(
        self,
        encoder: Encoder,
        image_size: int,
        batch_size: int = 256,
        cache_dir: Path | None = None,
        identity: str = "",
        say: Callable[[str], None] = print,
    ) -> None:
        if cache_dir is not None and not identity:
            raise ValueError("a cache needs the identity of the encoder")
        self._image_size, self._batch_size = image_size, batch_size
        self._cache_dir, self._identity, self._say = cache_dir, identity, say

        def embed(images: tf.Tensor, aspect: tf.Tensor | None) -> tf.Tensor:
            outputs = encoder(eval_transform(images, image_size, aspect), training=False)
            if outputs.shape.rank != 2:
                raise UserError(
                    f"the encoder gives outputs of shape {outputs.shape}, and evaluation needs "
                    "one vector per image: let it end in a global pooling"
                )
            return tf.cast(outputs, tf.float32)

        self._embed = traced(embed)

    def __call__(self, source: ImageSource) -> Features:
        """Return the features of every example of `source`, in the source's order.

        Raises:
            UserError: the source is empty, an image cannot be read, or the encoder gives something
                other than one vector per image, or a feature that is not finite.
        """
        if not source.num_examples:
            raise UserError(f"{source.name} holds no images; choose another split")
        place = self.place(source)
        if place is None:
            return self._stored(source, FeatureStore(None, source.num_examples))
        wait = f"another process is at the features of {source.name}: waiting for it"
        with directory_lock(place, lambda: self._say(wait)):
            return self._stored(source, FeatureStore(place, source.num_examples))

    def place(self, source: ImageSource) -> Path | None:
        """Return the directory of this encoder and source in the cache, None without one."""
        if self._cache_dir is None:
            return None
        key = content_hash(__version__, self._identity, source.fingerprint(), self._image_size)
        return self._cache_dir / key[:16]

    def _stored(self, source: ImageSource, store: FeatureStore) -> Features:
        if not store.complete:
            with decode_errors_name_image(source):
                self._extract(source, store)
        return Features(*store.read())

    def _extract(self, source: ImageSource, store: FeatureStore) -> None:
        progress = LineProgress(f"features of {source.name}", source.num_examples, self._say)
        if store.count:
            progress.resume(store.count)
        for batch in sequential_batches(source, self._batch_size, start=store.count):
            images, aspect = batch["image"], batch.get("aspect")
            count = len(images)
            missing = self._batch_size - count
            images = tf.pad(images, [[0, missing], [0, 0], [0, 0], [0, 0]])
            if aspect is not None:
                aspect = tf.pad(aspect, [[0, missing]], constant_values=1.0)
            block = self._embed(images, aspect).numpy()[:count]
            require_finite(block, store.count, source)
            labels = batch["label"].numpy() if "label" in batch else np.full(count, -1)
            store.add(block, labels.astype(np.int64))
            progress.show(store.count)
        store.finish()


def require_finite(features: np.ndarray, start: int, source: ImageSource) -> None:
    """Raise UserError if features [n, D] of the images from `start` on are not all finite."""
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        first = start + int(np.argmin(finite))
        raise UserError(
            f"the encoder gives features that are not finite (first for image {first} of "
            f"{source.name}): its weights have diverged; evaluate an earlier checkpoint, or train "
            "again with a lower --learning_rate"
        )


def traced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of tensors (or None) as graphs, one for all calls of the same shapes.

    TensorFlow warns of functions that are traced again and again, and takes those of several
    encoders for one; it does not look at graphs that were asked for.
    """
    trace = tf.function(function, autograph=False).get_concrete_function
    graphs: dict[Any, Callable[..., Any]] = {}

    def call(*arguments: Any) -> Any:
        given = [argument for argument in arguments if argument is not None]
        specs = [None if x is None else tf.TensorSpec(x.shape, x.dtype) for x in arguments]
        key = str(specs)
        if key not in graphs:
            graphs[key] = trace(*specs)
        return graphs[key](*given)

    return call


def extract_features(
    encoder: Encoder, source: ImageSource, image_size: int, batch_size: int = 256
) -> Features:
    """Return the features of one split, as `FeatureExtractor` does for several."""
    return FeatureExtractor(encoder, image_size, batch_size)(source)


def weights_identity(variables: Iterable[Any]) -> str:
    """Return a digest of variables' values, for a FeatureExtractor's `identity`."""
    return content_hash(*(variable.numpy() for variable in variables))
