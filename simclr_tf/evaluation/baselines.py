"""What an encoder is measured against: principal components of the pixels.

The other baselines, the same encoder untrained or trained with labels, need no code here: they are
extracted like the trained one.
"""

import numpy as np
import tensorflow as tf
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from simclr_tf.data import ImageSource
from simclr_tf.data.base import content_hash
from simclr_tf.evaluation.features import FeatureExtractor

PCA_DIMS = 256
_FIT_BYTES = 2**30


class PCAEncoder:
    """Coordinates along the first 256 principal components of a split's pixels, as an encoder.

    The pixels are those that the encoder sees: [0, 1] at `image_size`. Fitted on as many images,
    evenly spaced, as have 1 GiB of pixels; with fewer pixels or images than 256 there are as many
    components as there can be.

    Args:
        train: the images that the components are of.
        image_size: S, in pixels.
        batch_size: images at a time.
        seed: of the randomised decomposition.

    Attributes:
        identity: changes with whatever changes the components.
        notice: a line for the user where not all images were taken, else "".
    """

    def __init__(self, train: ImageSource, image_size: int, batch_size: int = 256, seed: int = 0):
        self.identity = content_hash("pca", train.fingerprint(), image_size, seed)
        self.notice = ""
        most = max(PCA_DIMS, _FIT_BYTES // (12 * image_size**2))
        if train.num_examples > most:
            train = train.subset(np.linspace(0, train.num_examples - 1, most).astype(np.int64))
            self.notice = f"pca: its components are of {most:,} evenly spaced training images"
        pixels = FeatureExtractor(_flatten, image_size, batch_size)(train).features
        # One thread, as in logistic.py.
        with threadpool_limits(1, "blas"):
            dims = min(PCA_DIMS, *pixels.shape)
            pca = PCA(dims, svd_solver="randomized", random_state=seed).fit(pixels)
        self._mean = tf.constant(pca.mean_, tf.float32)
        self._components = tf.constant(pca.components_, tf.float32)

    def __call__(self, images: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return float32 [N, 256] of images float32 [N, S, S, 3]."""
        pixels = _flatten(images, training)
        return tf.matmul(pixels - self._mean, self._components, transpose_b=True)


def _flatten(images: tf.Tensor, training: bool) -> tf.Tensor:
    del training
    return tf.reshape(images, [-1, int(np.prod(images.shape[1:]))])
