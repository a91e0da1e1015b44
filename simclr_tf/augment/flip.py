"""Horizontal flip of chosen images of a batch."""

import tensorflow as tf


def flip_left_right(images: tf.Tensor, apply: tf.Tensor) -> tf.Tensor:
    """Mirrors the images [N, H, W, C] whose `apply` (bool [N]) is true."""
    return tf.where(apply[:, tf.newaxis, tf.newaxis, tf.newaxis], images[:, :, ::-1], images)
