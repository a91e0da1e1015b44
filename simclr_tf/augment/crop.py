"""Random resized crop of a batch: one box per image, resized bicubically."""

import math

import tensorflow as tf

from simclr_tf.augment.rng import rescale, stateless_uniform

_ATTEMPTS = 10


def sample_crop_boxes(
    seed: tf.Tensor,
    offset: int | tf.Tensor,
    n: int,
    height: int,
    width: int,
    area: tuple[float, float] = (0.08, 1.0),
    aspect_ratio: tuple[float, float] = (3 / 4, 4 / 3),
    aspect: tf.Tensor | None = None,
) -> tf.Tensor:
    """Draws one crop box per image [v1 App. A].

    Area is uniform, aspect ratio (in the original image) log-uniform; the first of ten attempts
    that fits is used, otherwise the largest box within the aspect limits. The box is then placed
    uniformly. `aspect` is float32 [n], width / height of the originals if the stored images were
    resized. Returns int32 [n, 4]: y, x, height, width in stored pixels.
    """
    original = width / height if aspect is None else aspect
    original = tf.broadcast_to(tf.cast(original, tf.float32), [n])[:, tf.newaxis]
    draws = stateless_uniform(seed, 0, offset, n, 2 * _ATTEMPTS + 2)
    areas = rescale(draws[:, :_ATTEMPTS], *area)
    log_low, log_high = (math.log(limit) for limit in aspect_ratio)
    ratios = tf.exp(rescale(draws[:, _ATTEMPTS : 2 * _ATTEMPTS], log_low, log_high))
    # Fractions of the image's sides.
    widths = tf.sqrt(areas * ratios / original)
    heights = tf.sqrt(areas / ratios * original)
    fits = tf.logical_and(widths <= 1.0, heights <= 1.0)
    first = tf.argmax(fits, axis=1)[:, tf.newaxis]
    nearest = tf.clip_by_value(original, *aspect_ratio)

    def choose(attempts, fallback):
        chosen = tf.gather(attempts, first, batch_dims=1)
        return tf.where(tf.reduce_any(fits, axis=1, keepdims=True), chosen, fallback)[:, 0]

    # Fallback for elongated originals: the largest box.
    box_w = choose(widths, tf.minimum(1.0, nearest / original))
    box_h = choose(heights, tf.minimum(1.0, original / nearest))

    def place_interval(fraction, size, draw):
        length = tf.clip_by_value(tf.round(fraction * size), 1.0, size)
        start = tf.minimum(tf.floor(draw * (size - length + 1.0)), size - length)
        return start, length

    y, box_h = place_interval(box_h, float(height), draws[:, -2])
    x, box_w = place_interval(box_w, float(width), draws[:, -1])
    return tf.cast(tf.stack([y, x, box_h, box_w], axis=1), tf.int32)


def crop_and_resize(images: tf.Tensor, boxes: tf.Tensor, size: int) -> tf.Tensor:
    """Cuts one box [y, x, height, width] out of each image and resizes it bicubically, unclipped.

    Equals `tf.image.resize(image[y:y+h, x:x+w], [size, size], "bicubic")` image by image: Keys'
    cubic with a = -0.5, half-pixel centers, weights renormalized at the box's edge. Implemented as
    products with one interpolation matrix per axis, which XLA compiles with static shapes.
    """
    _, height, width, channels = images.shape
    rows = _interpolation_matrix(boxes[:, 0], boxes[:, 2], height, size)
    columns = _interpolation_matrix(boxes[:, 1], boxes[:, 3], width, size)
    # Columns last, so that both products are plain matrix products on contiguous rows.
    by_row = tf.reshape(tf.transpose(images, [0, 1, 3, 2]), [-1, height, channels * width])
    by_row = tf.reshape(tf.matmul(rows, by_row), [-1, size * channels, width])
    resized = tf.matmul(by_row, columns, transpose_b=True)
    return tf.transpose(tf.reshape(resized, [-1, size, channels, size]), [0, 1, 3, 2])


def _interpolation_matrix(start: tf.Tensor, length: tf.Tensor, extent: int, size: int) -> tf.Tensor:
    """Returns [N, size, extent]: row s contains the weights of stored pixels for output pixel s."""
    start = tf.cast(start, tf.float32)[:, tf.newaxis, tf.newaxis]
    length = tf.cast(length, tf.float32)[:, tf.newaxis, tf.newaxis]
    output = tf.range(size, dtype=tf.float32)[:, tf.newaxis]
    center = start + (output + 0.5) * (length / size) - 0.5
    return _cubic_weights(center, tf.range(extent, dtype=tf.float32), start, length)


def cubic_taps(
    start: tf.Tensor, length: tf.Tensor, size: int, mirrored: tf.Tensor | bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns (index, weight) [size, 4] of the stored pixels for each output pixel on one axis."""
    start, length = tf.cast(start, tf.float32), tf.cast(length, tf.float32)
    output = tf.range(size, dtype=tf.float32)
    output = tf.where(mirrored, size - 1.0 - output, output)
    center = (start + (output + 0.5) * (length / size) - 0.5)[:, tf.newaxis]
    pixel = tf.floor(center) + tf.range(-1.0, 3.0)
    weights = _cubic_weights(center, pixel, start, length)
    return tf.cast(tf.clip_by_value(pixel, start, start + length - 1.0), tf.int32), weights


def _cubic_weights(center, pixel, start, length):
    """Returns the weights of pixels for output pixels at `center`, of sum 1 on the last axis."""
    distance = tf.abs(center - pixel)
    near = (1.5 * distance - 2.5) * distance * distance + 1.0
    far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    weights = tf.where(distance <= 1.0, near, tf.where(distance < 2.0, far, tf.zeros_like(far)))
    inside = tf.logical_and(pixel >= start, pixel < start + length)
    weights = tf.where(inside, weights, 0.0)
    return weights / tf.reduce_sum(weights, axis=-1, keepdims=True)
