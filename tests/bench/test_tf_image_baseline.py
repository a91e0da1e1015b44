"""Baseline with tf.image: it implements the recipe, with new random values for each image."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.bench.tf_image_baseline import blur, tf_image_dataset

COPIES = 64


@pytest.fixture(scope="module")
def photo():
    """The same image many times: smooth colors, uint8 [COPIES, 24, 24, 3]."""
    coarse = np.random.default_rng(0).uniform(0, 255, (1, 3, 3, 3))
    image = tf.clip_by_value(tf.image.resize(coarse, (24, 24), "bicubic"), 0, 255)
    return np.repeat(np.uint8(image), COPIES, axis=0)


def views(images, batches=1, size=20, strength=0.5, use_blur=False):
    """Both views of so many batches: float32 [2 * batches * N, S, S, 3]."""
    taken = tf_image_dataset(images, len(images), size, strength, use_blur).take(batches)
    return np.concatenate([view for pair in taken.as_numpy_iterator() for view in pair])


def test_views_have_size_and_range_and_all_differ(photo):
    first, second = next(tf_image_dataset(photo, 16, 20, 1.0, True).as_numpy_iterator())
    for view in (first, second):
        assert view.shape == (16, 20, 20, 3) and view.dtype == np.float32
        assert view.min() >= 0.0 and view.max() <= 1.0
    every = np.concatenate([first, second]).reshape(32, -1)
    assert len(np.unique(every.round(4), axis=0)) == 32


def test_dataset_repeats_images_in_order():
    images = np.zeros((3, 8, 8, 3), np.uint8) + np.uint8([10, 20, 40])[:, None, None, None]
    first, _ = next(tf_image_dataset(images, 7, 8, 0.0, False).as_numpy_iterator())
    np.testing.assert_allclose(first[:, 4, 4, 0] * 255, [10, 20, 40, 10, 20, 40, 10], atol=0.01)


def is_gray(image):
    return np.ptp(image, axis=-1).max() < 1e-6


def test_color_jitter_and_grayscale_have_their_probabilities():
    color = np.array([200, 100, 50])
    flat = np.full((256, 8, 8, 3), color, np.uint8)
    plain = views(flat, batches=2, size=8, strength=0.0)
    gray = np.array([is_gray(view) for view in plain])
    # Of 1024: five standard deviations.
    assert abs(gray.mean() - 0.2) < 5 * (0.16 / 1024) ** 0.5
    assert np.allclose(plain[~gray] * 255, color, 1e-3)
    jittered = views(flat, batches=2, size=8, strength=0.5)
    unjittered = [np.allclose(view * 255, color, 1e-3) for view in jittered]
    assert abs(np.mean(unjittered) - 0.2 * 0.8) < 5 * (0.13 / 1024) ** 0.5


def test_views_are_flipped_half_of_the_time_and_cropped():
    ramp = np.uint8(np.linspace(0, 255, 24)[None, None, :, None])
    images = np.broadcast_to(ramp, (256, 24, 24, 3))
    rising = views(images, strength=0.0)[..., 0].mean(axis=1)
    mirrored = rising[:, 0] > rising[:, -1]
    assert abs(mirrored.mean() - 0.5) < 5 * (0.25 / 512) ** 0.5
    spans = np.ptp(rising, axis=1)
    # A crop takes 8 % to all of the area, and so at least a quarter of the width.
    assert spans.min() > 0.15 and spans.min() < 0.35 and spans.max() > 0.85


def test_blur_is_a_separable_gaussian_with_random_sigma():
    impulse = np.zeros((32, 32, 3), np.float32)
    impulse[16, 16] = 1.0
    kernels = np.stack([blur(impulse, 32) for _ in range(64)])[..., 0]
    np.testing.assert_allclose(kernels.sum(axis=(1, 2)), 1.0, rtol=1e-5)
    assert (kernels.reshape(64, -1) > 0).sum(axis=1).max() == 9
    center, adjacent, corner = kernels[:, 16, 16], kernels[:, 16, 17], kernels[:, 17, 17]
    np.testing.assert_allclose(corner * center, adjacent**2, atol=1e-6)
    assert len(np.unique(center)) > 60
    # At sigma 2 the weight of an adjacent tap is exp(-1/8).
    weight = adjacent / center
    assert weight.max() <= np.exp(-1 / 8) + 1e-5 and weight.max() > 0.8


def test_blur_has_probability_one_half():
    stripes = np.zeros((256, 40, 40, 3), np.uint8)
    stripes[:, ::2] = 255
    # Crops soften stripes too. Were all blurred, 47 % would be left.
    sharp = views(stripes, size=40, strength=0.0)
    blurred = views(stripes, size=40, strength=0.0, use_blur=True)
    left = blurred.std(axis=(1, 2, 3)).mean() / sharp.std(axis=(1, 2, 3)).mean()
    assert 0.66 < left < 0.8
