"""Label budgets, and subsets of every kind of source."""

import numpy as np
import pytest
from PIL import Image

from simclr_tf.data import ArraySource, open_source, sequential_batches, train_batches
from simclr_tf.data.label_subset import mask_labels, sample_labeled
from simclr_tf.data.shapes import render_split
from simclr_tf.errors import UserError

LABELS = np.random.default_rng(0).permutation(np.repeat([0, 1, 2, -1], [100, 50, 10, 40]))
NAMES = ("a", "b", "c")


def _counts(positions):
    return [int((LABELS[positions] == c).sum()) for c in range(3)]


def test_sample_labeled_takes_the_fraction_of_every_class():
    chosen = sample_labeled(LABELS, NAMES, fraction=0.1)
    assert _counts(chosen) == [10, 5, 1]
    assert (np.diff(chosen) > 0).all()
    assert _counts(sample_labeled(LABELS, NAMES, fraction=0.17)) == [17, 8, 2]  # rounded
    assert _counts(sample_labeled(LABELS, NAMES)) == [100, 50, 10]
    assert _counts(sample_labeled(LABELS, NAMES, per_class=7)) == [7, 7, 7]


def test_sample_labeled_is_seeded_and_nested():
    small, large = (set(sample_labeled(LABELS, NAMES, fraction=f, seed=3)) for f in (0.1, 0.5))
    assert small < large
    assert small == set(sample_labeled(LABELS, NAMES, fraction=0.1, seed=3))
    assert small != set(sample_labeled(LABELS, NAMES, fraction=0.1, seed=4))


def test_sample_labeled_names_a_class_that_is_too_small():
    with pytest.raises(UserError, match=r"--label_fraction=0\.04 selects none .* class 'c'"):
        sample_labeled(LABELS, NAMES, fraction=0.04)
    with pytest.raises(UserError, match="--labels_per_class=11: class 'c' has 10"):
        sample_labeled(LABELS, NAMES, per_class=11)
    with pytest.raises(UserError, match="several labels"):
        sample_labeled(np.eye(3, dtype=int), NAMES, fraction=0.5)


@pytest.fixture(scope="module", params=["shapes", "folder", "numbered"])
def source(request, tmp_path_factory):
    if request.param == "shapes":
        return open_source("shapes", "train[10:130]")
    if request.param == "numbered":
        data_dir = request.getfixturevalue("data_dir")
        return open_source("numbered", "train[7:110]", data_dir=str(data_dir))
    root = tmp_path_factory.mktemp("folder")
    for i, (image, label) in enumerate(zip(*render_split("train", 60), strict=True)):
        folder = root / f"class{label}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    return open_source(f"folder:{root}", "train", storage_size=32)


def test_subset_agrees_with_the_decoded_images_and_labels(source):
    (whole,) = sequential_batches(source, source.num_examples)
    np.testing.assert_array_equal(source.labels(), whole["label"])
    positions = np.array([3, 4, 17, 50])
    part = source.subset(positions)
    (found,) = sequential_batches(part, 10)
    assert part.num_examples == 4
    for key, values in found.items():
        np.testing.assert_array_equal(values, whole[key].numpy()[positions], err_msg=key)
    np.testing.assert_array_equal(part.labels(), source.labels()[positions])
    nested = part.subset(np.array([1, 3]))
    np.testing.assert_array_equal(nested.labels(), source.labels()[[4, 50]])
    # Every epoch of a part holds each of its images once.
    (epoch,) = train_batches(part, batch_size=4, seed=0, start_step=5, num_steps=1)
    sums = (np.sort(batch["image"].numpy().sum((1, 2, 3))) for batch in (epoch, found))
    np.testing.assert_array_equal(*sums)


@pytest.mark.parametrize(
    ("source", "part"),
    [("shapes", False), ("numbered", False), ("numbered", True)],
    indirect=["source"],
)
def test_mask_labels_keeps_labels_of_chosen_images(source, part):
    if part:
        source = source.subset(np.arange(2, 60))
    positions = np.array([0, 4, 17, 50])
    few = mask_labels(source, positions)
    (whole,) = sequential_batches(source, source.num_examples)
    np.testing.assert_array_equal(whole["label"], source.labels())
    (found,) = sequential_batches(few, few.num_examples)
    expected = np.full(source.num_examples, -1)
    expected[positions] = source.labels()[positions]
    np.testing.assert_array_equal(found["label"], expected)
    np.testing.assert_array_equal(found["image"], whole["image"])
    # In any order, and of a worker's share: each image with what it has in stored order.
    names = [image.tobytes() for image in whole["image"].numpy()]
    share = {"num_workers": 2, "worker_index": 1}
    for batch in train_batches(few, batch_size=16, seed=1, start_step=0, num_steps=6, **share):
        for image, label in zip(batch["image"].numpy(), batch["label"].numpy(), strict=True):
            assert label == expected[names.index(image.tobytes())]


def test_sequential_batches_start_at_a_position(source):
    (whole,) = sequential_batches(source, source.num_examples)
    rest = list(sequential_batches(source, 16, start=40))
    images = np.concatenate([batch["image"] for batch in rest])
    np.testing.assert_array_equal(images, whole["image"].numpy()[40:])


def test_fingerprint_depends_on_the_images_read(source):
    again, other = source.subset(np.arange(30)), source.subset(np.arange(1, 31))
    assert again.fingerprint() == source.subset(np.arange(30)).fingerprint()
    assert len({source.fingerprint(), again.fingerprint(), other.fingerprint()}) == 3


def test_labels_of_unlabeled_source_are_refused():
    source = ArraySource("none", np.zeros((4, 8, 8, 3), np.uint8))
    with pytest.raises(UserError, match="none has no labels"):
        source.labels()
