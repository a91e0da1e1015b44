"""Transformation probes on representations with known content."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.data import open_source, sequential_batches
from simclr_tf.data.base import ArraySource
from simclr_tf.errors import UserError
from simclr_tf.evaluation import EvalContext
from simclr_tf.evaluation.transformation_probes import (
    TRANSFORMATION_FUNCTIONS,
    check_probes,
    probe_transformations,
)

CONTEXT = EvalContext("shapes", "train", "test", image_size=32)


def _outputs(images):
    """Color, color by quadrant, nothing, local contrast."""
    quadrants = tf.nn.avg_pool2d(images, 16, 16, "VALID")
    saturation = tf.reduce_mean(tf.abs(images[..., 1:] - images[..., :-1]), [1, 2])
    contrast = tf.reduce_mean(tf.abs(images[:, 1:] - images[:, :-1]), [1, 2])
    return {
        "color": tf.concat([tf.reduce_mean(images, [1, 2]), saturation], axis=1),
        "place": tf.reshape(quadrants, [-1, 12]),
        "nothing": tf.zeros([tf.shape(images)[0], 2]),
        "contrast": tf.concat([contrast, tf.reduce_mean(images, [1, 2])], axis=1),
    }


def _scale_images(source, factor):
    images = np.concatenate([b["image"] for b in sequential_batches(source, 256)])
    return ArraySource(source.name, (images * factor).astype(np.uint8))


@pytest.fixture(scope="module")
def found():
    train, test = open_source("shapes", "train[:600]"), open_source("shapes", "test[:200]")
    # Light comes from the left, so that brightness by position predicts the rotation.
    light = np.linspace(1.0, 0.2, 32, dtype=np.float32)[None, None, :, None]
    train, test = (_scale_images(source, light) for source in (train, test))
    names = list(TRANSFORMATION_FUNCTIONS)
    probed = list(probe_transformations(_outputs, train, test, names, CONTEXT))
    for evaluation, class_names in probed:
        name = evaluation.protocol.removeprefix("probe:").partition("/")[0]
        assert class_names == TRANSFORMATION_FUNCTIONS[name].class_names
    return {tuple(e.protocol.removeprefix("probe:").split("/")): e for e, _ in probed}


def _accuracy(probed):
    return np.mean(probed.scores.argmax(axis=1) == probed.labels)


def test_probe_predicts_a_transformation_that_the_representation_contains(found):
    assert _accuracy(found["color", "color"]) > 0.9
    assert _accuracy(found["rotation", "place"]) > 0.8
    assert _accuracy(found["noise", "contrast"]) > 0.9
    assert _accuracy(found["sobel", "contrast"]) > 0.9


def test_probe_is_at_chance_for_a_transformation_that_it_does_not_contain(found):
    assert _accuracy(found["rotation", "color"]) < 0.35
    for name, transformation in TRANSFORMATION_FUNCTIONS.items():
        chance = 1 / len(transformation.class_names)
        assert _accuracy(found[name, "nothing"]) == pytest.approx(chance, abs=0.01)


def test_every_class_is_equally_frequent_and_equal_for_all_representations(found):
    for (name, _), probed in found.items():
        counts = np.bincount(probed.labels)
        assert (
            len(counts) == len(TRANSFORMATION_FUNCTIONS[name].class_names) and np.ptp(counts) <= 1
        )
        np.testing.assert_array_equal(probed.labels, found[name, "color"].labels)
        assert probed.num_train == 600


def test_check_probes_refuses_fewer_than_40_images():
    few, test = open_source("shapes", "train[:39]"), open_source("shapes", "test[:40]")
    with pytest.raises(UserError, match=r"train\[:39\] has 39"):
        check_probes(few, test)
    check_probes(test, test)


def test_results_are_cached_by_their_inputs(tmp_path):
    train, test = open_source("shapes", "train[:60]"), open_source("shapes", "test[:40]")
    calls = []

    def outputs_fn(images):
        calls.append(1)
        return {"": tf.reduce_mean(images, [1, 2])}

    def probe(fingerprint="a", seed=0, source=train):
        context = dataclasses.replace(CONTEXT, image_size=16, seed=seed, cache_dir=tmp_path)
        probed = probe_transformations(outputs_fn, source, test, ["color"], context, fingerprint)
        ((evaluation, _),) = probed
        return evaluation

    first, computed = probe(), len(calls)
    again = probe()
    assert len(calls) == computed
    np.testing.assert_array_equal(first.scores, again.scores)
    assert (again.record(), again.warning) == (first.record(), first.warning)
    for changes in ({"fingerprint": "b"}, {"seed": 1}, {"source": test}):
        computed = len(calls)
        probe(**changes)
        assert len(calls) > computed, changes


def test_representation_that_is_not_finite_is_refused():
    def outputs_fn(images):
        return {"": tf.reduce_mean(images, [1, 2]) / 0.0}

    test = open_source("shapes", "test[:40]")
    with pytest.raises(UserError, match="not finite"):
        next(probe_transformations(outputs_fn, test, test, ["color"], CONTEXT))
