"""The images of a run are recognized by their contents when it is resumed."""

import shutil

import numpy as np
import pytest
from PIL import Image

from simclr_tf.data import open_source, sequential_batches
from simclr_tf.data.image_list import match_images, save_image_list
from simclr_tf.errors import UserError

COUNT = 30


def _image(number):
    return Image.new("RGB", (8, 8), (number, 0, 0))


def _open(root, **more):
    return open_source(f"folder:{root}", "train", storage_size=8, **more)


def _numbers(source):
    (batch,) = sequential_batches(source, source.num_examples)
    return batch["image"].numpy()[:, 0, 0, 0].tolist()


@pytest.fixture
def photos(tmp_path):
    """A folder of numbered images in two classes, and the list of a run that has seen them."""
    root = tmp_path / "photos"
    for i in range(COUNT):
        (root / f"c{i % 2}").mkdir(parents=True, exist_ok=True)
        _image(i).save(root / f"c{i % 2}" / f"{i}.png")
    save_image_list(tmp_path / "images.npz", _open(root))
    return root


def _match(root, may_lack=False):
    source = _open(root, skip_unreadable=may_lack)
    return match_images(root.parent / "images.npz", source, may_lack=may_lack)


def test_moved_and_renamed_images_keep_their_order(photos):
    before = _numbers(_open(photos))
    moved = photos.rename(photos.with_name("elsewhere"))
    assert _numbers(_match(moved)) == before
    for file in list(moved.rglob("*.png")):
        file.rename(file.with_name(f"{100 - int(file.stem)}-renamed.png"))
    assert _numbers(_open(moved)) != before
    source = _match(moved)
    assert _numbers(source) == before
    assert source.labels().tolist() == [number % 2 for number in before]


def test_copied_folder_of_copies_has_the_same_images(photos):
    for i in range(5):
        shutil.copy(photos / "c0" / "0.png", photos / "c0" / f"copy{i}.png")
    save_image_list(photos.parent / "images.npz", _open(photos))
    before = _numbers(_open(photos))
    copy = shutil.copytree(photos, photos.with_name("copy"), copy_function=shutil.copyfile)
    assert _numbers(_match(copy)) == before


def test_run_continues_without_an_image(photos, log):
    before = _numbers(_open(photos))
    (photos / "c1" / "7.png").write_bytes((photos / "c1" / "7.png").read_bytes()[:50])
    (photos / "c0" / "4.png").unlink()
    with pytest.raises(UserError, match=r"7\.png .*pass --skip_unreadable"):
        _match(photos)
    log.clear()
    after = _numbers(_match(photos, may_lack=True))
    assert [x for x, y in zip(before, after, strict=True) if x != y] == [
        x for x in before if x in (4, 7)
    ]
    assert "continuing with 2 missing or unreadable of 30 images; others take" in log.text
    assert "skipped 1 unreadable, the first: c1/7.png" in log.text


def test_replaced_image_takes_the_place_of_the_former(photos, log):
    before = _numbers(_open(photos))
    _image(200).save(photos / "c0" / "4.png")
    assert _numbers(_match(photos)) == [200 if x == 4 else x for x in before]
    assert "continuing with 1 replaced of 30 images" in log.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"1 missing or unreadable, of 30 images\. .*--skip_unreadable"),
        ("new", r"1 new, of 30 images\. Fix: remove the new ones"),
        ("others", r"30 replaced, of 30 images\. Fix: choose the folder of this run"),
        ("many missing", r"15 missing or unreadable, of 30 images\. Fix: choose the folder"),
    ],
)
def test_other_images_are_refused(photos, change, message):
    if change == "missing":
        (photos / "c0" / "4.png").unlink()
    if change == "new":
        _image(99).save(photos / "c0" / "99.png")
    if change == "others":
        for i in range(COUNT):
            _image(i + 100).save(photos / f"c{i % 2}" / f"{i}.png")
    if change == "many missing":
        shutil.rmtree(photos / "c1")
    with pytest.raises(UserError, match=message):
        _match(photos, may_lack=change != "missing")


def test_substitutes_are_spread_over_the_other_images(photos):
    for i in range(3):
        (photos / f"c{i % 2}" / f"{i}.png").unlink()
    numbers = _numbers(_match(photos, may_lack=True))
    assert np.unique(numbers, return_counts=True)[1].max() <= 2
