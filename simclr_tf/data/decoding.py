"""From the bytes of an image file to uint8 RGB, and from any size to a square."""

from __future__ import annotations

import tensorflow as tf

WHITE = 255.0


def decode_rgb(contents: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG, PNG, BMP, WebP or (its first frame) GIF file.

    Gray becomes RGB; a palette and CMYK are converted; transparent pixels are laid over white,
    except in BMP, where the fourth byte is mostly padding, and GIF. EXIF orientation is not
    applied.

    Args:
      contents: the file, a string scalar.

    Returns:
      uint8 [height, width, 3].

    Raises:
      tf.errors.InvalidArgumentError: when run, the bytes cannot be decoded.
    """
    magic = tf.strings.substr(contents, 0, 4)

    def bmp() -> tf.Tensor:
        image = tf.io.decode_bmp(contents)
        return tf.cond(
            tf.shape(image)[-1] == 1, lambda: tf.repeat(image, 3, axis=-1), lambda: image[..., :3]
        )

    image = tf.case(
        [
            (
                tf.strings.substr(magic, 0, 2) == b"\xff\xd8",
                lambda: tf.io.decode_jpeg(contents, channels=3),
            ),
            (magic == b"\x89PNG", lambda: decode_png(contents)),
            (tf.strings.substr(magic, 0, 2) == b"BM", bmp),
            (magic == b"RIFF", lambda: _webp(contents)),
        ],
        default=lambda: tf.io.decode_image(contents, channels=3, expand_animations=False),
        exclusive=True,
    )
    return tf.ensure_shape(image, [None, None, 3])


def decode_png(contents: tf.Tensor) -> tf.Tensor:
    """Decodes a PNG file, a string scalar, to uint8 RGB [H, W, 3], transparency over white."""
    # Transparency in a palette shows only where all four channels are asked for.
    image = tf.io.decode_png(contents, channels=4)
    # Without any, TensorFlow fills alpha with 2^depth - 1: of less than 8 bits, not opaque at all.
    depth = tf.cast(tf.io.decode_raw(tf.strings.substr(contents, 24, 1), tf.uint8)[0], tf.int32)
    filler = tf.cast(tf.bitwise.left_shift(1, tf.minimum(depth, 8)) - 1, tf.uint8)
    opaque = tf.reduce_all(image[..., 3] == filler)
    return tf.cond(opaque, lambda: image[..., :3], lambda: composite_on_white(image))


def _webp(contents: tf.Tensor) -> tf.Tensor:
    image = tf.io.decode_image(contents, expand_animations=False)  # 3 or 4 channels
    return tf.cond(tf.shape(image)[-1] == 4, lambda: composite_on_white(image), lambda: image)


def composite_on_white(image: tf.Tensor) -> tf.Tensor:
    """Lays uint8 RGBA [..., 4] over white."""
    colour, alpha = tf.cast(image[..., :3], tf.float32), tf.cast(image[..., 3:], tf.float32) / 255.0
    return tf.cast(tf.round(WHITE + (colour - WHITE) * alpha), tf.uint8)


def resize_to_square(image: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Resizes (antialiased bicubic) to a square, and keeps the proportions as a number.

    Args:
      image: uint8 [height, width, 3].
      size: the side of the square in pixels.

    Returns:
      uint8 [size, size, 3] and the original's width/height, float32 scalar.
    """
    shape = tf.cast(tf.shape(image), tf.float32)
    resized = tf.image.resize(image, [size, size], method="bicubic", antialias=True)
    square = tf.cast(tf.round(tf.clip_by_value(resized, 0.0, 255.0)), tf.uint8)
    return tf.ensure_shape(square, [size, size, 3]), shape[1] / shape[0]
