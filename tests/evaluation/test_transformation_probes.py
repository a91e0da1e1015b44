"""Probes of transformations with representations whose knowledge is known."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.data import open_source
from simclr_tf.errors import UserError
from simclr_tf.evaluation.transformation_probes import (
    TRANSFORMATIONS,
    check_probes,
    probe_transformations,
)


def _represent(images):
    """Colour, colour by quadrant, nothing at all, local contrast."""
    quadrants = tf.nn.avg_pool2d(images, 16, 16, "VALID")
    saturation = tf.reduce_mean(tf.abs(images[..., 1:] - images[..., :-1]), [1, 2])
    contrast = tf.reduce_mean(tf.abs(images[:, 1:] - images[:, :-1]), [1, 2])
    return {
        "colour": tf.concat([tf.reduce_mean(images, [1, 2]), saturation], axis=1),
        "place": tf.reshape(quadrants, [-1, 12]),
        "nothing": tf.zeros([tf.shape(images)[0], 2]),
        "contrast": tf.concat([contrast, tf.reduce_mean(images, [1, 2])], axis=1),
    }


@pytest.fixture(scope="module")
def found():
    train, test = open_source("shapes", "train[:1500]"), open_source("shapes", "test[:400]")
    # Light comes from the left: brightness by place tells how an image was turned.
    light = np.linspace(1.0, 0.2, 32, dtype=np.float32)[None, None, :, None]
    for source in (train, test):
        source.images = (source.images * light).astype(np.uint8)
    probed = probe_transformations(_represent, train, test, 32, list(TRANSFORMATIONS))
    return {(p.transformation, p.representation): p for p in probed}


def _accuracy(probed):
    return np.mean(probed.scores.argmax(axis=1) == probed.labels)


def test_a_representation_tells_what_it_keeps(found):
    assert _accuracy(found["color", "colour"]) > 0.9
    assert _accuracy(found["rotation", "place"]) > 0.8
    assert _accuracy(found["noise", "contrast"]) > 0.9
    assert _accuracy(found["sobel", "contrast"]) > 0.9


def test_and_no_more(found):
    assert _accuracy(found["rotation", "colour"]) < 0.35
    for name, transformation in TRANSFORMATIONS.items():
        chance = 1 / len(transformation.names)
        assert _accuracy(found[name, "nothing"]) == pytest.approx(chance, abs=0.01)


def test_every_way_is_shown_equally_often_and_all_representations_see_the_same(found):
    for (name, _), probed in found.items():
        counts = np.bincount(probed.labels)
        assert len(counts) == len(TRANSFORMATIONS[name].names) and np.ptp(counts) <= 1
        np.testing.assert_array_equal(probed.labels, found[name, "colour"].labels)
        assert probed.num_train == 1500


def test_too_few_images_are_refused_at_once():
    few, test = open_source("shapes", "train[:39]"), open_source("shapes", "test[:40]")
    with pytest.raises(UserError, match="39 images"):
        check_probes(few, test)
    check_probes(test, test)


def test_answers_are_kept_by_what_they_are_of(tmp_path):
    train, test = open_source("shapes", "train[:60]"), open_source("shapes", "test[:40]")
    calls = []

    def represent(images):
        calls.append(1)
        return {"": tf.reduce_mean(images, [1, 2])}

    def probe(identity="a", seed=0, source=train):
        settings = {"seed": seed, "cache_dir": tmp_path, "identity": identity}
        (probed,) = probe_transformations(represent, source, test, 16, ["color"], **settings)
        return probed

    first, computed = probe(), len(calls)
    again = probe()
    assert len(calls) == computed
    np.testing.assert_array_equal(first.scores, again.scores)
    assert dataclasses.replace(again, scores=0, labels=0) == dataclasses.replace(
        first, scores=0, labels=0
    )
    for changes in ({"identity": "b"}, {"seed": 1}, {"source": test}):
        computed = len(calls)
        probe(**changes)
        assert len(calls) > computed, changes


def test_a_representation_that_is_not_finite_is_named():
    test = open_source("shapes", "test[:40]")
    with pytest.raises(UserError, match="not finite"):
        list(
            probe_transformations(
                lambda images: {"": tf.reduce_mean(images, [1, 2]) / 0.0}, test, test, 16, ["color"]
            )
        )
