"""SimCLR's augmentation one image at a time, which suits the caches and branches of CPUs.

Vectorized, every image passes through every operation in each of the four steps of color jitter,
and through the blur, whether it uses them or not. Here each image executes only its own operations,
and intermediate results stay in the cache. An image is represented by three planes [1, S, S],
float32 in [0, 1], whose rows vectorize. Parameters also have a leading dimension of 1.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from simclr_tf.augment import color
from simclr_tf.augment.crop import cubic_taps
from simclr_tf.augment.ops import (
    convolve_axis,
    gaussian_kernel,
    kernel_size_for,
    reflect_pad,
    solarize,
)

Planes = list[tf.Tensor]


class ViewParams(NamedTuple):
    """Random parameters of the views of N images."""

    boxes: tf.Tensor  # int32 [N, 4]: y, x, height and width of the crop, in pixels
    flipped: tf.Tensor  # bool [N]
    jitter: color.JitterParams
    gray: tf.Tensor  # bool [N]
    blurred: tf.Tensor  # bool [N]
    sigma: tf.Tensor  # float32 [N], of the blur, in pixels
    solarized: tf.Tensor  # bool [N]


@dataclass(frozen=True)
class PerImagePolicy:
    """Transforms images one after another; arguments as of `SimCLRAugment`."""

    image_size: int
    color_jitter_strength: float
    use_blur: bool
    brightness: str
    flip: bool
    grayscale: bool
    solarize: bool = False

    def transform_images(self, images: tf.Tensor, params: ViewParams) -> tf.Tensor:
        """Returns the views of uint8 or float images [N, H, W, 3]: float32 [N, S, S, 3]."""
        n = images.shape[0] or tf.shape(images)[0]

        def add_view(i, views):
            inputs = tf.nest.map_structure(lambda x: x[i][tf.newaxis], (images, params))
            return i + 1, views.write(i, tf.stack(self._transform_image(*inputs), axis=-1)[0])

        views = tf.TensorArray(tf.float32, n, element_shape=[self.image_size, self.image_size, 3])
        return tf.while_loop(lambda i, _: i < n, add_view, [0, views])[1].stack()

    def _transform_image(self, image: tf.Tensor, params: ViewParams) -> Planes:
        flipped = params.flipped & self.flip
        planes = _crop_resize_flip(image, params.boxes, flipped, self.image_size)
        if self.color_jitter_strength > 0:
            planes = _apply_jitter(planes, params.jitter, self.brightness)
        if self.grayscale:
            planes = tf.cond(
                params.gray[0], lambda p=planes: [color.luma(p)] * 3, lambda p=planes: p
            )
        if self.use_blur:
            size = kernel_size_for(self.image_size)
            planes = _gaussian_blur(planes, params.blurred, params.sigma, size)
        if self.solarize:
            planes = [tf.where(params.solarized[0], solarize(p), p) for p in planes]
        return [tf.clip_by_value(plane, 0.0, 1.0) for plane in planes]


def _crop_resize_flip(image: tf.Tensor, box: tf.Tensor, flipped: tf.Tensor, size: int) -> Planes:
    """Crops a box [1, 4] of an image [1, H, W, 3], resizes it, mirrors it and clips to [0, 1]."""
    _, height, width, _ = image.shape
    unit = 1.0 / 255.0 if image.dtype == tf.uint8 else 1.0
    y, y_weights = cubic_taps(box[0, 0], box[0, 2], size)
    x, x_weights = cubic_taps(box[0, 1], box[0, 3], size, mirrored=flipped[0])
    isolate = functools.partial(_fusion_barrier, box[0, 2] > 0)

    def interpolate(planes, index, weights):  # along the planes' first axis, whole rows at a time
        rows = [tf.cast(tf.gather(planes, index[:, t], axis=1), tf.float32) for t in range(4)]
        return sum(row * weights[:, t, tf.newaxis] for t, row in enumerate(rows))

    shape = [3, width, height]
    planes = isolate(lambda: tf.transpose(image[0], [2, 1, 0]), shape, image.dtype)
    columns = isolate(lambda: interpolate(planes, x, x_weights), [3, size, height])
    columns = isolate(lambda x=columns: tf.transpose(x, [0, 2, 1]), [3, height, size])
    view = isolate(lambda: interpolate(columns, y, unit * y_weights), [3, size, size])
    return tf.split(tf.clip_by_value(view, 0.0, 1.0), 3)


def _apply_jitter(planes: Planes, jitter: color.JitterParams, brightness: str) -> Planes:
    """Applies the color jitter of one image: `color.apply_jitter`."""
    operations = color.jitter_operations(jitter, brightness)
    position = jitter.order[0]
    order = tf.argsort(position)

    def apply_nth(n, planes):
        branches = [lambda o=operation: o(planes) for operation in operations]
        return n + 1, tf.switch_case(order[n], branches)

    def apply_all():
        return tf.while_loop(lambda n, _: n < 4, apply_nth, [0, planes])[1]

    return tf.cond(position[0] >= 0, apply_all, lambda: planes)


def _gaussian_blur(planes: Planes, apply: tf.Tensor, sigma: tf.Tensor, kernel_size: int) -> Planes:
    """Blurs the planes if `apply` (bool [1]) is true: `ops.gaussian_blur`."""

    def blur():
        image = tf.concat(planes, axis=0)[..., tf.newaxis]
        kernel = gaussian_kernel(tf.repeat(sigma, 3), kernel_size)
        isolate = functools.partial(_fusion_barrier, sigma[0] > 0)
        for axis in (1, 2):
            shape = image.shape.as_list()
            padded = [n + (kernel_size - 1) * (i == axis) for i, n in enumerate(shape)]
            image = isolate(lambda x=image, a=axis: reflect_pad(x, kernel_size, a), padded)
            image = isolate(lambda x=image, a=axis: convolve_axis(x, kernel, a), shape)
        return tf.split(image[..., 0], 3)

    return tf.cond(apply[0], blur, lambda: planes)


def _fusion_barrier(
    always_true: tf.Tensor, function: Callable, shape: Sequence[int], dtype: tf.DType = tf.float32
) -> tf.Tensor:
    """Returns the function's result, with a condition that XLA cannot infer against its fusion.

    Fused, a gather would read a transposed operand across its rows, and a blur's second pass would
    compute the first one again for every tap. XLA does not fuse across the border of a branch.
    """
    return tf.cond(always_true, function, lambda: tf.zeros(shape, dtype))
