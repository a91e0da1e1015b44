"""Rotation, noise and Sobel: NumPy and SciPy, with and without XLA, and in tf.data."""

import numpy as np
import tensorflow as tf
from scipy import ndimage, stats

from simclr_tf.augment import view_seed
from simclr_tf.augment.ops import gaussian_noise, rotate90, sobel

SEED = view_seed(0, 3, 0)


def test_rotate90_equals_numpy(images, in_all_modes):
    turns = np.array([0, 1, 2, 3, 3, 1], np.int32)
    found = in_all_modes(rotate90, images, turns, exactly=True)
    for image, turn, ours in zip(images, turns, found, strict=True):
        np.testing.assert_array_equal(ours, np.rot90(image, turn))


def test_sobel_equals_scipy(images, in_all_modes):
    found = in_all_modes(sobel, images)
    for image, ours in zip(images.numpy(), found, strict=True):
        for c in range(3):
            # TensorFlow pads by reflection without the edge: SciPy calls that mirror.
            dy, dx = (ndimage.sobel(image[..., c], axis, mode="mirror") / 4 for axis in (0, 1))
            np.testing.assert_allclose(ours[..., c], np.clip(np.hypot(dx, dy), 0, 1), atol=1e-5)
    step = np.zeros((1, 6, 6, 3), np.float32)
    step[:, :, 3:] = 1
    assert sobel(tf.constant(step)).numpy().max() == 1.0


def test_noise_is_normal_and_independent_between_images(in_all_modes):
    gray = tf.fill([40, 16, 16, 3], 0.5)
    noise = gaussian_noise(gray, 0.05, SEED).numpy() - 0.5
    assert stats.kstest(noise.ravel() / 0.05, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.15
    # By position: a part of a batch has what the whole has there.
    part = in_all_modes(lambda x: gaussian_noise(x, 0.05, SEED, offset=7), gray[:3])
    np.testing.assert_array_equal(part - 0.5, noise[7:10])
    other = gaussian_noise(gray[:3], 0.05, view_seed(1, 3, 0)).numpy() - 0.5
    assert not np.allclose(other, noise[:3])
    assert tf.reduce_max(gaussian_noise(gray[:3], 0.5, SEED)) == 1
