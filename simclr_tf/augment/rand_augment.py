"""Crop, flip and KerasCV's RandAugment: the study's policy found by search [v1 Table 1]."""

import importlib
from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.augment.simclr import SimCLRAugment
from simclr_tf.errors import UserError


class RandAugment:
    """Makes one view of every image by crop, flip and RandAugment (arXiv 1909.13719).

    KerasCV's layer at its defaults: three of its operations, each left out of an image at 1/11, at
    magnitude 0.5 ± 0.15. Crop and flip are a function of seed and offset; what RandAugment draws is
    not: it comes from TensorFlow's own generators, partly of a seed that nobody chose. So no run
    with it can be repeated, and views that are made again are others.

    Args:
        image_size: side of the views, in pixels.
        crop_area: limits of the crop's share of the image.
        flip: whether half of the views are mirrored.
    """

    def __init__(
        self, image_size: int, crop_area: tuple[float, float] = (0.08, 1.0), flip: bool = True
    ):
        self._cropped = SimCLRAugment(
            image_size, 0.0, use_blur=False, crop_area=crop_area, flip=flip, grayscale=False
        )
        # One trace for all views. Not compiled by XLA, which lacks the projections.
        self._apply = tf.function(self._transform)
        self._layer: Any = None

    def __call__(
        self,
        images: tf.Tensor,
        seed: tf.Tensor,
        offset: int | tf.Tensor = 0,
        aspect: tf.Tensor | None = None,
    ) -> tf.Tensor:
        """Returns the views; arguments and result as of `SimCLRAugment`."""
        if self._layer is None:  # not before: a model is loaded without KerasCV, too
            require_keras_cv()
            layers = importlib.import_module("keras_cv.layers")
            self._layer = layers.RandAugment(value_range=(0, 1))
        return self._apply(self._cropped(images, seed, offset, aspect))

    def _transform(self, images):
        views = tf.ensure_shape(self._layer(images, training=True), images.shape)
        return tf.clip_by_value(views, 0.0, 1.0)


def require_keras_cv() -> None:
    """Raises UserError where KerasCV is not installed, or would come with another Keras."""
    if tf.keras.Model is not keras.Model:  # noqa: TID251
        raise UserError(
            "--policy=randaugment: KerasCV follows tf.keras, which is another Keras than tf_keras "
            "here; set TF_USE_LEGACY_KERAS=1"
        )
    try:
        importlib.import_module("keras_cv")
    except ImportError as error:
        raise UserError(
            f"--policy=randaugment needs KerasCV ({error}): pip install 'simclr_tf[keras-cv]'"
        ) from None
