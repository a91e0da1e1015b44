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
    radius = kernel_size // 2
    taps = tf.range(-radius, radius + 1, dtype=images.dtype)
    weights = tf.exp(-tf.square(taps / tf.cast(sigma, images.dtype)[:, tf.newaxis]) / 2.0)
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    for axis in (1, 2):
        images = _blur_axis(images, weights, radius, axis)
    return images


def _blur_axis(images, weights, radius, axis):
    extent = images.shape[axis]
    paddings = [[radius, radius] if i == axis else [0, 0] for i in range(4)]
    padded = tf.pad(images, paddings, "REFLECT")
    blurred = tf.zeros_like(images)
    for tap in range(2 * radius + 1):
        weight = weights[:, tap, tf.newaxis, tf.newaxis, tf.newaxis]
        window = padded[:, tap : tap + extent] if axis == 1 else padded[:, :, tap : tap + extent]
        blurred += weight * window
    return blurred
