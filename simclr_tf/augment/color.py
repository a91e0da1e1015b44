"""Colour operations with one parameter per image, and the paper's colour jitter made of them.

All images are float [N, H, W, 3]. Saturation and hue work in HSV, as `tf.image` does, in closed
form: with V the largest and m the smallest channel, scaling the saturation by f moves every channel
c to V - (V - c)·min(f, V / (V - m)), and a change of hue keeps V and m.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import tensorflow as tf

from simclr_tf.augment import rng as draws

# From the red, green and blue planes to those changed.
Operation = Callable[[Sequence[tf.Tensor]], list[tf.Tensor]]

_LUMA = (0.2989, 0.5870, 0.1140)
_TINY = 1e-20  # keeps a gray pixel's 0/0 finite; its chroma of 0 then cancels the quotient


def adjust_brightness(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Multiplies each image by its factor (float [N]); not clipped."""
    return images * _per_image(factor)[..., tf.newaxis]


def adjust_contrast(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Moves each image away from its channel means by its factor (float [N]); not clipped."""
    return _on_planes(images, lambda planes: _contrast(planes, _per_image(factor)))


def adjust_saturation(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Scales each image's HSV saturation by its factor (float [N] ≥ 0), limited to 1."""
    return _on_planes(images, lambda planes: _saturation(planes, _per_image(factor)))


def adjust_hue(images: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
    """Turns each image's HSV hue by its delta (float [N]), in full turns, -1 to 1."""
    return _on_planes(images, lambda planes: _hue(planes, _per_image(delta)))


def to_grayscale(images: tf.Tensor, apply: tf.Tensor) -> tf.Tensor:
    """Replaces the images whose `apply` (bool [N]) is true by their luma in all three channels."""
    apply = _per_image(apply)

    def gray(planes):
        gray = luma(planes)
        return [tf.where(apply, gray, plane) for plane in planes]

    return _on_planes(images, gray)


def luma(planes: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the brightness of red, green and blue planes."""
    return sum(weight * plane for weight, plane in zip(_LUMA, planes, strict=True))


class Jitter(NamedTuple):
    """What colour jitter does to each image.

    `turn` int32 [N, 4]: when brightness, contrast, saturation and hue have their turn, 0 to 3, or
    -1 where the image is not jittered; `factors` [N, 3] of the first three; `addend` [N], v1's
    brightness; `delta` [N], hue's turn.
    """

    turn: tf.Tensor
    factors: tf.Tensor
    addend: tf.Tensor
    delta: tf.Tensor


def sample_jitter(
    seed: tf.Tensor, offset: int | tf.Tensor, n: int, strength: float = 1.0
) -> Jitter:
    """Draws the jitter of `n` images [v1 App. A].

    With probability 0.8 an image is jittered, in an order of its own. Brightness, contrast and
    saturation factors are uniform in [max(0, 1 - 0.8s), 1 + 0.8s], the addend in [-0.8s, 0.8s] and
    hue's turn in [-0.2s, 0.2s].

    Args:
        seed: int32 [2]; offset: global position of the first image.
        strength: s ≥ 0; at 0 the jitter has no effect.
    """
    numbers = draws.uniform(seed, 2, offset, n, 9)
    spread = 0.8 * strength
    return Jitter(
        turn=tf.where(numbers[:, :1] < 0.8, _random_order(numbers[:, 1:5]), -1),
        factors=draws.scale(numbers[:, 5:8], max(0.0, 1.0 - spread), 1.0 + spread),
        addend=draws.scale(numbers[:, 5], -spread, spread),
        delta=draws.scale(numbers[:, 8], -0.2 * strength, 0.2 * strength),
    )


def apply_jitter(images: tf.Tensor, jitter: Jitter, brightness: str = "v2") -> tf.Tensor:
    """Brightness, contrast, saturation and hue in each image's order, clipped after each.

    In each of the four turns every image takes the operation whose turn it is; the others are
    without effect at factor 1 or shift 0.

    Args:
        images: float32 [N, H, W, 3] in [0, 1].
        jitter: of these N images.
        brightness: "v2" multiplies by the factor, "v1" adds the addend.

    Returns:
        float32 [N, H, W, 3] in [0, 1].
    """

    def take_turn(number, planes):  # all four, because in a batch each image is at another one
        bright, contrast, saturation, hue = tf.unstack(jitter.turn == number, axis=1)
        scale, shift = tf.ones_like(jitter.addend), tf.zeros_like(jitter.addend)
        if brightness == "v1":
            shift = tf.where(bright, jitter.addend, shift)
        else:
            scale = tf.where(bright, jitter.factors[:, 0], scale)
        planes = [_per_image(scale) * plane + _per_image(shift) for plane in planes]
        planes = _contrast(planes, _per_image(tf.where(contrast, jitter.factors[:, 1], 1.0)))
        planes = _clip(planes)
        planes = _saturation(planes, _per_image(tf.where(saturation, jitter.factors[:, 2], 1.0)))
        planes = _hue(planes, _per_image(tf.where(hue, jitter.delta, 0.0)))
        return number + 1, _clip(planes)

    # A loop, because XLA would fuse unrolled turns into the reductions of the following ones and
    # compute the first turn again for each.
    return _on_planes(
        images,
        lambda planes: tf.while_loop(lambda number, _: number < 4, take_turn, [0, planes])[1],
    )


def jitter_operations(jitter: Jitter, brightness: str = "v2") -> list[Operation]:
    """Returns brightness, contrast, saturation and hue, each with its clip.

    Args:
        jitter: of N images.
        brightness: "v2" multiplies by the factor, "v1" adds the addend.

    Returns:
        Four functions of red, green and blue planes, each float32 [N, H, W] in [0, 1].
    """
    scale, contrast, saturation = map(_per_image, tf.unstack(jitter.factors, axis=1))
    addend, delta = _per_image(jitter.addend), _per_image(jitter.delta)

    def brighten(planes):
        return [plane + addend if brightness == "v1" else plane * scale for plane in planes]

    return [
        lambda planes: _clip(brighten(planes)),
        lambda planes: _clip(_contrast(planes, contrast)),
        lambda planes: _clip(_saturation(planes, saturation)),
        lambda planes: _clip(_hue(planes, delta)),
    ]


def color_jitter(
    images: tf.Tensor,
    seed: tf.Tensor,
    offset: int | tf.Tensor = 0,
    strength: float = 1.0,
    brightness: str = "v2",
) -> tf.Tensor:
    """Draws the images' jitter and applies it: see `sample_jitter` and `apply_jitter`."""
    jitter = sample_jitter(seed, offset, images.shape[0], strength)
    return apply_jitter(images, jitter, brightness)


def _contrast(planes, factor):
    # One axis after the other: XLA vectorises the reduction over rows, not the one over both.
    rows = [tf.reduce_mean(plane, axis=1, keepdims=True) for plane in planes]
    means = [tf.reduce_mean(row, axis=2, keepdims=True) for row in rows]
    return [(plane - mean) * factor + mean for plane, mean in zip(planes, means, strict=True)]


def _saturation(planes, factor):
    value = tf.maximum(tf.maximum(planes[0], planes[1]), planes[2])
    chroma = value - tf.minimum(tf.minimum(planes[0], planes[1]), planes[2])
    factor = tf.minimum(factor, value / tf.maximum(chroma, _TINY))
    return [value - (value - plane) * factor for plane in planes]


def _hue(planes, delta):
    red, green, blue = planes
    value = tf.maximum(tf.maximum(red, green), blue)
    chroma = value - tf.minimum(tf.minimum(red, green), blue)
    per_chroma = 1.0 / tf.maximum(chroma, _TINY)
    sector = tf.where(
        value == red,
        (green - blue) * per_chroma,
        tf.where(value == green, 2.0 + (blue - red) * per_chroma, 4.0 + (red - green) * per_chroma),
    )
    hue = sector + 6.0 * delta

    def channel(start):  # the sixth of a turn from which this channel falls from V
        place = hue + start
        place -= 6.0 * tf.floor(place * (1.0 / 6.0))
        return value - chroma * tf.clip_by_value(tf.minimum(place, 4.0 - place), 0.0, 1.0)

    return [channel(start) for start in (5.0, 3.0, 1.0)]


def _clip(planes):
    return [tf.clip_by_value(plane, 0.0, 1.0) for plane in planes]


def _on_planes(images, operation):
    """Applies an operation on [red, green, blue], each [N, H, W]: contiguous rows vectorise."""
    return tf.stack(operation(tf.unstack(images, axis=-1)), axis=-1)


def _random_order(numbers):
    """[N, K] draws → int32 [N, K]: the rank of each, a uniform random permutation per row."""
    ranked = tf.argsort(numbers, axis=1)
    return tf.argsort(ranked, axis=1)


def _per_image(parameter):
    return parameter[:, tf.newaxis, tf.newaxis]
