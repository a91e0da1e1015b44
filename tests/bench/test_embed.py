"""The bench of feature extraction: what it makes of the figures, and its ceiling."""

import numpy as np
import tf_keras as keras

from simclr_tf.bench import embed
from simclr_tf.bench.measure import Spread
from simclr_tf.bench.setting import noise_views


def silent(line):
    del line


def test_extraction_is_compared_with_inference(answered):
    figures = {"extraction": Spread((90.0, 100.0)), "bare": Spread((100.0, 200.0))}
    asked = answered("embed", [figures])
    report = embed.run(embed.Options(width_multipliers="0.5", repeats=2), silent)
    assert asked == [(0.5,)]
    assert report.rows == [["0.5", "95 (90–100)", "150 (100–200)", "70 (50–90)"]]
    assert any("4096 images in batches of 256" in note for note in report.notes)


def test_both_rates_are_of_the_images_that_count(monkeypatch):
    counts = []

    def rate(work, count, seconds):
        work()
        counts.append(count)
        return seconds

    monkeypatch.setattr("simclr_tf.bench.rates.rate", rate)
    options = embed.Options(images=10, batch_size=4, image_size=8, repeats=1)
    taken = embed._measure(options, 0.0625, silent)
    # The third batch is padded: the encoder works on 12, features are those of 10.
    assert counts == [10, 12] and list(taken) == ["extraction", "bare"]


def test_the_ceiling_infers():
    encoder = keras.Sequential([keras.layers.BatchNormalization(), keras.layers.Flatten()])
    images = noise_views(2, 4)
    encoder.build(images.shape)
    features = embed.bare_inference(encoder, images)()
    # The moving statistics, as at the start, and not the batch's.
    np.testing.assert_allclose(features, images.numpy().reshape(2, -1), rtol=1e-3)
