"""Folders of images: formats, splits, classes, unreadable files."""

import re
import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simclr_tf.data import (
    batches_at,
    find_undecodable_image,
    open_source,
    sequential_batches,
    train_batches,
)
from simclr_tf.errors import UserError

SIZE = 24
RNG = np.random.default_rng(0)


def _noise(width=20, height=30) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), np.uint8))


def _save(root, path, image=None, **options):
    path = root / path
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or _noise()).save(path, **options)
    return path


def _open(root, split="train", **more):
    return open_source(f"folder:{root}", split, **{"storage_size": SIZE} | more)


def _all(source) -> dict[str, np.ndarray]:
    (batch,) = sequential_batches(source, source.num_examples)
    return {key: value.numpy() for key, value in batch.items()}


def _ids(source) -> list[str]:
    return source.image_ids(np.arange(source.num_examples))


def _constant(color, mode="RGB"):
    return Image.new(mode, (20, 30), color)


RED = (200, 30, 10)


def _palette() -> Image.Image:
    return _constant(RED).convert("P", palette=Image.Palette.ADAPTIVE)


ANIMATION = {"save_all": True, "append_images": [_constant("blue").convert("P")]}


# Name, image, options of Pillow, color as RGB.
FORMATS = [
    ("rgb.jpg", _constant(RED), {"quality": 95}, RED),
    ("progressive.jpeg", _constant(RED), {"progressive": True, "quality": 95}, RED),
    ("gray.jpg", _constant(90, "L"), {}, (90, 90, 90)),
    ("cmyk.jpg", _constant((0, 200, 200, 50), "CMYK"), {"quality": 95}, (205, 44, 44)),
    ("rgb.png", _constant(RED), {}, RED),
    ("gray.png", _constant(90, "L"), {}, (90, 90, 90)),
    ("gray16.png", Image.fromarray(np.full((30, 20), 90 * 257, np.uint16)), {}, (90, 90, 90)),
    ("one_bit.png", _constant(1, "1"), {}, (255, 255, 255)),
    ("one_bit_black.png", _constant(0, "1"), {}, (0, 0, 0)),
    ("palette1.png", _palette(), {"bits": 1}, RED),
    ("palette4.png", _palette(), {"bits": 4}, RED),
    ("palette8.png", _palette(), {"bits": 8}, RED),
    ("clear4.png", _palette(), {"bits": 4, "transparency": 0}, (255, 255, 255)),
    ("half.png", _constant((*RED, 51), "RGBA"), {}, (244, 210, 206)),
    ("clear.png", _constant((*RED, 0), "RGBA"), {}, (255, 255, 255)),
    ("gray_alpha.png", _constant((90, 0), "LA"), {}, (255, 255, 255)),
    ("rgb.bmp", _constant(RED), {}, RED),
    ("gray.bmp", _constant(90, "L"), {}, (90, 90, 90)),
    ("padding.bmp", _constant((*RED, 0), "RGBA"), {}, RED),
    ("still.gif", _palette(), {}, RED),
    ("moving.gif", _constant("red").convert("P"), ANIMATION, (255, 0, 0)),
    ("lossy.webp", _constant(RED), {"quality": 95}, RED),
    ("lossless.webp", _constant(RED), {"lossless": True}, RED),
    ("clear.webp", _constant((*RED, 0), "RGBA"), {"lossless": True, "exact": True}, (255,) * 3),
]


def test_folder_decodes_every_format_to_rgb(tmp_path):
    for name, image, options, _ in FORMATS:
        _save(tmp_path, name, image, **options)
    source = _open(tmp_path)
    batch = _all(source)
    assert batch["image"].shape == (len(FORMATS), SIZE, SIZE, 3)
    np.testing.assert_allclose(batch["aspect"], np.full(len(FORMATS), 20 / 30), rtol=1e-6)
    colors = dict(zip(_ids(source), batch["image"][:, 8, 8], strict=True))
    for name, *_, expected in FORMATS:
        np.testing.assert_allclose(colors[name], expected, atol=3, err_msg=name)


def test_folder_resizes_elongated_images_and_returns_their_aspect(tmp_path):
    sizes = {"wide": (400, 5), "high": (5, 400), "pixel": (1, 1), "flat": (3000, 2)}
    for name, size in sizes.items():
        _save(tmp_path, f"{name}.png", _constant(RED).resize(size))
    source = _open(tmp_path)
    batch = _all(source)
    assert (batch["image"] == RED).all()
    stored = [sizes[name.removesuffix(".png")] for name in _ids(source)]
    np.testing.assert_allclose(batch["aspect"], [w / h for w, h in stored], rtol=1e-6)


