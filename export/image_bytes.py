"""From encoded images to what an encoder takes, within the graph that is exported."""

import tensorflow as tf

from simclr_tf.augment import eval_transform
from simclr_tf.augment.eval_transform import MAX_UNCROPPED_SIZE
from simclr_tf.data.decoding import decode_png, resize_to_square
from simclr_tf.data.image_headers import MAX_PIXELS


def decode_and_crop(image_bytes: tf.Tensor, image_size: int, storage_size: int) -> tf.Tensor:
    """Decodes images, and crops and resizes them as evaluation does those of a folder.

    Of images larger than 32 pixels it takes a central square of 87.5 % of the shorter side, of
    smaller ones the central square.

    Args:
        image_bytes: string [N], JPEG or PNG files of any size up to 179 million pixels.
        image_size: side of the result, in pixels.
        storage_size: side of the square that an image is resized to before it is cropped.

    Returns:
        float32 [N, image_size, image_size, 3] in [0, 1].

    Raises:
        tf.errors.InvalidArgumentError: when run, one is no such file, too large or damaged.
    """

    def one(contents: tf.Tensor) -> tf.Tensor:
        image = _decode(contents)
        small = tf.reduce_max(tf.shape(image)[:2]) <= MAX_UNCROPPED_SIZE

        def whole() -> tf.Tensor:
            side = tf.reduce_min(tf.shape(image)[:2])
            square, _ = resize_to_square(
                tf.image.resize_with_crop_or_pad(image, side, side), image_size
            )
            return tf.cast(square, tf.float32) / 255.0

        def cropped() -> tf.Tensor:
            square, aspect = resize_to_square(image, storage_size)
            return eval_transform(square[tf.newaxis], image_size, aspect[tf.newaxis])[0]

        return tf.cond(small, whole, cropped)

    spec = tf.TensorSpec([image_size, image_size, 3], tf.float32)
    return tf.map_fn(one, image_bytes, fn_output_signature=spec)


def _decode(contents: tf.Tensor) -> tf.Tensor:
    """uint8 [H, W, 3] of a file that is not larger than it may be."""
    is_png = tf.strings.substr(contents, 0, 4) == b"\x89PNG"
    is_jpeg = tf.strings.substr(contents, 0, 3) == b"\xff\xd8\xff"
    known = tf.debugging.Assert(is_png | is_jpeg, ["image_bytes: not a JPEG or PNG file"])
    with tf.control_dependencies([known]):
        # A file of a few kilobytes can claim gigabytes: the header is asked first.
        shape = tf.cond(
            is_png,
            lambda: _png_shape(contents),
            lambda: tf.cast(tf.io.extract_jpeg_shape(contents)[:2], tf.int64),
        )
    fits = tf.debugging.Assert(
        (tf.reduce_min(shape) > 0) & (tf.reduce_prod(shape) <= MAX_PIXELS),
        [f"image_bytes: an image of more than {MAX_PIXELS} pixels, or of none:", shape],
    )
    with tf.control_dependencies([fits]):
        image = tf.cond(
            is_png, lambda: decode_png(contents), lambda: tf.io.decode_jpeg(contents, channels=3)
        )
    return tf.ensure_shape(image, [None, None, 3])


def _png_shape(contents: tf.Tensor) -> tf.Tensor:
    """int64 [height, width] from the header chunk."""
    # A file cut within its header decodes to fewer numbers than two, and has no pixels.
    numbers = tf.io.decode_raw(tf.strings.substr(contents, 16, 8), tf.int32, little_endian=False)
    padded = tf.pad(numbers, [[0, 2]])[:2]
    return tf.reverse(tf.cast(padded, tf.int64), [0])
