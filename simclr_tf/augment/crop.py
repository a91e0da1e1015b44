"""Random resized crop of a batch: one box per image, bicubic, as two matrix products."""

import math

import tensorflow as tf

from simclr_tf.augment import rng as draws

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

    Area is uniform, aspect ratio log-uniform; of ten attempts the first that fits is taken, else
    the largest box within the aspect limits. Then the box is placed uniformly.

    Args:
        seed: int32 [2]; offset: global position of the first image; n: number of images.
        height, width: size of the stored images in pixels.
        area: limits of the box's share of the image, in (0, 1].
        aspect_ratio: limits of the box's width / height, measured in the original image.
        aspect: float32 [n], width / height of the originals where the stored images were resized
            to `height` x `width`; None where they were not.

    Returns:
        int32 [n, 4]: y, x, height, width in stored pixels, inside the image.
    """
    original = width / height if aspect is None else aspect
    original = tf.broadcast_to(tf.cast(original, tf.float32), [n])[:, tf.newaxis]
    numbers = draws.uniform(seed, 0, offset, n, 2 * _ATTEMPTS + 2)
    areas = draws.scale(numbers[:, :_ATTEMPTS], *area)
    log_low, log_high = (math.log(limit) for limit in aspect_ratio)
    ratios = tf.exp(draws.scale(numbers[:, _ATTEMPTS : 2 * _ATTEMPTS], log_low, log_high))
    # Shares of the image's sides.
    widths = tf.sqrt(areas * ratios / original)
    heights = tf.sqrt(areas / ratios * original)
    fits = tf.logical_and(widths <= 1.0, heights <= 1.0)
    first = tf.argmax(fits, axis=1)[:, tf.newaxis]
    nearest = tf.clip_by_value(original, *aspect_ratio)

    def choose(attempts, fallback):
        chosen = tf.gather(attempts, first, batch_dims=1)
        return tf.where(tf.reduce_any(fits, axis=1, keepdims=True), chosen, fallback)[:, 0]

    # The largest box: the fallback of elongated originals.
    box_w = choose(widths, tf.minimum(1.0, nearest / original))
    box_h = choose(heights, tf.minimum(1.0, original / nearest))

    def place(share, size, draw):
        length = tf.clip_by_value(tf.round(share * size), 1.0, size)
        start = tf.minimum(tf.floor(draw * (size - length + 1.0)), size - length)
        return start, length

    y, box_h = place(box_h, float(height), numbers[:, -2])
    x, box_w = place(box_w, float(width), numbers[:, -1])
    return tf.cast(tf.stack([y, x, box_h, box_w], axis=1), tf.int32)


def crop_and_resize(images: tf.Tensor, boxes: tf.Tensor, size: int) -> tf.Tensor:
    """Cuts one box out of each image and resizes it bicubically.

    Equals `tf.image.resize(image[y:y+h, x:x+w], [size, size], "bicubic")` image by image: Keys'
    cubic with a = -0.5, half-pixel centres, weights renormalised at the box's edge. Written as
    products with one interpolation matrix per axis, which XLA takes with static shapes.

    Args:
        images: float [N, H, W, C].
        boxes: int32 [N, 4]: y, x, height, width, inside the images.
        size: side of the result.

    Returns:
        float [N, size, size, C]; bicubic overshoot is not clipped.
    """
    _, height, width, channels = images.shape
    rows = _interpolation(boxes[:, 0], boxes[:, 2], height, size, images.dtype)
    columns = _interpolation(boxes[:, 1], boxes[:, 3], width, size, images.dtype)
    # Columns last, so that both products are plain matrix products on contiguous rows.
    by_row = tf.reshape(tf.transpose(images, [0, 1, 3, 2]), [-1, height, channels * width])
    by_row = tf.reshape(tf.matmul(rows, by_row), [-1, size * channels, width])
    resized = tf.matmul(by_row, columns, transpose_b=True)
    return tf.transpose(tf.reshape(resized, [-1, size, channels, size]), [0, 1, 3, 2])


def _interpolation(
    start: tf.Tensor, length: tf.Tensor, extent: int, size: int, dtype: tf.DType
) -> tf.Tensor:
    """[N, size, extent]: row s holds the weights of the stored pixels for output pixel s."""
    start = tf.cast(start, dtype)[:, tf.newaxis, tf.newaxis]
    length = tf.cast(length, dtype)[:, tf.newaxis, tf.newaxis]
    output = tf.range(size, dtype=dtype)[tf.newaxis, :, tf.newaxis]
    pixel = tf.range(extent, dtype=dtype)[tf.newaxis, tf.newaxis, :]
    centre = start + (output + 0.5) * (length / size) - 0.5
    inside = tf.logical_and(pixel >= start, pixel < start + length)
    weights = tf.where(inside, _keys_cubic(tf.abs(centre - pixel)), tf.zeros((), dtype))
    return weights / tf.reduce_sum(weights, axis=-1, keepdims=True)


def taps(
    start: tf.Tensor, length: tf.Tensor, size: int, mirrored: tf.Tensor | bool = False
) -> tuple[tf.Tensor, tf.Tensor]:
    """The four stored pixels that each output pixel is made of, on one axis of one image.

    Args:
        start, length: int32 scalars, the box on this axis.
        size: number of output pixels.
        mirrored: bool scalar, whether the output runs backwards.

    Returns:
        (index, weight): int32 and float32 [size, 4]; the weights of a pixel add up to 1.
    """
    start, length = tf.cast(start, tf.float32), tf.cast(length, tf.float32)
    output = tf.range(size, dtype=tf.float32)
    output = tf.where(mirrored, size - 1.0 - output, output)
    centre = start + (output + 0.5) * (length / size) - 0.5
    pixel = tf.floor(centre)[:, tf.newaxis] + tf.range(-1.0, 3.0)
    inside = tf.logical_and(pixel >= start, pixel < start + length)
    weights = tf.where(inside, _keys_cubic(tf.abs(centre[:, tf.newaxis] - pixel)), 0.0)
    weights /= tf.reduce_sum(weights, axis=-1, keepdims=True)
    return tf.cast(tf.clip_by_value(pixel, start, start + length - 1.0), tf.int32), weights


def _keys_cubic(distance):
    near = (1.5 * distance - 2.5) * distance * distance + 1.0
    far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    return tf.where(distance <= 1.0, near, tf.where(distance < 2.0, far, tf.zeros_like(far)))
