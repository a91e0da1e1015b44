"""Checks of image files at the start: complete, regular, remembered; copies of files."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simclr_tf.data import file_check, load_into_memory, open_source, sequential_batches
from simclr_tf.errors import UserError
from simclr_tf.evaluation.splits import Splits

CASES = Path(__file__).parents[2].parent / "shared" / "cases"
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)


def _open(root, **more):
    return open_source(f"folder:{root}", "train", storage_size=24, **more)


def _save(root, name, image=NOISE, **options):
    Image.fromarray(image).save(root / name, **options)
    return root / name


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """The user's cache."""
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))
    return path


FORMATS = ["jpg", "png", "gif", "bmp", "webp"]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("fraction", [0.5, 0.99])
def test_truncated_file_is_found_at_the_start(tmp_path, kind, fraction):
    _save(tmp_path, "good.png")
    path = _save(tmp_path, f"cut.{kind}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(fraction * len(whole))])
    with pytest.raises(UserError, match=rf"cut\.{kind} .*(its end|decoder object).*; 1 of 2"):
        _open(tmp_path)
    assert _open(tmp_path, skip_unreadable=True).num_examples == 1
    path.write_bytes(whole)
    assert _open(tmp_path).num_examples == 2


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("padding", [bytes(600), b"a video after the photo"])
def test_bytes_after_the_end_are_allowed(tmp_path, kind, padding):
    path = _save(tmp_path, f"padded.{kind}")
    path.write_bytes(path.read_bytes() + padding)
    assert _open(tmp_path).num_examples == 1


def test_only_suspicious_files_are_decoded(tmp_path, monkeypatch):
    decoded = []
    decode = file_check.decode_rgb
    monkeypatch.setattr(file_check, "decode_rgb", lambda x: decoded.append(decode(x)))
    _save(tmp_path, "whole.jpg")
    path = _save(tmp_path, "padded.png")
    path.write_bytes(path.read_bytes() + b"more")
    _open(tmp_path)
    assert len(decoded) == 1


@pytest.mark.parametrize("skip", [True, False])
def test_files_are_checked_once_until_they_change(tmp_path, monkeypatch, cache, skip):
    paths = [_save(tmp_path, f"{i}.png", NOISE[i:]) for i in range(3)]
    checked = []
    check = file_check.check_image_header
    monkeypatch.setattr(
        file_check, "check_image_header", lambda p, m: checked.append(p) or check(p, m)
    )
    _open(tmp_path, skip_unreadable=skip)
    assert len(checked) == 3
    first = _open(tmp_path, skip_unreadable=skip)
    assert len(checked) == 3
    _save(tmp_path, "1.png", NOISE[9:])
    again = _open(tmp_path, skip_unreadable=skip)
    assert checked[3:] == [str(paths[1])]
    assert sorted(again.content) != sorted(first.content)
    # Larger ones than allowed now are no longer readable; a damaged cache is written again.
    with pytest.raises(UserError, match="claims more than 10 pixels"):
        _open(tmp_path, max_pixels=10)
    (file,) = cache.rglob("*.npz")
    file.write_bytes(b"damaged")
    assert _open(tmp_path, skip_unreadable=skip).num_examples == 3


def test_decoding_is_repeated_for_files_whose_header_alone_was_checked(tmp_path):
    path = _save(tmp_path, "a.png")
    whole = path.read_bytes()
    path.write_bytes(whole[:3000] + bytes(300) + whole[3300:])
    _save(tmp_path, "b.png")
    assert _open(tmp_path).num_examples == 2
    assert _open(tmp_path, skip_unreadable=True).num_examples == 1


def test_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    _save(tmp_path, "a.png")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a.png"))
    assert _open(tmp_path).num_examples == 1


def test_max_pixels_allows_and_limits_the_size(tmp_path):
    path = _save(tmp_path, "a.png")
    with pytest.raises(UserError, match=r"more than 4,095 pixels: 64 x 64. Fix: .*max_pixels=4096"):
        _open(tmp_path, max_pixels=4095)
    assert _open(tmp_path, max_pixels=4096).num_examples == 1
    Image.new("1", (20_000, 10_000)).save(path)  # above Pillow's own limit
    with pytest.raises(UserError, match="claims more than 178,956,970 pixels"):
        _open(tmp_path)
    assert _open(tmp_path, max_pixels=200_000_000).num_examples == 1


def test_named_pipe_is_refused(tmp_path):
    _save(tmp_path, "a.png")
    os.mkfifo(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"b\.png is a named pipe, not a regular file; 1 of 2"):
        _open(tmp_path)
    assert _open(tmp_path, skip_unreadable=True).num_examples == 1


def test_slow_read_is_reported_once(tmp_path, monkeypatch, log):
    for name in ("a.png", "b.png"):
        _save(tmp_path, name)
    check = file_check.check_image_header

    def slow(path, max_pixels):
        if path.endswith("b.png"):
            time.sleep(0.5)
        return check(path, max_pixels)

    monkeypatch.setattr(file_check, "_SLOW_READ", 0.1)
    monkeypatch.setattr(file_check, "check_image_header", slow)
    assert _open(tmp_path).num_examples == 2
    assert log.messages[0] == "note: reading b.png takes longer than 0.1 s"
    assert len(log.messages) == 2


def test_links_and_copies_are_counted_or_dropped(tmp_path, log):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
    original = _save(tmp_path, "cat/1.png")
    _save(tmp_path, "dog/2.png", NOISE[1:])
    (tmp_path / "cat/3.png").write_bytes(original.read_bytes())
    (tmp_path / "cat/4.png").symlink_to(original)
    (tmp_path / "dog/5.png").hardlink_to(original)
    # Equal in size, beginning and end, different in between.
    images = np.zeros((2, 64, 64, 3), np.uint8)
    images[1, 32] = 255
    for i, image in enumerate(images):
        _save(tmp_path, f"dog/{i}.bmp", image)
    assert _open(tmp_path).num_examples == 7
    assert "found 3 duplicates, links and exact copies such as cat/3.png of cat/1.png" in log.text
    dropped = _open(tmp_path, duplicates="drop")
    remaining = ["cat/1.png", "dog/0.bmp", "dog/1.bmp", "dog/2.png"]
    assert sorted(dropped.image_ids(np.arange(4))) == remaining
    assert "dropped 3 duplicates" in log.text


def test_test_images_that_are_also_training_images_are_counted(tmp_path, log):
    for i, name in enumerate(("train/a", "train/b", "test/a", "test/b")):
        (tmp_path / name).mkdir(parents=True)
        _save(tmp_path / name, "1.png", NOISE[i:])
    (tmp_path / "test/a/copy.png").write_bytes((tmp_path / "train/a/1.png").read_bytes())
    (tmp_path / "test/b/link.png").symlink_to(tmp_path / "train/b/1.png")
    # Equal in size, beginning and end.
    images = np.zeros((2, 64, 64, 3), np.uint8)
    images[1, 32] = 255
    _save(tmp_path, "train/a/2.bmp", images[0])
    _save(tmp_path, "test/a/2.bmp", images[1])
    folder = f"folder:{tmp_path}"
    Splits(folder, "train", "test", storage_size=24).open()
    line = f"note: 2 of the 5 images of {folder} test are also in {folder} train, such as"
    assert f"{line} {tmp_path}/test/a/copy.png" in log.messages[-1]
    log.clear()
    Splits(folder, "train", "train[:50%]", storage_size=24).open()
    Splits("shapes", "train[:9]", "test[:9]").open()
    assert "note:" not in log.text


def test_image_of_a_gif_is_its_canvas(tmp_path):
    if not CASES.is_dir():
        pytest.skip(f"no {CASES}")
    (tmp_path / "offset.gif").write_bytes((CASES / "offset.gif").read_bytes())
    (batch,) = sequential_batches(_open(tmp_path), 1)
    assert batch["aspect"].numpy() == [pytest.approx(96 / 64)]
    image = batch["image"].numpy()[0]
    assert (image[0] == 255).all() and (image[:, -6:] == 255).all()  # nothing is drawn there
    assert (image[5, 4] != 255).any()


def test_error_of_reading_makes_the_next_start_read_again(tmp_path, cache):
    path = _save(tmp_path, "a.gif")
    source = _open(tmp_path)
    assert list(cache.rglob("*.npz"))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"a\.gif cannot be decoded \(damaged GIF"):
        load_into_memory(source)
    assert not list(cache.rglob("*.npz"))
