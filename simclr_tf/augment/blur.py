"""Gaussian blur with one sigma per image."""

import tensorflow as tf


def kernel_size_for(image_size: int) -> int:
    """The paper's kernel: a tenth of the image, made odd: 224 → 23, 96 → 9, 32 → 3 [v1 App. A]."""
    return 2 * (image_size // 10 // 2) + 1


def gaussian_blur(images: tf.Tensor, sigma: tf.Tensor, kernel_size: int) -> tf.Tensor:
    """Blurs each image with its own sigma; separable, borders reflected.

    Args:
        images: float [N, H, W, C].
        sigma: float [N], in pixels, above 0.
        kernel_size: odd; at most 2·min(H, W) - 1. 1 leaves the images as they are.

    Returns:
        float [N, H, W, C].

    Raises:
        ValueError: if `kernel_size` is even or below 1.
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd and positive, not {kernel_size}")
    weights = blur_weights(tf.cast(sigma, images.dtype), kernel_size)
    for axis in (1, 2):
        images = blur_axis(reflect(images, kernel_size, axis), weights, axis)
    return images


def blur_weights(sigma: tf.Tensor, kernel_size: int) -> tf.Tensor:
    """Returns the taps of each image, [N, kernel_size], whose sum is 1."""
    radius = kernel_size // 2
    taps = tf.range(-radius, radius + 1, dtype=sigma.dtype)
    weights = tf.exp(-tf.square(taps / sigma[:, tf.newaxis]) / 2.0)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


def reflect(images: tf.Tensor, kernel_size: int, axis: int) -> tf.Tensor:
    """Mirrors the border of images [N, H, W, C] outwards on an axis, as far as the taps reach."""
    radius = kernel_size // 2
    return tf.pad(images, [[radius, radius] if i == axis else [0, 0] for i in range(4)], "REFLECT")


def blur_axis(padded: tf.Tensor, weights: tf.Tensor, axis: int) -> tf.Tensor:
    """Sums images over the taps along axis 1 or 2, which `reflect` has made longer before."""
    taps = weights.shape[1]
    extent = padded.shape[axis] - taps + 1
    blurred = 0.0
    for tap in range(taps):
        weight = weights[:, tap, tf.newaxis, tf.newaxis, tf.newaxis]
        window = padded[:, tap : tap + extent] if axis == 1 else padded[:, :, tap : tap + extent]
        blurred += weight * window
    return blurred
