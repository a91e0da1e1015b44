"""Decoding of JPEG and PNG files within the exported graph."""

import tensorflow as tf

from simclr_tf.augment import eval_transform
from simclr_tf.augment.eval_transform import MAX_UNCROPPED_SIZE
from simclr_tf.data.decoding import MAX_PIXELS, decode_png, resize_to_square


def decode_and_crop(image_bytes: tf.Tensor, image_size: int, storage_size: int) -> tf.Tensor:
    """Decodes images, and crops and resizes them as evaluation does with images of a folder.

    Images larger than 32 pixels are resized to side `storage_size` and cropped to a central square
    of 87.5 % of the shorter side, smaller ones to the central square. Files of another format, of
    more than 179 million pixels or damaged ones raise InvalidArgumentError when the graph is run.

    Returns float32 [N, S, S, 3] in [0, 1] for image_bytes string [N].
    """

    def decode_one(contents: tf.Tensor) -> tf.Tensor:
        image = _decode(contents)
        small = tf.reduce_max(tf.shape(image)[:2]) <= MAX_UNCROPPED_SIZE

        def resize_uncropped() -> tf.Tensor:
            side = tf.reduce_min(tf.shape(image)[:2])
            square, _ = resize_to_square(
                tf.image.resize_with_crop_or_pad(image, side, side), image_size
            )
            return tf.cast(square, tf.float32) / 255.0

        def center_crop() -> tf.Tensor:
            square, aspect = resize_to_square(image, storage_size)
            return eval_transform(square[tf.newaxis], image_size, aspect[tf.newaxis])[0]

        return tf.cond(small, resize_uncropped, center_crop)

    spec = tf.TensorSpec([image_size, image_size, 3], tf.float32)
    return tf.map_fn(decode_one, image_bytes, fn_output_signature=spec)


def _decode(contents: tf.Tensor) -> tf.Tensor:
    """Returns the image, uint8 [H, W, 3], of a file of limited size."""
    is_png = tf.strings.substr(contents, 0, 4) == b"\x89PNG"
    is_jpeg = tf.strings.substr(contents, 0, 3) == b"\xff\xd8\xff"
    is_supported = tf.debugging.Assert(is_png | is_jpeg, ["image_bytes: not a JPEG or PNG file"])
    with tf.control_dependencies([is_supported]):
        # A file of a few kilobytes can claim gigabytes: read the header first.
        shape = tf.cond(
            is_png,
            lambda: _png_shape(contents),
            lambda: tf.cast(tf.io.extract_jpeg_shape(contents)[:2], tf.int64),
        )
    size_ok = tf.debugging.Assert(
        (tf.reduce_min(shape) > 0) & (tf.reduce_prod(shape) <= MAX_PIXELS),
        [f"image_bytes: an image of more than {MAX_PIXELS} pixels, or of none:", shape],
    )
    with tf.control_dependencies([size_ok]):
        image = tf.cond(
            is_png, lambda: decode_png(contents), lambda: tf.io.decode_jpeg(contents, channels=3)
        )
    return tf.ensure_shape(image, [None, None, 3])


def _png_shape(contents: tf.Tensor) -> tf.Tensor:
    """Returns int64 [height, width] from the header chunk."""
    # A file that is cut within its header decodes to fewer than two numbers; its size is then 0.
    numbers = tf.io.decode_raw(tf.strings.substr(contents, 16, 8), tf.int32, little_endian=False)
    padded = tf.pad(numbers, [[0, 2]])[:2]
    return tf.reverse(tf.cast(padded, tf.int64), [0])
