"""TFDS datasets: slices, kinds of images, streaming order, sharding by file, errors."""

import shutil

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from simclr_tf.data import batches_at, open_source, sequential_batches, train_batches
from simclr_tf.errors import UserError
from tests.data.conftest import IMAGE, store

RNG = np.random.default_rng(0)
BLACK = np.zeros((8, 8, 3), np.uint8)


def _read_numbers(batches) -> list[int]:
    return [
        int(image[0, 0, 0]) * 250 + int(image[0, 0, 1])
        for batch in batches
        for image in batch["image"].numpy()
    ]


def _open(data_dir, dataset, split, **more):
    return open_source(dataset, split, data_dir=str(data_dir), **more)


def test_tfds_slice_contains_every_example_once(data_dir):
    source = _open(data_dir, "numbered", "train[10%:25%]+test")
    assert (source.num_examples, source.image_shape) == (48, (8, 8, 3))
    assert source.class_names == ("a", "b", "c")
    batches = list(sequential_batches(source, 20))
    assert [len(batch["label"]) for batch in batches] == [20, 20, 8]
    numbers = _read_numbers(batches)
    assert numbers == [*range(12, 30), *range(120, 150)]
    assert np.concatenate([b["label"] for b in batches]).tolist() == [n % 3 for n in numbers]


@pytest.mark.parametrize("cut", ["", "subset", "holdout"])
def test_tfds_image_ids_are_the_same_in_every_slice(data_dir, cut):
    source = _open(data_dir, "numbered", "train[10%:61]+test")
    if cut == "subset":
        source = source.subset(np.array([1, 5, 30, 60]))
    elif cut == "holdout":
        source, _ = source.holdout(0.3, seed=1)
    numbers = _read_numbers(sequential_batches(source, 20))
    positions = np.arange(source.num_examples)
    ids = source.image_ids(positions)
    assert ids == [f"train/{n}" if n < 120 else f"test/{n - 120}" for n in numbers]
    some = positions[::3]
    assert source.image_ids(some) == ids[::3]
    assert _read_numbers(batches_at(source, some, 4)) == numbers[::3]
    assert open_source("shapes", "train[8:10]+test[3:4]").image_ids(np.arange(3)) == [
        *("train/8", "train/9", "test/3")
    ]


