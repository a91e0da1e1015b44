"""Deterministic preprocessing for evaluation [v1 App. A]."""

import numpy as np
import tensorflow as tf

from simclr_tf.augment.crop import crop_and_resize
from simclr_tf.augment.ops import to_float

_CENTER_CROP_FRACTION = 0.875
MAX_UNCROPPED_SIZE = 32


def eval_transform(
    images: tf.Tensor, image_size: int, aspect: tf.Tensor | None = None
) -> tf.Tensor:
    """Crops the central square of 87.5 % of the shorter side, then resizes bicubically.

    Images up to 32 px are not cropped (stored squares of elongated originals to a square).

    Args:
        images: uint8, or float in [0, 1], [N, H, W, 3] with static height and width.
        image_size: side of the result, in pixels.
        aspect: float32 [N], width / height of the originals if the stored images were resized to
            `H` x `W`, so that the square is one in the original; None if they were not.

    Returns:
        float32 [N, image_size, image_size, 3] in [0, 1].

    Example:
        >>> import numpy as np
        >>> import simclr_tf as st
        >>> st.augment.eval_transform(np.zeros((2, 40, 60, 3), np.uint8), 32).shape.as_list()
        [2, 32, 32, 3]
    """
    images = to_float(images)
    _, height, width, _ = images.shape
    small = max(height, width) <= MAX_UNCROPPED_SIZE
    if small and aspect is None:
        if (height, width) == (image_size, image_size):
            return images
        boxes = tf.constant([[0, 0, height, width]])
    else:
        original = width / height if aspect is None else aspect
        boxes = _center_squares(height, width, original, 1.0 if small else _CENTER_CROP_FRACTION)
    # A single box broadcasts over the batch: one interpolation matrix for all images.
    return tf.clip_by_value(crop_and_resize(images, boxes, image_size), 0.0, 1.0)


def _center_squares(height, width, aspect, fraction):
    """Returns boxes [N or 1, 4] in stored pixels that are squares in originals of `aspect`."""
    aspect = tf.reshape(tf.cast(aspect, tf.float32), [-1])
    box_h = tf.maximum(tf.round(height * fraction * tf.minimum(1.0, aspect)), 1.0)
    box_w = tf.maximum(tf.round(width * fraction * tf.minimum(1.0, 1.0 / aspect)), 1.0)
    y, x = (height - box_h + 1) // 2, (width - box_w + 1) // 2
    return tf.cast(tf.stack([y, x, box_h, box_w], axis=1), tf.int32)


def to_uint8(images: tf.Tensor | np.ndarray) -> np.ndarray:
    """Converts images in [0, 1], of any shape, to uint8.

    Example:
    >>> import numpy as np
    >>> from simclr_tf.augment import to_uint8
    >>> to_uint8(np.array([0.0, 0.5, 1.0]))
    array([  0, 128, 255], dtype=uint8)
    """
    return np.rint(255 * np.asarray(images)).astype(np.uint8)
