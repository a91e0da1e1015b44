"""The deterministic transformation of evaluation [v1 App. A]."""

import tensorflow as tf

from simclr_tf.augment.crop import crop_and_resize
from simclr_tf.augment.simclr import as_float

_CENTRAL_SHARE = 0.875
_UNCROPPED_SIZE = 32


def eval_transform(images: tf.Tensor, image_size: int) -> tf.Tensor:
    """Takes the central 87.5 % of each side, then resizes bicubically.

    Images up to 32 px are not cropped.

    Args:
        images: uint8, or float in [0, 1], [N, H, W, 3] with static height and width.
        image_size: side of the result, in pixels.

    Returns:
        float32 [N, image_size, image_size, 3] in [0, 1].
    """
    images = as_float(images)
    _, height, width, _ = images.shape
    share = 1.0 if max(height, width) <= _UNCROPPED_SIZE else _CENTRAL_SHARE
    box_h, box_w = round(height * share), round(width * share)
    if (box_h, box_w) == (image_size, image_size) == (height, width):
        return images
    box = tf.constant([[(height - box_h) // 2, (width - box_w) // 2, box_h, box_w]])
    # One box broadcasts over the batch: the same interpolation matrix for every image.
    return tf.clip_by_value(crop_and_resize(images, box, image_size), 0.0, 1.0)