@pytest.mark.parametrize(("dataset", "split"), [("numbered", "train[7:61]"), ("one_file", "train")])
def test_tfds_stream_is_shuffled_and_continues_from_any_step(data_dir, dataset, split):
    source = _open(data_dir, dataset, split)
    size = source.num_examples
    arguments = {"batch_size": 16, "seed": 5}
    whole = _read_numbers(train_batches(source, start_step=0, num_steps=20, **arguments))
    epochs = [whole[i : i + size] for i in range(0, 2 * size, size)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == _read_numbers(sequential_batches(source, 32))
    assert epochs[0] != epochs[1] != sorted(epochs[1])
    tf.random.set_seed(0)  # the program's seed must have no effect
    rest = train_batches(source, start_step=11, num_steps=9, **arguments)
    assert _read_numbers(rest) == whole[16 * 11 :]
    other = train_batches(source, batch_size=16, seed=6, start_step=0, num_steps=2)
    assert _read_numbers(other) != whole[:32]


def test_tfds_shards_by_file_if_that_is_even(data_dir):
    arguments = {"batch_size": 40, "seed": 5, "start_step": 0, "num_steps": 3}

    def numbers(source, worker):
        return _read_numbers(train_batches(source, num_workers=2, worker_index=worker, **arguments))

    # Sixty examples each: after three steps every worker has seen its two files once.
    source = _open(data_dir, "numbered", "train")
    assert sorted(numbers(source, 0)) == [*range(30), *range(60, 90)]
    assert sorted(numbers(source, 1)) == [*range(30, 60), *range(90, 120)]
    # One file, or files of unequal size: single records of one global batch are sharded.
    assert _open(data_dir, "numbered", "train[:50]").shard_by_file(2, 1) is None
    single = _open(data_dir, "one_file", "train")
    whole = np.reshape(_read_numbers(train_batches(single, **arguments)), (3, 2, 20))
    assert numbers(single, 1) == whole[:, 1].ravel().tolist()


def test_tfds_holdout_is_disjoint_and_complete(data_dir):
    source = _open(data_dir, "numbered", "train[10:110]")
    parts = source.holdout(0.1, seed=4)
    rest, held_out = (_read_numbers(sequential_batches(part, 32)) for part in parts)
    assert (len(rest), len(held_out)) == (90, 10)
    assert sorted(rest + held_out) == list(range(10, 110))
    again = _read_numbers(sequential_batches(source.holdout(0.1, seed=4)[1], 32))
    other = _read_numbers(sequential_batches(source.holdout(0.1, seed=5)[1], 32))
    assert again == held_out != other


def test_tfds_cached_source_has_the_same_images_and_labels(data_dir):
    plain = _open(data_dir, "numbered", "train[:50]")
    cached = _open(data_dir, "numbered", "train[:50]", cache=True)
    assert cached.class_names == plain.class_names
    for expected, batch in zip(
        sequential_batches(plain, 20), sequential_batches(cached, 20), strict=True
    ):
        np.testing.assert_array_equal(batch["image"], expected["image"])
        np.testing.assert_array_equal(batch["label"], expected["label"])


def test_tfds_resizes_images_of_varying_size(tmp_path):
    images = np.full((5, 40, 3), 90, np.uint8), np.full((30, 20, 3), 10, np.uint8)
    examples = [{"picture": image} for image in images]
    store(tmp_path, "varying", {"train": examples}, picture=tfds.features.Image())
    with pytest.raises(UserError, match="pass storage_size"):
        _open(tmp_path, "varying", "train")
    source = _open(tmp_path, "varying", "train", storage_size=16)
    assert (source.class_names, source.image_shape) == (None, (16, 16, 3))
    (batch,) = sequential_batches(source, 2)
    assert set(batch) == {"image", "aspect"}
    np.testing.assert_allclose(batch["aspect"], [8.0, 20 / 30])
    assert [np.unique(image).tolist() for image in batch["image"]] == [[90], [10]]
    for images in (source, source.subset(np.arange(2))):  # encoded in files, and in memory
        (batch,) = sequential_batches(images.with_storage_size(30), 2)
        assert batch["image"].shape == (2, 30, 30, 3) and images.image_shape == (16, 16, 3)


def test_tfds_converts_gray_and_alpha_to_rgb(tmp_path):
    gray = RNG.integers(0, 256, (4, 4, 1), np.uint8)
    rgba = RNG.integers(0, 256, (4, 4, 4), np.uint8)
    rgba[0, 0] = (10, 20, 30, 0)
    rgba[0, 1] = (10, 20, 30, 255)
    for name, image in [("gray", gray), ("alpha", rgba)]:
        feature = tfds.features.Image(shape=image.shape, encoding_format="png")
        store(tmp_path, name, {"train": [{"image": image}]}, image=feature)
    (batch,) = sequential_batches(_open(tmp_path, "gray", "train"), 1)
    np.testing.assert_array_equal(batch["image"][0], np.repeat(gray, 3, axis=-1))
    (batch,) = sequential_batches(_open(tmp_path, "alpha", "train"), 1)
    image = batch["image"][0].numpy()
    assert image[0, 0].tolist() == [255, 255, 255]
    assert image[0, 1].tolist() == [10, 20, 30]
    opacity = rgba[..., 3:] / 255
    np.testing.assert_allclose(image, rgba[..., :3] * opacity + 255 * (1 - opacity), atol=0.51)


def test_tfds_keeps_labels_of_minus_one(tmp_path):
    """As in STL-10's `unlabelled` split."""
    examples = [{"image": BLACK, "label": label} for label in (-1, 2)]
    label = tfds.features.ClassLabel(num_classes=3)
    store(tmp_path, "partly", {"train": examples}, image=IMAGE, label=label)
    source = _open(tmp_path, "partly", "train")
    assert source.class_names == ("0", "1", "2")
    (batch,) = sequential_batches(source, 2)
    assert batch["label"].numpy().tolist() == [-1, 2]


def test_tfds_errors_name_what_exists(data_dir, tmp_path):
    for dataset, split, where, message in [
        ("numbered", "validation", data_dir, r"train \(120\), test \(30\)"),
        ("numbered", "train[:300]", data_dir, r"train \(120\), test \(30\)"),
        ("cifar_10", "train", data_dir, "similar names: cifar10.* contains .*numbered"),
        ("no such", "train", data_dir, "--dataset=no such: expected `shapes`"),
        ("numbered:2.0.0", "train", data_dir, "numbered:2.0.0"),
        ("numbered", "train", tmp_path / "none", "--data_dir=.*none is not a directory"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            _open(where, dataset, split)
        assert "\n" not in str(caught.value)


def test_tfds_explains_a_manual_download_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"imagenet2012 cannot be prepared.*ILSVRC2012") as caught:
        _open(tmp_path, "imagenet2012", "train")
    assert "\n" not in str(caught.value)


def test_tfds_reads_another_version_that_exists(tmp_path, log):
    """TFDS's own code for CIFAR-10 is at 3.0.2."""
    store(tmp_path, "cifar10", {"train": [{"image": BLACK}]}, image=IMAGE)
    assert _open(tmp_path, "cifar10", "train").num_examples == 1
    assert "cifar10/1.0.0" in log.text
    assert sorted(path.name for path in (tmp_path / "cifar10").iterdir()) == ["1.0.0"]


def test_tfds_names_a_missing_file(data_dir, tmp_path):
    shutil.copytree(data_dir / "numbered", tmp_path / "numbered")
    victim = sorted((tmp_path / "numbered").rglob("*train.tfrecord-00002*"))[0]
    victim.unlink()
    with pytest.raises(UserError, match=f"lacks 1 of 4 files, the first is .*{victim.name}"):
        _open(tmp_path, "numbered", "train")


def test_tfds_reads_cifar10(cifar_data_dir):
    source = _open(cifar_data_dir, "cifar10", "train[:90%]")
    assert (source.num_examples, source.image_shape) == (45_000, (32, 32, 3))
    assert source.class_names[3] == "cat"
    batch = next(iter(train_batches(source, batch_size=64, seed=0, start_step=703, num_steps=1)))
    assert batch["image"].shape == (64, 32, 32, 3)
    assert len(np.unique(batch["label"])) > 5


def test_tfds_reads_labels_once(data_dir, tmp_path):
    shutil.copytree(data_dir / "numbered", tmp_path / "numbered")
    source = _open(tmp_path, "numbered", "train")
    part = source.subset(np.array([1, 5, 9]))
    expected = source.labels().tolist()
    rest, held_out = source.holdout(0.1, seed=0)  # each has its own labels
    assert sorted(rest.labels().tolist() + held_out.labels().tolist()) == sorted(expected)
    for file in (tmp_path / "numbered").rglob("*.tfrecord*"):
        file.unlink()
    assert source.labels().tolist() == expected
    assert part.labels().tolist() == [n % 3 for n in (1, 5, 9)]
    with pytest.raises(ValueError, match="read-only"):
        source.labels()[0] = 2


@pytest.mark.parametrize(
    ("not_difficult", "expected"),
    [
        (None, [[1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 1, 1]]),
        ([[0], [], [], [0, 1, 2]], [[1, 0, -1], [0, -1, 0], [0, 0, 0], [1, 1, 1]]),
    ],
    ids=["one_feature", "difficult"],
)
def test_tfds_several_labels_per_image_become_present_absent_or_difficult(
    tmp_path, not_difficult, expected
):
    """As in PASCAL VOC: `labels` is a sequence, in which a class may occur twice or not at all."""
    features = {"labels": [[0, 2], [1, 1], [], [0, 1, 2]]}
    if not_difficult:
        features["labels_no_difficult"] = not_difficult
    columns = zip(*features.values(), strict=True)
    examples = [dict(zip(features, labels, strict=True), image=BLACK) for labels in columns]
    names = tfds.features.Sequence(tfds.features.ClassLabel(names=["a", "b", "c"]))
    store(tmp_path, "several", {"train": examples}, image=IMAGE, **dict.fromkeys(features, names))
    source = _open(tmp_path, "several", "train")
    assert source.multi_label and source.class_names == ("a", "b", "c")
    (batch,) = sequential_batches(source, 4)
    assert batch["label"].dtype == tf.int64
    assert batch["label"].numpy().tolist() == source.labels().tolist() == expected
    cached = _open(tmp_path, "several", "train", cache=True)
    assert cached.multi_label and cached.labels().tolist() == expected
    assert source.subset(np.array([1, 3])).labels().tolist() == [expected[1], expected[3]]


def test_tfds_refuses_a_subset_too_large_for_memory(data_dir):
    source = _open(data_dir, "numbered", "train")
    source.max_bytes = 50
    with pytest.raises(UserError, match="more than half of this machine's memory"):
        source.subset(np.arange(50))
