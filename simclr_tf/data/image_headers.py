"""What the first bytes of a file say: its image format and size, without decoding it."""

from __future__ import annotations

import os
import struct
from typing import BinaryIO, NamedTuple

# Pillow's limit against decompression bombs: a file of a few kilobytes can claim gigabytes.
MAX_PIXELS = 178_956_970

_MAX_SEGMENTS = 1000


class Header(NamedTuple):
    """Format ("JPEG", "PNG", "GIF", "BMP" or "WebP") and size in pixels."""

    format: str
    width: int
    height: int


class UnreadableImageError(ValueError):
    """The file is not an image that can be read; the message is the reason, after its name."""


def read_header(path: str) -> Header:
    """Reads the header of an image file; a few seeks and at most a few kilobytes.

    Raises:
      UnreadableImageError: not a JPEG, PNG, GIF, BMP or WebP file, a variant that TensorFlow does
        not decode, or more than `MAX_PIXELS` pixels.
      OSError: the file cannot be opened.
    """
    with open(path, "rb") as file:
        start = file.read(32)
        try:
            header = _parse(file, start)
        except struct.error:
            raise UnreadableImageError("is cut off within its header") from None
    if header.width < 1 or header.height < 1:
        raise UnreadableImageError(f"has a size of {header.width}x{header.height} in its header")
    if header.width * header.height > MAX_PIXELS:
        raise UnreadableImageError(
            f"claims {header.width}x{header.height} pixels, more than the limit of {MAX_PIXELS:,}"
        )
    return header


def _parse(file: BinaryIO, start: bytes) -> Header:
    if start.startswith(b"\xff\xd8\xff"):
        return _jpeg(file)
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        if start[12:16] != b"IHDR":
            raise UnreadableImageError("is a PNG without a header chunk")
        return Header("PNG", *struct.unpack(">II", start[16:24]))
    if start.startswith((b"GIF87a", b"GIF89a")):
        return Header("GIF", *struct.unpack("<HH", start[6:10]))
    if start.startswith(b"BM"):
        return _bmp(file)
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return _webp(start)
    if not start:
        raise UnreadableImageError("is empty")
    raise UnreadableImageError("is not a JPEG, PNG, GIF, BMP or WebP image")


def _jpeg(file: BinaryIO) -> Header:
    """Walks the segments, by their lengths, to the frame header."""
    file.seek(2)
    for _ in range(_MAX_SEGMENTS):
        marker, kind = struct.unpack("BB", file.read(2))
        while marker == 0xFF and kind == 0xFF:  # fill bytes
            (kind,) = struct.unpack("B", file.read(1))
        if marker != 0xFF or kind in (0xD9, 0xDA):
            break
        (length,) = struct.unpack(">H", file.read(2))
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            bits, height, width = struct.unpack(">BHH", file.read(5))
            if bits != 8:
                raise UnreadableImageError(
                    f"is a JPEG of {bits} bits a channel; only 8 are supported"
                )
            return Header("JPEG", width, height)
        file.seek(length - 2, os.SEEK_CUR)
    raise UnreadableImageError("is a JPEG without a frame header")


def _bmp(file: BinaryIO) -> Header:
    file.seek(0)
    head = file.read(54)
    offset, size, width, height, _, bits, packing = struct.unpack("<IIiiHHI", head[10:34])
    if size < 40:
        raise UnreadableImageError(
            "is a BMP of OS/2's kind, which is not supported: save it as PNG"
        )
    if bits not in (8, 24, 32) or packing not in (0, 3):
        raise UnreadableImageError(
            f"is a BMP of {bits} bits, packing {packing}; only plain 8, 24 and 32 are supported: "
            "save it as PNG"
        )
    if bits == 8:
        # TensorFlow takes the palette's indices for gray values.
        file.seek(14 + size)
        palette = file.read(min(offset - 14 - size, 1024))
        if palette != b"".join(
            bytes((i, i, i)) + palette[4 * i + 3 : 4 * i + 4] for i in range(256)
        ):
            raise UnreadableImageError(
                "is a BMP with a palette, which is not supported: save it as PNG"
            )
    return Header("BMP", width, abs(height))


def _webp(start: bytes) -> Header:
    kind = start[12:16]
    if kind == b"VP8X":
        if start[20] & 0x02:
            # TensorFlow 2.21's decoder corrupts the memory of the process on some of these.
            raise UnreadableImageError(
                "is an animated WebP, which is not supported: save one frame"
            )
        width, height = start[24:27], start[27:30]
        if len(height) < 3:
            raise struct.error
        return Header(
            "WebP", int.from_bytes(width, "little") + 1, int.from_bytes(height, "little") + 1
        )
    if kind == b"VP8L":
        (bits,) = struct.unpack("<I", start[21:25])
        return Header("WebP", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 ":
        width, height = struct.unpack("<HH", start[26:30])
        return Header("WebP", width & 0x3FFF, height & 0x3FFF)
    raise UnreadableImageError("is a WebP without an image")
