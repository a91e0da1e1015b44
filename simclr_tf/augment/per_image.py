"""SimCLR's operations on one image alone: the way of processors, which have caches and branches.

In a batch in lockstep every image goes through every operation in each of the jitter's four turns,
and through the blur, whatever it drew. One image alone takes only its own operations, and what lies
between them stays in the cache. On the way an image is three planes [1, S, S], float32 in [0, 1],
whose rows vectorise. What was drawn for it has a leading dimension of 1, too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from simclr_tf.augment import color
from simclr_tf.augment.blur import blur_axis, blur_weights, reflect
from simclr_tf.augment.crop import taps

Planes = list[tf.Tensor]


def map_images(transform: Callable[..., Planes], inputs: Any, size: int) -> tf.Tensor:
    """Transforms images one after another.

    Args:
        transform: gets the inputs of an image, each with a leading dimension of 1.
        inputs: tensors [N, …], in whatever structure.
        size: S.

    Returns:
        float32 [N, S, S, 3].
    """
    n = tf.nest.flatten(inputs)[0].shape[0]

    def add(i, images):
        planes = transform(*tf.nest.map_structure(lambda x: x[i][tf.newaxis], inputs))
        return i + 1, images.write(i, tf.stack(planes, axis=-1)[0])

    images = tf.TensorArray(tf.float32, n, element_shape=[size, size, 3])
    return tf.while_loop(lambda i, _: i < n, add, [0, images])[1].stack()


def crop_resize_flip(image: tf.Tensor, box: tf.Tensor, flipped: tf.Tensor, size: int) -> Planes:
    """Cuts a box out of an image, resizes it bicubically, mirrors it, and clips to [0, 1].

    Args:
        image: uint8, or float in [0, 1], [1, H, W, 3].
        box: int32 [1, 4]: y, x, height, width, inside the image.
        flipped: bool [1].
        size: S.
    """
    _, height, width, _ = image.shape
    unit = 1.0 / 255.0 if image.dtype == tf.uint8 else 1.0
    y, y_weights = taps(box[0, 0], box[0, 2], size)
    x, x_weights = taps(box[0, 1], box[0, 3], size, mirrored=flipped[0])
    there = box[0, 2] > 0

    def interpolate(planes, index, weights):  # along the planes' first axis, whole rows at a time
        rows = [tf.cast(tf.gather(planes, index[:, t], axis=1), tf.float32) for t in range(4)]
        return sum(row * weights[:, t, tf.newaxis] for t, row in enumerate(rows))

    turned = [3, width, height]
    planes = _apart(there, lambda: tf.transpose(image[0], [2, 1, 0]), turned, image.dtype)
    columns = _apart(there, lambda: interpolate(planes, x, x_weights), [3, size, height])
    columns = _apart(there, lambda x=columns: tf.transpose(x, [0, 2, 1]), [3, height, size])
    view = _apart(there, lambda: interpolate(columns, y, unit * y_weights), [3, size, size])
    return tf.split(tf.clip_by_value(view, 0.0, 1.0), 3)


def jitter(planes: Planes, drawn: color.Jitter, brightness: str) -> Planes:
    """The colour jitter of an image: `color.apply_jitter`."""
    operations = color.jitter_operations(drawn, brightness)
    turn = drawn.turn[0]
    order = tf.argsort(turn)

    def take_turn(number, planes):
        branches = [lambda o=operation: o(planes) for operation in operations]
        return number + 1, tf.switch_case(order[number], branches)

    def turns():
        return tf.while_loop(lambda number, _: number < 4, take_turn, [0, planes])[1]

    return tf.cond(turn[0] >= 0, turns, lambda: planes)


def to_grayscale(planes: Planes, apply: tf.Tensor) -> Planes:
    """Replaces the planes by their luma where `apply` (bool [1]) is true: `color.to_grayscale`."""
    return tf.cond(apply[0], lambda: [color.luma(planes)] * 3, lambda: planes)


def gaussian_blur(planes: Planes, apply: tf.Tensor, sigma: tf.Tensor, kernel_size: int) -> Planes:
    """Blurs the planes where `apply` (bool [1]) is true: `blur.gaussian_blur`."""

    def blurred():
        image = tf.concat(planes, axis=0)[..., tf.newaxis]
        weights = blur_weights(tf.repeat(sigma, 3), kernel_size)
        there = sigma[0] > 0
        for axis in (1, 2):
            shape = image.shape.as_list()
            wider = [n + (kernel_size - 1) * (i == axis) for i, n in enumerate(shape)]
            image = _apart(there, lambda x=image, a=axis: reflect(x, kernel_size, a), wider)
            image = _apart(there, lambda x=image, a=axis: blur_axis(x, weights, a), shape)
        return tf.split(image[..., 0], 3)

    return tf.cond(apply[0], blurred, lambda: planes)


def _apart(
    there: tf.Tensor, function: Callable, shape: Sequence[int], dtype: tf.DType = tf.float32
) -> tf.Tensor:
    """Keeps XLA from fusing a computation with those before and after it.

    Fused, a gather would read a transposed operand across its rows, and a blur's second pass would
    compute the first one again for every tap. A branch is not fused with what is around it.

    Args:
        there: true, always, which XLA must not be able to tell.
        function: the computation, of a tensor of that shape and type.
    """
    return tf.cond(there, function, lambda: tf.zeros(shape, dtype))