def test_folder_antialiases_when_resizing(tmp_path):
    """Eight times smaller, the standard deviation of black and white noise falls eightfold."""
    grain = RNG.integers(0, 2, (192, 192), np.uint8) * 255
    _save(tmp_path, "grain.png", Image.fromarray(grain))
    image = _all(_open(tmp_path))["image"]
    assert abs(image.mean() - 127.5) < 3
    assert image.std() < 24


def test_folder_finds_files_by_extension_at_any_depth(tmp_path, log):
    for path in ["a.JPG", "deep/er/b.Png", "deep/er/still/c.jpeg"]:
        _save(tmp_path, path, format=None)
    _save(tmp_path, "a_png_called.jpg", format="PNG")
    _save(tmp_path, ".hidden.png")
    _save(tmp_path, ".cache/d.png")
    for name in ["notes.txt", "more.txt", "list.json", "README"]:
        (tmp_path / name).write_text("not an image")
    (tmp_path / "around").symlink_to(tmp_path)
    source = _open(tmp_path)
    assert source.num_examples == 4
    assert source.class_names is None
    assert set(_all(source)) == {"image", "aspect"}
    (line,) = log.messages
    assert "4 images in train; no classes (" in line
    for part in ("2 .txt", "1 .json", "1 without extension", "1 hidden,", "1 hidden folders"):
        assert part in f"{line},"


def test_folder_reads_splits_and_classes_from_subfolders(tmp_path, log):
    for path in ["train/cat/1.png", "train/cat/2.png", "train/ant/x/1.png", "train/dog/1.png"]:
        _save(tmp_path, path, _constant("red"))
    for path in ["test/dog/1.png", "test/bee/1.png", "validation/loose.png", "elsewhere/1.png"]:
        _save(tmp_path, path)
    train, test = _open(tmp_path), _open(tmp_path, "test")
    assert (train.num_examples, test.num_examples) == (4, 2)
    assert train.class_names == test.class_names == ("ant", "bee", "cat", "dog")
    assert sorted(train.labels()) == [0, 2, 2, 3]
    assert sorted(test.labels()) == [1, 3]
    assert "not used: 1 image outside the split folders, in elsewhere" in log.text
    assert _open(tmp_path, "validation").class_names is None
    mixed = _open(tmp_path, "train+validation")
    assert mixed.class_names is None and "label" not in _all(mixed)
    with pytest.raises(UserError, match=r"train \(4\), validation \(1\), test \(2\)"):
        _open(tmp_path, "valid")


def test_folder_reads_classes_without_split_folders(tmp_path):
    for name in ("b", "a"):
        for i in range(20):
            _save(tmp_path, f"{name}/{i}.png", _constant("red" if name == "a" else "blue"))
    source = _open(tmp_path)
    assert source.class_names == ("a", "b")
    batch = _all(source)
    red = batch["image"][:, 0, 0, 0] == 255
    np.testing.assert_array_equal(batch["label"], np.where(red, 0, 1))
    # A slice of sorted paths would contain one class.
    part, rest = _open(tmp_path, "train[:50%]"), _open(tmp_path, "train[50%:]")
    assert part.num_examples == 20
    assert 5 <= part.labels().sum() <= 15
    assert _ids(part) + _ids(rest) == _ids(source)
    _save(tmp_path, "loose.png")
    assert _open(tmp_path).class_names is None


