"""Image files to uint8 RGB squares, and errors that name the image that cannot be decoded."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import struct
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import tensorflow as tf
from PIL import BmpImagePlugin, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from simclr_tf.data.base import ImageSource, record_stream
from simclr_tf.errors import UserError
from simclr_tf.option_groups import MAX_PIXELS

# Errors that TensorFlow raises for a file that is damaged, truncated or missing.
READ_ERRORS = (
    tf.errors.InvalidArgumentError,
    tf.errors.DataLossError,
    tf.errors.NotFoundError,
    tf.errors.OutOfRangeError,
    tf.errors.PermissionDeniedError,
)

_PLUGINS: dict[bytes, Any] = {
    b"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
    b"\x89PNG\r\n\x1a\n": PngImagePlugin.PngImageFile,
    b"GIF8": GifImagePlugin.GifImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
    b"RIFF": WebPImagePlugin.WebPImageFile,
}
_WHITE = 255.0


class UnreadableImageError(ValueError):
    """The file is not a readable image; the message is a predicate of its name."""


def check_image_header(path: str, max_pixels: int = MAX_PIXELS) -> int:
    """Returns the number of pixels in the header of an image file.

    Raises `UnreadableImageError` or OSError if the header shows that it is not decodable.
    """
    _require_regular_file(path)
    with open(path, "rb") as file:
        header = file.read(54)
        # TensorFlow 2.21's decoder corrupts the memory of the process on some animations.
        is_extended_webp = header[:4] == b"RIFF" and header[12:16] == b"VP8X" and len(header) > 20
        if is_extended_webp and header[20] & 0x02:
            raise UnreadableImageError(
                "is an animated WebP, which is not supported. Fix: save a frame"
            )
        file.seek(0)
        try:
            (width, height), mode = _open_image(file, header)
        except (SyntaxError, IndexError, TypeError, struct.error):
            raise UnreadableImageError(
                "is not a JPEG, PNG, GIF, BMP or WebP image, or its header is damaged"
                if header
                else "is empty"
            ) from None
        except Exception as error:  # of any type, from any of Pillow's parsers
            raise UnreadableImageError(f"has a damaged header ({error})") from None
    if width < 1 or height < 1:
        raise UnreadableImageError(f"claims {width}x{height} pixels")
    if width * height > max_pixels:
        raise UnreadableImageError(
            f"claims more than {max_pixels:,} pixels: {width:,} x {height:,}. Fix: allow "
            f"--max_pixels={width * height}"
        )
    if header.startswith(b"BM"):
        _refuse_bmp_variants(header, mode)
    return width * height


def has_end(beginning: bytes, end: bytes, size: int) -> bool:
    """Returns False unless the size of a file, or the marker at its end, shows that it is complete.

    `beginning` and `end` are its first and last bytes. Padding with zeros at the end is allowed,
    other bytes after the marker are not: only decoding can tell such files.
    """
    end = end.rstrip(b"\0")
    if beginning.startswith(b"\xff\xd8"):
        return end.endswith(b"\xff\xd9")
    if beginning.startswith(b"\x89PNG"):
        return end.endswith(b"IEND\xae\x42\x60\x82")
    if beginning.startswith(b"GIF"):
        return end.endswith(b";")
    if beginning.startswith(b"RIFF"):
        return size >= 8 + int.from_bytes(beginning[4:8], "little")
    offset, width, height = (
        int.from_bytes(beginning[start : start + 4], "little", signed=True)
        for start in (10, 18, 22)
    )
    row = (width * int.from_bytes(beginning[28:30], "little") + 31) // 32 * 4
    return size >= offset + row * abs(height)


def _require_regular_file(path: str) -> None:
    """Raises UnreadableImageError for a named pipe, whose opening waits forever, and the like."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        kind = "a named pipe" if stat.S_ISFIFO(mode) else "a socket or a device"
        raise UnreadableImageError(f"is {kind}, not a regular file")


def _open_image(file: BinaryIO, header: bytes) -> tuple[tuple[int, int], str]:
    """Returns ((width, height), mode) from the header by Pillow, without Pillow's pixel limit."""
    for magic, plugin in _PLUGINS.items():
        if header.startswith(magic):
            image: Any = plugin(file)
            return image.size, image.mode
    raise SyntaxError


def _refuse_bmp_variants(header: bytes, mode: str) -> None:
    """Refuses the BMP variants that TensorFlow decodes wrongly or not at all."""
    info_size, bits, compression = (
        int.from_bytes(header[start:stop], "little")
        for start, stop in ((14, 18), (28, 30), (30, 34))
    )
    variant = None
    if info_size < 40:
        variant = "OS/2 header"
    elif bits not in (8, 24, 32) or compression not in (0, 3):
        variant = f"{bits} bits and compression {compression}"
    elif bits == 8 and mode != "L":  # TensorFlow takes the palette's indices for gray values
        variant = "palette"
    if variant:
        fix = "which is not supported. Fix: save it as PNG"
        raise UnreadableImageError(f"is a BMP with {variant}, {fix}")


