"""Rotation, noise and Sobel: NumPy and SciPy, with and without XLA, and in tf.data."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage, stats

from simclr_tf.augment import view_seed
from simclr_tf.augment.ops import gaussian_noise, rotate90, sobel

SEED = view_seed(0, 3, 0)


def _images(count=6, size=9):
    return np.random.default_rng(0).random((count, size, size, 3)).astype(np.float32)


OPERATIONS = {
    "rotate90": lambda x: rotate90(x, tf.range(x.shape[0]) % 4),
    "gaussian_noise": lambda x: gaussian_noise(x, 0.2, SEED, 5),
    "sobel": sobel,
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_agree_eager_in_tf_data_and_xla(name):
    images, operation = _images(), OPERATIONS[name]
    eager = operation(tf.constant(images)).numpy()
    compiled = tf.function(operation, jit_compile=True)(tf.constant(images)).numpy()
    (piped,) = tf.data.Dataset.from_tensors(images).map(operation)
    np.testing.assert_allclose(compiled, eager, atol=1e-5)
    np.testing.assert_allclose(piped.numpy(), eager, atol=1e-5)
    assert eager.dtype == np.float32 and eager.min() >= 0 and eager.max() <= 1


def test_rotate90_equals_numpy():
    images = _images(count=8)
    turns = np.array([0, 1, 2, 3, 3, 2, 1, 0])
    found = rotate90(tf.constant(images), tf.constant(turns)).numpy()
    for image, turn, ours in zip(images, turns, found, strict=True):
        np.testing.assert_array_equal(ours, np.rot90(image, turn))


def test_sobel_equals_scipy():
    images = _images()
    found = sobel(tf.constant(images)).numpy()
    for image, ours in zip(images, found, strict=True):
        for c in range(3):
            # TensorFlow pads by reflection without the edge: SciPy calls that mirror.
            dy, dx = (ndimage.sobel(image[..., c], axis, mode="mirror") / 4 for axis in (0, 1))
            np.testing.assert_allclose(ours[..., c], np.clip(np.hypot(dx, dy), 0, 1), atol=1e-5)
    step = np.zeros((1, 6, 6, 3), np.float32)
    step[:, :, 3:] = 1
    assert sobel(tf.constant(step)).numpy().max() == 1.0


def test_noise_is_normal_and_independent_between_images():
    gray = tf.fill([40, 16, 16, 3], 0.5)
    noise = gaussian_noise(gray, 0.05, SEED).numpy() - 0.5
    assert stats.kstest(noise.ravel() / 0.05, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1]) < 0.15
    # By position: a part of a batch has what the whole has there.
    part = gaussian_noise(gray[:3], 0.05, SEED, offset=7).numpy() - 0.5
    np.testing.assert_array_equal(part, noise[7:10])
    other = gaussian_noise(gray[:3], 0.05, view_seed(1, 3, 0)).numpy() - 0.5
    assert not np.allclose(other, noise[:3])
