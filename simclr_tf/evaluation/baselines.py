"""Baseline encoder: principal components of the pixels.

The other baselines, the encoder untrained or trained with labels, are built like the trained one.
"""

import numpy as np
import tensorflow as tf
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from simclr_tf.data import ImageSource
from simclr_tf.data.base import content_hash
from simclr_tf.evaluation.features import FeatureExtractor

PCA_DIMS = 256


class PCAEncoder:
    """First 256 principal components of the pixels as an encoder.

    The pixels are those that the encoder receives: [0, 1] at `image_size`. The number of components
    is smaller if there are fewer pixels or images.

    Args:
        train: images to fit.
        image_size: side length S in pixels.
        batch_size: images per call.
        seed: seed of the randomized decomposition.
        dims: maximum number of components.
        max_bytes: memory for the pixels; more images are subsampled evenly.

    Attributes:
        fingerprint: different for different components.
        warning: message for the user if images were subsampled, else "".
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
            indices = np.linspace(0, train.num_examples - 1, max_images).astype(np.int64)
            train = train.subset(indices)
            self.warning = f"pca: fitted to {max_images:,} evenly spaced training images"
        pixels = FeatureExtractor(_flatten, image_size, batch_size)(train).features
        # One thread, as in logistic.py.
        with threadpool_limits(1, "blas"):
            dims = min(dims, *pixels.shape)
            pca = PCA(dims, svd_solver="randomized", random_state=seed).fit(pixels)
        self._mean = tf.constant(pca.mean_, tf.float32)
        self._components = tf.constant(pca.components_, tf.float32)

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns float32 [N, 256] for images float32 [N, S, S, 3]."""
        pixels = _flatten(images, training)
        return tf.matmul(pixels - self._mean, self._components, transpose_b=True)


def _flatten(images: tf.Tensor, training: bool) -> tf.Tensor:
    del training
    return tf.reshape(images, [-1, int(np.prod(images.shape[1:]))])