def decode_rgb(contents: tf.Tensor) -> tf.Tensor:
    """Decodes a JPEG, PNG, BMP, WebP or GIF (its first frame) file to uint8 RGB [H, W, 3].

    Transparent pixels are composited on white, except in BMP, where the fourth byte is mostly
    padding. EXIF orientation is not applied.
    """
    magic = tf.strings.substr(contents, 0, 4)

    def bmp() -> tf.Tensor:
        image = tf.io.decode_bmp(contents)
        return tf.cond(
            tf.shape(image)[-1] == 1, lambda: tf.repeat(image, 3, axis=-1), lambda: image[..., :3]
        )

    def webp() -> tf.Tensor:
        image = tf.io.decode_image(contents, expand_animations=False)  # 3 or 4 channels
        return tf.cond(tf.shape(image)[-1] == 4, lambda: composite_on_white(image), lambda: image)

    first_two = tf.strings.substr(magic, 0, 2)
    image = tf.case(
        [
            (first_two == b"\xff\xd8", lambda: tf.io.decode_jpeg(contents, channels=3)),
            (magic == b"\x89PNG", lambda: decode_png(contents)),
            (first_two == b"BM", bmp),
            (magic == b"RIFF", webp),
            (magic == b"GIF8", lambda: composite_on_white(_decode_gif(contents))),
        ],
        default=lambda: tf.io.decode_image(contents, channels=3, expand_animations=False),
        exclusive=True,
    )
    return tf.ensure_shape(image, [None, None, 3])


def _decode_gif(contents: tf.Tensor) -> tf.Tensor:
    """Decodes the first frame on its canvas, which may be larger, to uint8 RGBA [H, W, 4].

    TensorFlow returns the frame alone, and its colors below transparency.
    """

    def decode(contents: Any) -> np.ndarray:
        contents = contents if isinstance(contents, bytes) else contents.item()  # eager
        try:
            image: Any = GifImagePlugin.GifImageFile(io.BytesIO(contents))
            left, top, right, bottom = image.tile[0][1]
            frame = np.asarray(image.convert("RGBA"))
        except Exception:  # of any type, from Pillow's parser
            return np.zeros((0, 0, 4), np.uint8)
        canvas = np.zeros_like(frame)  # transparent
        canvas[top:bottom, left:right] = frame[top:bottom, left:right]
        return canvas

    image = tf.numpy_function(decode, [contents], tf.uint8, stateful=False)
    # An exception would have another type in eager execution than in a graph.
    tf.debugging.assert_positive(tf.size(image), "damaged GIF")
    return tf.ensure_shape(image, [None, None, 4])


def decode_png(contents: tf.Tensor) -> tf.Tensor:
    """Decodes a PNG file, a string scalar, to uint8 RGB [H, W, 3], transparency on white."""
    # Transparency in a palette is decoded only if all four channels are requested.
    image = tf.io.decode_png(contents, channels=4)
    # Without any, TensorFlow fills alpha with 2^depth - 1, which is not opaque below 8 bits.
    depth = tf.cast(tf.io.decode_raw(tf.strings.substr(contents, 24, 1), tf.uint8)[0], tf.int32)
    filler = tf.cast(tf.bitwise.left_shift(1, tf.minimum(depth, 8)) - 1, tf.uint8)
    opaque = tf.reduce_all(image[..., 3] == filler)
    return tf.cond(opaque, lambda: image[..., :3], lambda: composite_on_white(image))


def composite_on_white(image: tf.Tensor) -> tf.Tensor:
    """Composites uint8 RGBA [..., 4] on white, to uint8 RGB."""
    color, alpha = tf.cast(image[..., :3], tf.float32), tf.cast(image[..., 3:], tf.float32) / 255.0
    return tf.cast(tf.round(_WHITE + (color - _WHITE) * alpha), tf.uint8)


def resize_to_square(image: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Resizes uint8 [H, W, 3] to [size, size, 3] (antialiased bicubic) and returns it and W / H."""
    shape = tf.cast(tf.shape(image), tf.float32)
    resized = tf.image.resize(image, [size, size], method="bicubic", antialias=True)
    square = tf.cast(tf.round(tf.clip_by_value(resized, 0.0, 255.0)), tf.uint8)
    return tf.ensure_shape(square, [size, size, 3]), shape[1] / shape[0]


@contextlib.contextmanager
def decode_errors_name_image(source: ImageSource) -> Iterator[None]:
    """Turns an error of reading a source in stored order into one that names the image."""
    try:
        yield
    except READ_ERRORS as error:
        if explained := find_undecodable_image(source):
            raise explained from error
        raise


def find_undecodable_image(
    source: ImageSource, *, seed: int | None = None, position: int = 0, count: int | None = None
) -> UserError | None:
    """Returns an error that names the image that made reading fail, None if all can be decoded.

    Records are decoded one by one: `count` (None: all) of the stream of a seed from `position` on,
    or, without a seed, of the stored order.
    """
    if source.decodes_batches:
        return None
    records = source.records_in_order() if seed is None else record_stream(source, seed, position)
    name = unidentified = f"a record of {source.name}"
    try:
        # Two epochs of the stream contain every image, wherever in an epoch it begins.
        for record in records.take(count or 2 * source.num_examples):
            name = source.describe(record)
            source.decode(record)
            name = unidentified
    except READ_ERRORS as error:
        source.forget_checks()  # such as of a disk with errors, where files do not change
        return UserError(
            f"{name} cannot be decoded ({_decode_reason(error)}). Fix: remove or replace it; for a "
            "folder, --skip_unreadable skips such files."
        )
    return None


def _decode_reason(error: tf.errors.OpError) -> str:
    """Returns TensorFlow's message without the names of its nodes."""
    message = " ".join(error.message.split())
    return message.rpartition("}}")[2].partition(" [Op:")[0].strip()
