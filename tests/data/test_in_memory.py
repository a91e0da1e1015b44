"""Arrays and `tf.data.Dataset`s from Python as image sources."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.data import config_name, from_python, open_source, sequential_batches, train_batches
from simclr_tf.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (7, 6, 5, 3), np.uint8)
LABELS = np.array([0, 2, 1, 0, 2, 2, 0])


def _slices(*tensors):
    return tf.data.Dataset.from_tensor_slices(*tensors)


@pytest.mark.parametrize(
    ("images", "labels", "is_labeled"),
    [
        (IMAGES, None, False),
        (IMAGES, LABELS, True),
        (tf.constant(IMAGES), LABELS.astype(np.uint8).tolist(), True),
        (list(IMAGES), tf.constant(LABELS), True),
        (_slices(IMAGES), None, False),
        (_slices((IMAGES, LABELS.astype(np.int32))), None, True),
        (_slices({"image": IMAGES}), None, False),
        (_slices({"image": IMAGES, "label": LABELS, "id": np.arange(7)}), None, True),
        (_slices((IMAGES, LABELS)).batch(3), None, True),
        (_slices(IMAGES).filter(lambda _: True), None, False),  # of unknown length
    ],
    ids=["array", "labels", "tensor", "list", "ds", "pairs", "dicts", "labeled", "batches", "?"],
)
def test_from_python_accepts_arrays_and_datasets(images, labels, is_labeled):
    source = from_python(images, labels)
    assert (source.num_examples, source.image_shape) == (7, (6, 5, 3))
    (batch,) = sequential_batches(source, 10)
    np.testing.assert_array_equal(batch["image"], IMAGES)
    if is_labeled:
        assert source.class_names == ("0", "1", "2")
        np.testing.assert_array_equal(batch["label"], LABELS)
        np.testing.assert_array_equal(source.labels(), LABELS)
        assert batch["label"].dtype == tf.int64
    else:
        assert source.class_names is None and set(batch) == {"image"}
    # The name depends on the content alone.
    assert source.name == from_python(IMAGES, LABELS if is_labeled else None).name
    assert source.name.startswith("array:") and len(source.name) == 18


def test_from_python_name_changes_with_images_and_labels():
    changed = IMAGES.copy()
    changed[3, 0, 0, 0] ^= 1
    sources = [from_python(IMAGES), from_python(changed), from_python(IMAGES, LABELS)]
    assert len({source.name for source in sources}) == 3
    named = from_python(IMAGES, name="my photos")
    assert named.name == "my photos" and config_name(named) == sources[0].name
    with pytest.raises(UserError, match="passed from Python"):
        open_source(sources[0].name, "train")


def test_from_python_source_trains_and_splits_like_any_other():
    source = from_python(IMAGES, LABELS, class_names=["ant", "bee", "cat", "dog"])
    assert source.class_names == ("ant", "bee", "cat", "dog")
    batches = train_batches(source, batch_size=7, seed=0, start_step=1, num_steps=2)
    for batch in batches.as_numpy_iterator():
        order = [
            np.flatnonzero((image == IMAGES).all((1, 2, 3))).item() for image in batch["image"]
        ]
        assert sorted(order) == list(range(7))
        np.testing.assert_array_equal(batch["label"], LABELS[order])
    rest, held_out = source.holdout(0.3, seed=0)
    assert (rest.num_examples, held_out.num_examples) == (5, 2)
    assert source.subset(np.array([1, 4])).image_ids(np.arange(2)) == ["1", "4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((IMAGES / 255,), r"images: expected uint8 .* got float64.* Fix: .*255 \* images"),
        ((IMAGES.astype(np.int32),), "images: expected uint8 .* got int32"),
        ((IMAGES[0],), r"got shape \[6, 5, 3\]"),
        ((IMAGES[..., 0],), "repeat gray images in three channels"),
        ((IMAGES[..., :2],), r"got shape \[7, 6, 5, 2\]"),
        ((IMAGES[:0],), "at least one pixel"),
        (([IMAGES[0], IMAGES[1, :3]],), "images: expected an array, got list"),
        ((None,), "images: expected uint8 .* got object"),
        ((IMAGES, LABELS[:6]), r"labels: expected one for each of 7 images, got \[6\]"),
        ((IMAGES, LABELS[:, None]), r"got \[7, 1\]"),
        ((IMAGES, LABELS.astype(float)), "labels: expected integers, got float64"),
        ((IMAGES, LABELS > 1), "labels: expected integers, got bool"),
        ((IMAGES, LABELS - 1), "labels: expected class numbers from 0 .* got -1"),
        ((IMAGES, LABELS + 10**9), "got 1000000002"),
        ((_slices(IMAGES), LABELS), "not supported next to a tf.data.Dataset"),
        ((_slices(IMAGES).repeat(),), "expected a finite tf.data.Dataset"),
        ((_slices(IMAGES).take(0),), "got an empty tf.data.Dataset"),
        ((_slices(IMAGES.astype(np.float32)),), "images: expected uint8 .* got float32"),
        ((_slices((IMAGES, LABELS.astype(float))),), "labels: expected integers"),
        ((_slices({"images": IMAGES}),), 'dicts with "image"'),
        ((_slices((IMAGES, LABELS, LABELS)),), r"\(image, label\) pairs"),
        ((tf.data.Dataset.range(3),), "expected a dataset of images .*, got shape"),
    ],
)
def test_from_python_refuses_other_values_in_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        from_python(*arguments)
    assert "\n" not in str(caught.value)


def test_from_python_refuses_a_dataset_of_several_sizes():
    def images():
        yield IMAGES[0]
        yield IMAGES[1, :4]

    spec = tf.TensorSpec([None, None, 3], tf.uint8)
    dataset = tf.data.Dataset.from_generator(images, output_signature=spec)
    with pytest.raises(UserError, match=r"images \[H, W, 3\] of one size, got shape \[4, 5, 3\]"):
        from_python(dataset)


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (LABELS, ["a", "b"], "expected at least 3 different names, got 2"),
        (LABELS, ["a", "b", "a"], "got 3 of which 2 differ"),
        (LABELS, "abc", "expected a list of strings"),
        (None, ["a", "b", "c"], "given without labels"),
    ],
)
def test_from_python_refuses_wrong_class_names(labels, names, message):
    with pytest.raises(UserError, match=f"class_names: .*{message}"):
        from_python(IMAGES, labels, class_names=names)
