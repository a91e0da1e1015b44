"""The study's further operations [v1 §3]: rotation, noise, Sobel filtering and cutout."""

import math

import tensorflow as tf

from simclr_tf.augment import rng as draws


def rotate90(images: tf.Tensor, turns: tf.Tensor) -> tf.Tensor:
    """Rotates every image counter-clockwise by its own number of quarter turns.

    Args:
        images: [N, S, S, C].
        turns: int [N].
    """
    turns = turns[:, tf.newaxis, tf.newaxis, tf.newaxis] % 4
    transposed = tf.transpose(images, [0, 2, 1, 3])
    rotated = {1: transposed[:, ::-1], 2: images[:, ::-1, ::-1], 3: transposed[:, :, ::-1]}
    for number, result in rotated.items():
        images = tf.where(turns == number, result, images)
    return images


def gaussian_noise(
    images: tf.Tensor, std: float, seed: tf.Tensor, offset: int | tf.Tensor = 0
) -> tf.Tensor:
    """Adds normal noise to every value, and clips to [0, 1].

    Args:
        images: float in [0, 1], [N, H, W, C] with static shape.
        std: standard deviation of the noise, in the images' unit.
        seed: int32 [2].
        offset: global position of the first image, of which with the seed its noise depends.
    """
    n, *shape = images.shape
    count = math.prod(shape)
    uniform = draws.uniform(seed, 16, offset, n, 2 * count)
    first, second = tf.split(uniform, 2, axis=1)
    # Box and Muller; 1 - u lies in (0, 1].
    normal = tf.sqrt(-2.0 * tf.math.log(1.0 - first)) * tf.cos(2.0 * math.pi * second)
    return tf.clip_by_value(images + std * tf.reshape(normal, images.shape), 0.0, 1.0)


def sobel(images: tf.Tensor) -> tf.Tensor:
    """Returns the length of every channel's Sobel gradient, between 0 and 1.

    Args:
        images: float in [0, 1], [N, H, W, C]; mirrored at the border. A step from 0 to 1 along an
            axis has the length 1.
    """
    edges = tf.image.sobel_edges(images) / 4.0  # [N, H, W, C, 2]
    return tf.clip_by_value(tf.norm(edges, axis=-1), 0.0, 1.0)


def cutout(images: tf.Tensor, centers: tf.Tensor, side: int, value: float = 0.5) -> tf.Tensor:
    """Covers a square of every image; what sticks out of the image is cut off.

    Args:
        images: float [N, H, W, C].
        centers: int [N, 2], row and column of each square: it begins side // 2 before them.
        side: of the square, in pixels.
        value: what covers it; the middle of [0, 1] is the mean that DeVries and Taylor (2017) take.
    """
    _, height, width, _ = images.shape
    first = centers - side // 2

    def covered(axis, extent):
        pixel = tf.range(extent, dtype=centers.dtype)
        start = first[:, axis, tf.newaxis]
        return tf.logical_and(pixel >= start, pixel < start + side)

    square = tf.logical_and(
        covered(0, height)[:, :, tf.newaxis, tf.newaxis],
        covered(1, width)[:, tf.newaxis, :, tf.newaxis],
    )
    return tf.where(square, tf.constant(value, images.dtype), images)
