"""Benchmark of feature extraction: the images that count, and the upper bound."""

import numpy as np
import tf_keras as keras

from simclr_tf.bench import embed
from simclr_tf.bench.workload import random_views


def test_passes_count_their_images():
    options = embed.Options(images=10, batch_size=4, image_size=8)
    (extract, extracted), (infer, inferred) = embed.passes(options, 0.0625).values()
    # The third batch is padded: the encoder computes features of 12 images, 10 are returned.
    assert (extracted, inferred) == (10, 12)
    assert len(extract().features) == 10
    infer()


def test_encoder_only_inference_uses_moving_statistics():
    encoder = keras.Sequential([keras.layers.BatchNormalization(), keras.layers.Flatten()])
    images = random_views(2, 4)
    encoder.build(images.shape)
    features = embed.encoder_only_inference(encoder, images)()
    # The moving statistics are initially the identity; those of the batch are not.
    np.testing.assert_allclose(features, images.numpy().reshape(2, -1), rtol=1e-3)
