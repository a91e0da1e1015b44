"""Baseline encoder: principal components of the pixels."""

import numpy as np
import tensorflow as tf
from threadpoolctl import threadpool_limits

from simclr_tf.data import ImageSource
from simclr_tf.data.base import content_hash
from simclr_tf.evaluation.features import FeatureExtractor, sample_evenly

PCA_DIMS = 256


class PCAEncoder:
    """The first `dims` principal components of the pixels [0, 1] that an encoder receives.

    There are fewer if there are fewer pixels or images. Images that exceed `max_bytes` of memory
    are subsampled evenly, with a message in `warning`. `fingerprint` identifies the components.
    """

    def __init__(
        self,
        train: ImageSource,
        image_size: int,
        batch_size: int = 256,
        seed: int = 0,
        *,
        dims: int = PCA_DIMS,
        max_bytes: int = 2**30,
    ):
        self.fingerprint = content_hash("pca", train.fingerprint(), image_size, seed)
        self.warning = ""
        max_images = max(dims, max_bytes // (12 * image_size**2))
        if train.num_examples > max_images:
            train = sample_evenly(train, max_images)
            self.warning = f"pca: fitted to {max_images:,} evenly spaced training images"
        pixels = FeatureExtractor(_flatten, image_size, batch_size)(train).features
        # One thread, as in logistic.py.
        with threadpool_limits(1, "blas"):
            dims = min(dims, *pixels.shape)
            from sklearn.decomposition import PCA

            pca = PCA(dims, svd_solver="randomized", random_state=seed).fit(pixels)
        self._mean = tf.constant(pca.mean_, tf.float32)
        self._components = tf.constant(pca.components_, tf.float32)

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns float32 [N, dims] for images float32 [N, S, S, 3]."""
        pixels = _flatten(images, training)
        return tf.matmul(pixels - self._mean, self._components, transpose_b=True)


def _flatten(images: tf.Tensor, training: bool) -> tf.Tensor:
    del training
    return tf.reshape(images, [-1, int(np.prod(images.shape[1:]))])