def _png_header(width, height) -> bytes:
    """A valid header, up to the first pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    crc = struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n\0\0\0\x0d" + chunk + crc + b"\0\0\0\x09IDAT"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("text.jpg", b"hello", "is not a JPEG, PNG, GIF, BMP or WebP image"),
        ("empty.png", b"", "is empty"),
        ("short.png", _png_header(9, 9)[:18], "has a damaged header"),
        ("short.jpg", b"\xff\xd8\xff\xe0\x00\x10", "has a damaged header"),
        ("headless.jpg", b"\xff\xd8\xff\xd9\xff\xd9", "is not a JPEG.* or its header is damaged"),
        ("bomb.png", _png_header(100_000, 100_000), "claims more than 178,956,970 pixels"),
        ("flat.png", _png_header(0, 7), "has a damaged|is not a"),
    ],
)
def test_folder_names_a_file_that_is_not_an_image(tmp_path, log, name, content, reason):
    _save(tmp_path, "good.png")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{tmp_path / name} {reason}.* 1 of 2 .*--skip_unreadable"):
        _open(tmp_path)
    assert _open(tmp_path, skip_unreadable=True).num_examples == 1
    skipped = f"1 image in train; no classes .*; skipped 1 unreadable, the first: {name} {reason}"
    assert re.search(skipped, log.text)


@pytest.mark.parametrize(
    ("name", "mode", "options", "reason"),
    [
        ("palette.bmp", "P", {}, "is a BMP with palette"),
        ("one_bit.bmp", "1", {}, "is a BMP with 1 bits"),
        ("moving.webp", "RGBA", ANIMATION, "is an animated WebP"),
    ],
)
def test_folder_names_variants_that_tensorflow_does_not_decode(
    tmp_path, name, mode, options, reason
):
    _save(tmp_path, name, _constant(RED).convert(mode), **options)
    with pytest.raises(UserError, match=f"{name} {reason}"):
        _open(tmp_path)


def test_folder_reads_a_header_after_long_metadata(tmp_path):
    path = _save(tmp_path, "long.jpg", _constant(RED))
    jpeg, segment = path.read_bytes(), b"\xff\xe2" + struct.pack(">H", 65_000) + bytes(64_998)
    path.write_bytes(jpeg[:2] + 5 * segment + jpeg[2:])
    np.testing.assert_allclose(_all(_open(tmp_path))["image"][0, 0, 0], RED, atol=3)


@pytest.fixture
def with_a_truncated_file(tmp_path):
    """Thirty good images and one with a valid header and end whose pixels are truncated."""
    for i in range(30):
        _save(tmp_path, f"{i}.png")
    victim = _save(tmp_path, "cut.png", _noise(64, 64))
    contents = victim.read_bytes()
    victim.write_bytes(contents[:5000] + contents[-12:])
    return tmp_path, victim


def test_find_undecodable_image_names_the_file_that_ended_reading(with_a_truncated_file):
    root, victim = with_a_truncated_file
    source = _open(root)
    assert source.num_examples == 31
    batches = iter(train_batches(source, batch_size=8, seed=2, start_step=0, num_steps=4))
    with pytest.raises(tf.errors.InvalidArgumentError):
        for step in range(4):  # noqa: B007
            next(batches)
    for near in ({"seed": 2, "position": 8 * step}, {}):
        error = find_undecodable_image(source, **near)
        assert str(victim) in str(error)
        assert "--skip_unreadable" in str(error)
    with pytest.raises(UserError, match=str(victim)):
        _open(root, cache=True)


def test_skip_unreadable_skips_undecodable_files_and_logs_them(with_a_truncated_file, log):
    root, _ = with_a_truncated_file
    source = _open(root, skip_unreadable=True)
    assert source.num_examples == 30
    assert "skipped 1 unreadable, the first: cut.png has the header" in log.text
    assert find_undecodable_image(source) is None


def test_cached_folder_has_the_same_stream_from_any_step(tmp_path):
    for i in range(20):
        _save(tmp_path, f"{i}.png")
    source, cached = _open(tmp_path), _open(tmp_path, cache=True)
    arguments = {"batch_size": 6, "seed": 1}
    whole = [b["image"] for b in train_batches(cached, start_step=0, num_steps=9, **arguments)]
    rest = list(train_batches(source, start_step=4, num_steps=5, **arguments))
    np.testing.assert_array_equal(whole[4:], [batch["image"] for batch in rest])
    np.testing.assert_allclose(_all(cached)["aspect"], np.full(20, 20 / 30), rtol=1e-6)


def test_folder_errors_name_missing_input(tmp_path):
    with pytest.raises(UserError, match=r"expected a folder, but .*nowhere does not exist"):
        _open(tmp_path / "nowhere")
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match=r"contains no images: expected files that end in \.jpg"):
        _open(tmp_path)
    _save(tmp_path, "a.png")
    with pytest.raises(UserError, match="expected storage_size"):
        _open(tmp_path, storage_size=None)
    with pytest.raises(UserError, match=r"--cache_dataset: folder.* decoded, more than half"):
        _open(tmp_path, storage_size=500_000, cache=True)


def test_folder_image_ids_are_relative_paths(tmp_path):
    for i in range(9):
        _save(tmp_path, f"train/c{i % 2}/{i}.png", _constant((i, 0, 0)))
    _save(tmp_path, "test/c0/9.png", _constant((9, 0, 0)))
    source = _open(tmp_path, "train[2:]+test")
    ids = _ids(source)
    numbers = _all(source)["image"][:, 0, 0, 0]
    assert ids == [
        f"{'train' if n < 9 else 'test'}/c{n % 2 if n < 9 else 0}/{n}.png" for n in numbers
    ]
    some = np.array([1, 4, 7])
    (batch,) = batches_at(source, some, 8)
    assert batch["image"].numpy()[:, 0, 0, 0].tolist() == numbers[some].tolist()
    cached = _open(tmp_path, "train[2:]+test", cache=True)
    assert cached.image_ids(some) == source.image_ids(some) == [ids[i] for i in some]
