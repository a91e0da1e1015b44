"""Colour operations with one parameter per image, and the paper's colour jitter made of them.

All images are float [N, H, W, 3]. Saturation and hue work in HSV, as `tf.image` does, in closed
form: with V the largest and m the smallest channel, scaling the saturation by f moves every channel
c to V - (V - c)·min(f, V / (V - m)), and a change of hue keeps V and m.
"""

import tensorflow as tf

from simclr_tf.augment import draws

_LUMA = (0.2989, 0.5870, 0.1140)
_TINY = 1e-20  # keeps a gray pixel's 0/0 finite; its chroma of 0 then cancels the quotient


def adjust_brightness(images, factor) -> tf.Tensor:
    """Multiplies each image by its factor (float [N]); not clipped."""
    return images * _per_image(factor)[..., tf.newaxis]


def adjust_contrast(images, factor) -> tf.Tensor:
    """Moves each image away from its channel means by its factor (float [N]); not clipped."""
    return _on_planes(images, lambda planes: _contrast(planes, _per_image(factor)))


def adjust_saturation(images, factor) -> tf.Tensor:
    """Scales each image's HSV saturation by its factor (float [N] ≥ 0), limited to 1."""
    return _on_planes(images, lambda planes: _saturation(planes, _per_image(factor)))


def adjust_hue(images, delta) -> tf.Tensor:
    """Turns each image's HSV hue by its delta (float [N]), in full turns, -1 to 1."""
    return _on_planes(images, lambda planes: _hue(planes, _per_image(delta)))


def to_grayscale(images, apply) -> tf.Tensor:
    """Replaces the images whose `apply` (bool [N]) is true by their luma in all three channels."""
    apply = _per_image(apply)

    def gray(planes):
        luma = sum(weight * plane for weight, plane in zip(_LUMA, planes, strict=True))
        return [tf.where(apply, luma, plane) for plane in planes]

    return _on_planes(images, gray)


def color_jitter(images, seed, offset=0, strength=1.0, brightness="v2") -> tf.Tensor:
    """Brightness, contrast, saturation and hue in random order, clipped to [0, 1] after each.

    With probability 0.8 per image [v1 App. A]. Brightness, contrast and saturation factors are
    uniform in [max(0, 1 - 0.8s), 1 + 0.8s], hue's turn in [-0.2s, 0.2s].

    In each of the four turns every image takes the operation that its own order names. Brightness
    and contrast are affine, so one multiply-add with the image's coefficients does either; the
    others are without effect where their factor is 1 or their turn is 0.

    Args:
        images: float32 [N, H, W, 3] in [0, 1].
        seed: int32 [2]; offset: global position of the first image.
        strength: s ≥ 0; 0 changes nothing.
        brightness: "v2" multiplies, "v1" adds a number uniform in [-0.8s, 0.8s].

    Returns:
        float32 [N, H, W, 3] in [0, 1].
    """
    numbers = draws.uniform(seed, 2, offset, images.shape[0], 9)
    applied = numbers[:, :1] < 0.8
    order = _random_order(numbers[:, 1:5])
    spread = 0.8 * strength
    factors = draws.scale(numbers[:, 5:8], max(0.0, 1.0 - spread), 1.0 + spread)
    addend = draws.scale(numbers[:, 5], -spread, spread)
    delta = draws.scale(numbers[:, 8], -0.2 * strength, 0.2 * strength)

    def turn(number, planes):
        bright, contrast, saturation, hue = tf.unstack(
            tf.logical_and(applied, order == number), axis=1
        )
        scale, shift = tf.ones_like(addend), tf.zeros_like(addend)
        if brightness == "v1":
            shift = tf.where(bright, addend, shift)
        else:
            scale = tf.where(bright, factors[:, 0], scale)
        planes = [_per_image(scale) * plane + _per_image(shift) for plane in planes]
        planes = _contrast(planes, _per_image(tf.where(contrast, factors[:, 1], 1.0)))
        planes = [tf.clip_by_value(plane, 0.0, 1.0) for plane in planes]
        planes = _saturation(planes, _per_image(tf.where(saturation, factors[:, 2], 1.0)))
        planes = _hue(planes, _per_image(tf.where(hue, delta, 0.0)))
        return number + 1, [tf.clip_by_value(plane, 0.0, 1.0) for plane in planes]

    # A loop, because XLA would fuse unrolled turns into the reductions of the following ones and
    # compute the first turn again for each.
    return _on_planes(
        images, lambda planes: tf.while_loop(lambda number, _: number < 4, turn, [0, planes])[1]
    )


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


def _on_planes(images, operation):
    """Applies an operation on [red, green, blue], each [N, H, W]: contiguous rows vectorise."""
    return tf.stack(operation(tf.unstack(images, axis=-1)), axis=-1)


def _random_order(numbers):
    """[N, K] draws → int32 [N, K]: the rank of each, a uniform random permutation per row."""
    ranked = tf.argsort(numbers, axis=1)
    return tf.argsort(ranked, axis=1)


def _per_image(parameter):
    return parameter[:, tf.newaxis, tf.newaxis]
