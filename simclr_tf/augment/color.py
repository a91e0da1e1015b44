"""Grayscale and the paper's color jitter, with one parameter per image.

All images are float [N, H, W, 3]. Saturation and hue work in HSV, as `tf.image` does, in closed
form: with V the largest and m the smallest channel, scaling the saturation by f moves every channel
c to V - (V - c)·min(f, V / (V - m)), and a change of hue keeps V and m.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from simclr_tf.augment.rng import rescale, stateless_uniform

PlanesFn = Callable[[Sequence[tf.Tensor]], list[tf.Tensor]]  # of red, green and blue planes

_LUMA = (0.2989, 0.5870, 0.1140)
_EPSILON = 1e-20  # keeps a gray pixel's 0/0 finite; its chroma of 0 cancels the quotient


def to_grayscale(images: tf.Tensor, apply: tf.Tensor) -> tf.Tensor:
    """Replaces the images whose `apply` (bool [N]) is true by their luma in all three channels."""
    apply = _broadcast(apply)

    def gray(planes):
        gray = luma(planes)
        return [tf.where(apply, gray, plane) for plane in planes]

    return _map_channels(images, gray)


def luma(planes: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the brightness of red, green and blue planes."""
    return sum(weight * plane for weight, plane in zip(_LUMA, planes, strict=True))


class JitterParams(NamedTuple):
    """Parameters of the color jitter of each image."""

    # int32 [N, 4], the positions (0 to 3) of brightness, contrast, saturation and hue in the
    # sequence, or -1 if the image is not jittered.
    order: tf.Tensor
    factors: tf.Tensor  # float32 [N, 3], of brightness, contrast and saturation
    brightness_delta: tf.Tensor  # float32 [N], added by v1's brightness
    hue_delta: tf.Tensor  # float32 [N], in full turns


def sample_jitter(
    seed: tf.Tensor,
    offset: int | tf.Tensor,
    n: int,
    strength: float = 1.0,
    probability: float = 0.8,
) -> JitterParams:
    """Draws the jitter of `n` images [v1 App. A]; strength ≥ 0, at 0 it has no effect.

    An image is jittered with that probability, in a random order per image.
    """
    draws = stateless_uniform(seed, 2, offset, n, 9)
    spread = 0.8 * strength
    permutation = tf.argsort(tf.argsort(draws[:, 1:5], axis=1), axis=1)  # ranks of the draws
    return JitterParams(
        order=tf.where(draws[:, :1] < probability, permutation, -1),
        factors=rescale(draws[:, 5:8], max(0.0, 1.0 - spread), 1.0 + spread),
        brightness_delta=rescale(draws[:, 5], -spread, spread),
        hue_delta=rescale(draws[:, 8], -0.2 * strength, 0.2 * strength),
    )


def apply_jitter(images: tf.Tensor, jitter: JitterParams, brightness: str = "v2") -> tf.Tensor:
    """Applies brightness, contrast, saturation and hue in each image's order, clipped after each.

    In each of the four steps every image gets all operations, of which the three that are not due
    have no effect (factor 1 or shift 0). Brightness "v2" multiplies, "v1" adds.
    """

    def step(number, planes):
        bright, contrast, saturation, hue = tf.unstack(jitter.order == number, axis=1)
        scale, shift = tf.ones_like(jitter.brightness_delta), tf.zeros_like(jitter.brightness_delta)
        if brightness == "v1":
            shift = tf.where(bright, jitter.brightness_delta, shift)
        else:
            scale = tf.where(bright, jitter.factors[:, 0], scale)
        planes = [_broadcast(scale) * plane + _broadcast(shift) for plane in planes]
        planes = _contrast(planes, _broadcast(tf.where(contrast, jitter.factors[:, 1], 1.0)))
        planes = _clip(planes)
        planes = _saturation(planes, _broadcast(tf.where(saturation, jitter.factors[:, 2], 1.0)))
        planes = _hue(planes, _broadcast(tf.where(hue, jitter.hue_delta, 0.0)))
        return number + 1, _clip(planes)

    # A loop, because XLA would fuse unrolled steps into the reductions of the following ones and
    # compute the first step again for each.
    return _map_channels(
        images, lambda planes: tf.while_loop(lambda number, _: number < 4, step, [0, planes])[1]
    )


def jitter_operations(jitter: JitterParams, brightness: str = "v2") -> list[PlanesFn]:
    """Returns brightness, contrast, saturation and hue, each followed by clipping."""
    scale, contrast, saturation = map(_broadcast, tf.unstack(jitter.factors, axis=1))
    brightness_delta, hue_delta = map(_broadcast, (jitter.brightness_delta, jitter.hue_delta))

    def brighten(planes):
        if brightness == "v1":
            return [plane + brightness_delta for plane in planes]
        return [plane * scale for plane in planes]

    return [
        lambda planes: _clip(brighten(planes)),
        lambda planes: _clip(_contrast(planes, contrast)),
        lambda planes: _clip(_saturation(planes, saturation)),
        lambda planes: _clip(_hue(planes, hue_delta)),
    ]


def _contrast(planes, factor):
    # One axis after the other: XLA vectorizes the reduction over rows, not the one over both.
    rows = [tf.reduce_mean(plane, axis=1, keepdims=True) for plane in planes]
    means = [tf.reduce_mean(row, axis=2, keepdims=True) for row in rows]
    return [(plane - mean) * factor + mean for plane, mean in zip(planes, means, strict=True)]


def _saturation(planes, factor):
    value = tf.maximum(tf.maximum(planes[0], planes[1]), planes[2])
    chroma = value - tf.minimum(tf.minimum(planes[0], planes[1]), planes[2])
    factor = tf.minimum(factor, value / tf.maximum(chroma, _EPSILON))
    return [value - (value - plane) * factor for plane in planes]


def _hue(planes, delta):
    red, green, blue = planes
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    per_chroma = 1.0 / tf.maximum(chroma, _EPSILON)
    sector = tf.where(
        value == red,
        (green - blue) * per_chroma,
        tf.where(value == green, 2.0 + (blue - red) * per_chroma, 4.0 + (red - green) * per_chroma),
    )
    hue = sector + 6.0 * delta

    def channel(start):  # the sixth of a turn from which this channel falls from V
        position = hue + start
        position -= 6.0 * tf.floor(position * (1.0 / 6.0))
        return value - chroma * tf.clip_by_value(tf.minimum(position, 4.0 - position), 0.0, 1.0)

    return [channel(start) for start in (5.0, 3.0, 1.0)]


def _clip(planes):
    return [tf.clip_by_value(plane, 0.0, 1.0) for plane in planes]


def _map_channels(images, operation):
    """Applies an operation on [red, green, blue], each [N, H, W]: contiguous rows vectorize."""
    return tf.stack(operation(tf.unstack(images, axis=-1)), axis=-1)


def _broadcast(parameter):
    return parameter[:, tf.newaxis, tf.newaxis]
