"""Operations on batches of images: flip, blur, rotation, noise, Sobel filter and cutout."""

import math

import tensorflow as tf

from simclr_tf.augment.rng import stateless_uniform


def to_float(images: tf.Tensor) -> tf.Tensor:
    """Converts uint8 images to float32 in [0, 1]; float images are cast to float32."""
    images = tf.convert_to_tensor(images)
    if images.dtype == tf.uint8:
        return tf.cast(images, tf.float32) * (1.0 / 255.0)
    if not images.dtype.is_floating:
        raise ValueError(f"images must be uint8, or float in [0, 1], not {images.dtype.name}")
    return tf.cast(images, tf.float32)


def flip_left_right(images: tf.Tensor, apply: tf.Tensor) -> tf.Tensor:
    """Mirrors the images [N, H, W, C] whose `apply` (bool [N]) is true."""
    return tf.where(apply[:, tf.newaxis, tf.newaxis, tf.newaxis], images[:, :, ::-1], images)


def kernel_size_for(image_size: int) -> int:
    """Returns the paper's kernel size, a tenth of the image made odd: 224 → 23 [v1 App. A]."""
    return 2 * (image_size // 10 // 2) + 1


def gaussian_blur(images: tf.Tensor, sigma: tf.Tensor, kernel_size: int) -> tf.Tensor:
    """Blurs each image [H, W, C] with its own sigma (in pixels); separable, borders reflected.

    The kernel size is odd and at most 2·min(H, W) - 1; 1 does not change the images.
    """
    kernel = gaussian_kernel(tf.cast(sigma, images.dtype), kernel_size)
    for axis in (1, 2):
        images = convolve_axis(reflect_pad(images, kernel_size, axis), kernel, axis)
    return images


def gaussian_kernel(sigma: tf.Tensor, kernel_size: int) -> tf.Tensor:
    """Returns the weights of each image, [N, kernel_size], whose sum is 1."""
    radius = kernel_size // 2
    taps = tf.range(-radius, radius + 1, dtype=sigma.dtype)
    weights = tf.exp(-tf.square(taps / sigma[:, tf.newaxis]) / 2.0)
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


def reflect_pad(images: tf.Tensor, kernel_size: int, axis: int) -> tf.Tensor:
    """Pads images [N, H, W, C] on an axis by reflection, by half the kernel on each side."""
    radius = kernel_size // 2
    return tf.pad(images, [[radius, radius] if i == axis else [0, 0] for i in range(4)], "REFLECT")


def convolve_axis(padded: tf.Tensor, kernel: tf.Tensor, axis: int) -> tf.Tensor:
    """Convolves each image with its kernel [N, K] along axis 1 or 2, padded by `reflect_pad`."""
    taps = kernel.shape[1]
    size = padded.shape[axis] - taps + 1
    blurred = 0.0
    for tap in range(taps):
        weight = kernel[:, tap, tf.newaxis, tf.newaxis, tf.newaxis]
        window = padded[:, tap : tap + size] if axis == 1 else padded[:, :, tap : tap + size]
        blurred += weight * window
    return blurred


def solarize(images: tf.Tensor) -> tf.Tensor:
    """Inverts the values of images in [0, 1] from 0.5 on, of any shape (arXiv 2006.07733)."""
    return tf.where(images < 0.5, images, 1.0 - images)


def rotate90(images: tf.Tensor, turns: tf.Tensor) -> tf.Tensor:
    """Rotates each image [S, S, C] counterclockwise by its number (int [N]) of quarter turns."""
    turns = turns[:, tf.newaxis, tf.newaxis, tf.newaxis] % 4
    transposed = tf.transpose(images, [0, 2, 1, 3])
    rotated = {1: transposed[:, ::-1], 2: images[:, ::-1, ::-1], 3: transposed[:, :, ::-1]}
    for number, result in rotated.items():
        images = tf.where(turns == number, result, images)
    return images


def gaussian_noise(
    images: tf.Tensor, std: float, seed: tf.Tensor, offset: int | tf.Tensor = 0
) -> tf.Tensor:
    """Adds normal noise to every value of images in [0, 1], and clips."""
    n, *shape = images.shape
    uniform = stateless_uniform(seed, 16, offset, n, 2 * math.prod(shape))
    first, second = tf.split(uniform, 2, axis=1)
    # Box-Muller transform; 1 - u lies in (0, 1].
    normal = tf.sqrt(-2.0 * tf.math.log(1.0 - first)) * tf.cos(2.0 * math.pi * second)
    return tf.clip_by_value(images + std * tf.reshape(normal, images.shape), 0.0, 1.0)


def sobel(images: tf.Tensor) -> tf.Tensor:
    """Returns the magnitude of every channel's Sobel gradient, clipped to [0, 1].

    The border is reflected. A step from 0 to 1 along an axis has magnitude 1.
    """
    edges = tf.image.sobel_edges(images) / 4.0  # [N, H, W, C, 2]
    return tf.clip_by_value(tf.norm(edges, axis=-1), 0.0, 1.0)


def cutout(images: tf.Tensor, centers: tf.Tensor, side: int, value: float = 0.5) -> tf.Tensor:
    """Covers a square of each image, clipped at the border, that starts side // 2 before a center.

    DeVries and Taylor (2017) fill it with the mean, here with the middle of [0, 1].
    """
    _, height, width, _ = images.shape
    first = centers - side // 2

    def covered(axis, size):
        pixel = tf.range(size, dtype=centers.dtype)
        start = first[:, axis, tf.newaxis]
        return tf.logical_and(pixel >= start, pixel < start + side)

    square = tf.logical_and(
        covered(0, height)[:, :, tf.newaxis, tf.newaxis],
        covered(1, width)[:, tf.newaxis, :, tf.newaxis],
    )
    return tf.where(square, tf.constant(value, images.dtype), images)
