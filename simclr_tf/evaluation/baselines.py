"""What an encoder is measured against: principal components of the pixels.

The other baseline, the same encoder untrained, needs no code: it is extracted like the trained one.
"""

import tensorflow as tf
import tf_keras as keras
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

from simclr_tf.data import Source
from simclr_tf.evaluation.features import FeatureExtractor, Features

PCA_DIMS = 256


def pca_features(
    train: Source, test: Source, image_size: int, batch_size: int = 256, seed: int = 0
) -> tuple[Features, Features]:
    """Return both splits' coordinates along the first 256 principal components of train's pixels.

    The pixels are those the encoder sees: [0, 1] at `image_size`, all of a split in memory at
    once. With fewer pixels or train images than 256, there are as many components as there can be.
    """
    extract = FeatureExtractor(_pixels, image_size, batch_size)
    train_pixels, test_pixels = extract(train), extract(test)
    dims = min(PCA_DIMS, *train_pixels.features.shape)
    # One thread, as in logistic.py.
    with threadpool_limits(1, "blas"):
        pca = PCA(dims, svd_solver="randomized", random_state=seed).fit(train_pixels.features)
    return (
        Features(pca.transform(train_pixels.features), train_pixels.labels),
        Features(pca.transform(test_pixels.features), test_pixels.labels),
    )


def _pixels(images: tf.Tensor, training: bool) -> tf.Tensor:
    del training
    return keras.layers.Flatten()(images)
