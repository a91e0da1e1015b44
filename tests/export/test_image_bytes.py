"""The signature that takes JPEG and PNG files: what evaluation sees, and nothing that harms."""

import io
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simclr_tf.augment import eval_transform
from simclr_tf.data import open_source
from simclr_tf.exporter.image_bytes import decode_and_crop

SIZE, STORED = 24, 36


@pytest.fixture(scope="module")
def decode():
    """As it is exported: traced once, for any number of files."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
    def run(image_bytes):
        return decode_and_crop(image_bytes, SIZE, STORED)

    return run


def _picture(height, width, seed=0):
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def _encode(picture, form):
    file = io.BytesIO()
    picture.save(file, form)
    return file.getvalue()


def test_encoded_images_are_preprocessed_as_in_evaluation(decode, tmp_path):
    pictures = [_picture(60, 90), _picture(100, 40), _picture(33, 33)]
    for number, picture in enumerate(pictures):
        form = "PNG" if number else "JPEG"
        (tmp_path / f"{number}.{form.lower()}").write_bytes(_encode(picture, form))
    source = open_source(f"folder:{tmp_path}", "train", storage_size=STORED)
    files, expected = [], []
    for row in source.indices:
        record = source.decode(tf.constant(row))
        files.append(tf.io.read_file(source.describe(row)))
        expected.append(
            eval_transform(record["image"][tf.newaxis], SIZE, record["aspect"][tf.newaxis])[0]
        )
    found = decode(tf.stack(files))
    assert found.shape == (3, SIZE, SIZE, 3) and found.dtype == tf.float32
    np.testing.assert_allclose(found, tf.stack(expected), atol=1e-6)
    assert found.numpy().min() >= 0 and found.numpy().max() <= 1


def test_small_images_are_not_cropped(decode):
    picture = _picture(SIZE, SIZE)
    (found,) = decode(tf.constant([_encode(picture, "PNG")]))
    np.testing.assert_allclose(found, np.asarray(picture) / 255, atol=1e-6)
    # Of one that is no square, the central square.
    wide = Image.new("RGB", (32, SIZE))
    wide.paste(picture, (4, 0))
    (found,) = decode(tf.constant([_encode(wide, "PNG")]))
    np.testing.assert_allclose(found, np.asarray(picture) / 255, atol=1e-6)


def test_gray_and_transparent_images_become_rgb(decode):
    gray = _picture(SIZE, SIZE).convert("L")
    clear = Image.new("RGBA", (SIZE, SIZE), (200, 0, 0, 0))
    found = decode(
        tf.constant([_encode(gray, "PNG"), _encode(clear, "PNG"), _encode(gray, "JPEG")])
    )
    np.testing.assert_allclose(found[0], np.asarray(gray.convert("RGB")) / 255, atol=1e-6)
    np.testing.assert_array_equal(found[1], np.ones((SIZE, SIZE, 3)))
    assert decode(tf.zeros([0], tf.string)).shape == (0, SIZE, SIZE, 3)


def _bomb():
    """A PNG of some bytes that claims 60,000 × 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    return (
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    )


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "not a JPEG or PNG"),
        (b"GIF89a" + bytes(100), "not a JPEG or PNG"),
        (_bomb(), "more than 178956970 pixels"),
        (_bomb()[:20], "pixels, or of none"),
        (_encode(_picture(40, 40), "PNG")[:-200], None),
        (_encode(_picture(40, 40), "JPEG")[:100], None),
        (b"\xff\xd8\xff" + bytes(50), None),
    ],
)
def test_bytes_that_are_no_image_are_an_error(decode, contents, message):
    good = _encode(_picture(40, 40), "PNG")
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        decode(tf.constant([good, contents]))
