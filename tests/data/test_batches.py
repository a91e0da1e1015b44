"""The stream of training batches: continuous, the same from any step, shared by workers."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.data import ImageSource, open_source, sequential_batches, train_batches
from simclr_tf.errors import UserError

BATCH, SEED = 48, 3


@pytest.fixture(scope="module")
def shapes() -> ImageSource:
    return open_source("shapes", "train[:100]")


def _batches(source, start_step=0, num_steps=9, **more) -> list[dict[str, np.ndarray]]:
    arguments = {"batch_size": BATCH, "seed": SEED} | more
    batches = train_batches(source, start_step=start_step, num_steps=num_steps, **arguments)
    return list(batches.as_numpy_iterator())


def _ids(batches) -> list[bytes]:
    return [image.tobytes() for batch in batches for image in batch["image"]]


def test_train_batches_contain_every_image_once_per_epoch(shapes):
    stored = _ids(sequential_batches(shapes, 32).as_numpy_iterator())
    assert len(set(stored)) == 100
    stream = _ids(_batches(shapes))
    assert len(stream) == 9 * BATCH
    epochs = [stream[i : i + 100] for i in range(0, 400, 100)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(stored)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_train_batches_depend_on_the_seed_alone(shapes):
    stream = _ids(_batches(shapes))
    assert stream != _ids(_batches(shapes, seed=SEED + 1))
    tf.random.set_seed(0)
    assert stream == _ids(_batches(shapes))


@pytest.mark.parametrize("start_step", [2, 8])
def test_train_batches_from_a_step_continue_the_run(shapes, start_step):
    whole = _batches(shapes)
    rest = _batches(shapes, start_step, 9 - start_step)
    assert len(rest) == 9 - start_step
    for expected, batch in zip(whole[start_step:], rest, strict=True):
        np.testing.assert_array_equal(batch["image"], expected["image"])
        np.testing.assert_array_equal(batch["label"], expected["label"])


def test_train_batches_of_replicas_split_the_batch_in_order(shapes):
    whole = _batches(shapes, 1, 5)
    parts = _batches(shapes, 1, 5, num_replicas=3)
    for i, batch in enumerate(whole):
        shares = [part["image"] for part in parts[3 * i : 3 * i + 3]]
        np.testing.assert_array_equal(np.concatenate(shares), batch["image"])


def test_train_batches_of_workers_split_the_global_batch(shapes):
    whole = _batches(shapes, 1, 5)
    parts = [_batches(shapes, 1, 5, num_workers=3, worker_index=index) for index in range(3)]
    for step, expected in enumerate(whole):
        image = np.concatenate([part[step]["image"] for part in parts])
        np.testing.assert_array_equal(image, expected["image"])


def test_train_batches_refuse_an_indivisible_batch(shapes):
    with pytest.raises(ValueError, match="48 does not divide among 5 workers of 2 replicas"):
        _batches(shapes, num_workers=5, num_replicas=2)


def test_train_batches_have_static_shapes_and_known_length(shapes):
    batches = train_batches(shapes, batch_size=BATCH, seed=0, start_step=4, num_steps=7)
    assert len(batches) == 7
    assert batches.element_spec["image"] == tf.TensorSpec((BATCH, 32, 32, 3), tf.uint8)
    assert batches.element_spec["label"] == tf.TensorSpec((BATCH,), tf.int64)
    sizes = [len(batch["label"]) for batch in sequential_batches(shapes, 32)]
    assert sizes == [32, 32, 32, 4]


def test_train_batches_may_be_larger_than_the_data(shapes):
    few = open_source("shapes", "train[:10]")
    (batch,) = _batches(few, num_steps=1)
    assert len(set(_ids([batch])[:10])) == 10


def test_holdout_of_indexed_source_is_disjoint_complete_and_seeded(shapes):
    def split(seed):
        parts = shapes.holdout(0.25, seed)
        return [set(_ids(sequential_batches(part, 64).as_numpy_iterator())) for part in parts]

    rest, held_out = split(1)
    assert (len(rest), len(held_out)) == (75, 25)
    assert not rest & held_out
    assert split(1) == [rest, held_out]
    assert split(2)[1] != held_out
    assert shapes.num_examples == 100
    for fraction in (0.0, 0.001, 1.0):
        with pytest.raises(UserError, match="--validation_fraction"):
            shapes.holdout(fraction, 1)
