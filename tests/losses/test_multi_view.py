"""The losses of more than two views per image, against their formulas written out in loops."""

import functools

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf.losses import NTXent, dcl, nt_xent, supcon
from simclr_tf.losses.contrastive import l2_normalize
from tests.losses.views import on_replicas

TEMPERATURE = 0.3
LABELS = np.array([0, 1, -1, 0, 2, -1, 1, 0])
LOSSES = {"nt_xent": nt_xent, "supcon": supcon, "dcl": dcl}


def make_views(num_views, n, d=5, seed=0):
    """Views [V, n, d] that agree in part, so that accuracy lies strictly between 0 and 1."""
    random = np.random.default_rng(seed)
    return random.normal(size=(n, d)) + random.normal(size=(num_views, n, d))


def slow_loss(name, views, normalize=True, temperature=TEMPERATURE):
    """Loss, accuracy and entropy, one pair of an anchor and a positive at a time in float64."""
    z = {}
    for v, view in enumerate(views):
        for i, row in enumerate(view):
            z[v, i] = row / np.linalg.norm(row) if normalize else row
    losses, hits, entropies = [], [], []
    for anchor in z:
        s = {k: float(z[anchor] @ z[k]) / temperature for k in z if k != anchor}
        own = [k for k in s if k[1] == anchor[1]]
        negatives = [k for k in s if k[1] != anchor[1]]
        positives, denominator = own, list(s)
        if name == "supcon":
            label = LABELS[anchor[1]]
            positives = own + [k for k in negatives if LABELS[k[1]] == label >= 0]
        if name == "dcl":
            denominator = negatives
        total = sum(np.exp(s[k]) for k in denominator)
        losses.append(np.mean([-np.log(np.exp(s[p]) / total) for p in positives]))
        hits += [all(s[p] > s[k] for k in negatives) for p in own]
        softmax = np.exp(list(s.values())) / sum(np.exp(x) for x in s.values())
        entropies.append(-np.sum(softmax * np.log(softmax)))
    return np.mean(losses), np.mean(hits), np.mean(entropies)


def results_and_gradients(name, views, **arguments):
    """Returns a loss function's results, and the gradient [V, n, d] of three times the loss."""
    loss = functools.partial(LOSSES[name], temperature=TEMPERATURE, **arguments)
    if name == "supcon":
        loss = functools.partial(loss, labels=LABELS[: views.shape[1]])
    with tf.GradientTape() as tape:
        tape.watch(views)
        z_a, z_b, *more_views = tf.unstack(views)
        results = loss(z_a, z_b, more_views=more_views)
        value = 3.0 * results[0]
    return results, tape.gradient(value, views)


@pytest.mark.parametrize("num_views", [2, 3, 5])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("name", LOSSES)
def test_values_are_those_of_the_formula(name, normalize, num_views):
    views = make_views(num_views, 8)
    found, _ = results_and_gradients(name, tf.constant(views), normalize=normalize)
    expected = slow_loss(name, views, normalize)
    assert 0 < expected[1] < 1
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-11)
    np.testing.assert_allclose(found[1:], expected[1:], rtol=1e-6)


@pytest.mark.parametrize("block_size", [0, 2])
@pytest.mark.parametrize("normalize", [True, False])
def test_gradient_equals_finite_differences_of_the_formula(normalize, block_size):
    views = make_views(4, 3, 4, seed=3)
    expected = np.empty_like(views)
    step = 1e-5
    for index in np.ndindex(*views.shape):
        moved = [views.copy(), views.copy()]
        moved[0][index] += step
        moved[1][index] -= step
        plus, minus = (slow_loss("nt_xent", x, normalize)[0] for x in moved)
        expected[index] = 3.0 * (plus - minus) / (2 * step)
    _, found = results_and_gradients(
        "nt_xent", tf.constant(views), normalize=normalize, block_size=block_size
    )
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["supcon", "dcl"])
def test_gradients_of_the_other_losses_equal_finite_differences(name):
    views = make_views(3, 3, 4, seed=4)
    _, found = results_and_gradients(name, tf.constant(views))
    direction = np.random.default_rng(5).normal(size=views.shape)
    plus, minus = (slow_loss(name, views + step * direction)[0] for step in (1e-5, -1e-5))
    expected = 3.0 * (plus - minus) / 2e-5
    np.testing.assert_allclose(np.sum(found * direction), expected, rtol=1e-7)


def test_four_views_are_supcon_with_each_image_as_a_class_of_two():
    views = make_views(4, 6)
    found = nt_xent(views[0], views[1], more_views=list(views[2:]))
    a, b = np.concatenate(views[[0, 2]]), np.concatenate(views[[1, 3]])
    expected = supcon(a, b, labels=np.tile(np.arange(6), 2))
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-12)
    np.testing.assert_allclose(found[2], expected[2], rtol=1e-12)


def test_equal_views_reach_the_lower_bound():
    z = np.eye(6)
    loss, accuracy, entropy = nt_xent(z, z, 0.01, more_views=[z, z, z])
    np.testing.assert_allclose([loss, entropy], [np.log(4)] * 2, rtol=1e-6)
    assert accuracy == 1.0
    collapsed = np.ones((6, 3))
    loss, accuracy, _ = nt_xent(collapsed, collapsed, more_views=[collapsed])
    np.testing.assert_allclose(loss, np.log(17), rtol=1e-9)
    assert accuracy == 0.0


def former_nt_xent(z_a, z_b, temperature):
    """NT-Xent of pairs as it was before there could be more views."""
    views = tf.stack([l2_normalize(z_a), l2_normalize(z_b)])
    z = tf.reshape(views, [-1, views.shape[-1]])
    n = views.shape[1]
    similarities = tf.matmul(z / temperature, z, transpose_b=True)
    logits = tf.where(tf.eye(2 * n, dtype=bool), tf.constant(-np.inf, z.dtype), similarities)
    positive = tf.gather(logits, tf.concat([n + tf.range(n), tf.range(n)], 0), batch_dims=1)
    return tf.reduce_sum(tf.reduce_logsumexp(logits, axis=1) - positive) / (2 * n)


@pytest.mark.parametrize("xla", [False, True])
def test_two_views_give_the_former_loss_and_gradient_bit_for_bit(xla):
    views = [tf.constant(z, tf.float32) for z in make_views(2, 40, 24)]

    def value_and_gradients(loss):
        def step(z_a, z_b):
            with tf.GradientTape() as tape:
                tape.watch([z_a, z_b])
                value = loss(z_a, z_b)
            return value, tape.gradient(value, [z_a, z_b])

        found = tf.function(step, jit_compile=xla)(*views)
        return [tensor.numpy() for tensor in tf.nest.flatten(found)]

    found = value_and_gradients(lambda *z: nt_xent(*z, 0.2)[0])
    expected = value_and_gradients(lambda *z: former_nt_xent(*z, 0.2))
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("block_size", "xla"), [(1, False), (7, False), (100, False), (0, True), (7, True)]
)
def test_blocks_of_any_size_equal_the_dense_form(block_size, xla):
    views = tf.constant(make_views(3, 8))

    def step(views, block_size):
        return results_and_gradients("nt_xent", views, block_size=block_size)

    expected = step(views, 0)
    found = (tf.function(step, jit_compile=True) if xla else step)(views, block_size)
    for ours, wanted in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "replicas", "arguments"),
    [
        ("nt_xent", 2, {"block_size": 0}),
        ("nt_xent", 4, {"block_size": 5}),
        ("dcl", 2, {}),
    ],
)
def test_replicas_give_the_loss_and_gradient_of_one_device(name, replicas, arguments, mirrored):
    views = make_views(3, 8)

    def step(rows):  # [n, V, d], because the replicas share the rows out
        results, gradient = results_and_gradients(name, tf.transpose(rows, [1, 0, 2]), **arguments)
        return results, tf.transpose(gradient, [1, 0, 2])

    rows = views.transpose(1, 0, 2)
    expected, expected_gradient = step(tf.constant(rows))
    np.testing.assert_allclose(expected[0], slow_loss(name, views)[0], rtol=1e-11)
    results, gradients = on_replicas(mirrored(replicas), step, rows)
    for per_replica, value in zip(results, expected, strict=True):
        np.testing.assert_allclose(per_replica, [value.numpy()] * replicas, rtol=1e-9)
    np.testing.assert_allclose(np.concatenate(gradients), expected_gradient, rtol=1e-9, atol=1e-12)


def test_keras_loss_of_more_views():
    views = make_views(4, 5)
    loss = NTXent(temperature=0.3, num_views=4)
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    for one in (loss, copy):
        found = one(None, views.reshape(20, 5))
        np.testing.assert_allclose(found, slow_loss("nt_xent", views)[0], rtol=1e-12)
    with pytest.raises(ValueError, match="num_views must be at least 2, got 1"):
        NTXent(num_views=1)


def test_views_of_other_shapes_are_refused():
    views = make_views(3, 5)
    with pytest.raises(ValueError, match=r"[Ss]hape"):
        nt_xent(views[0], views[1], more_views=[views[2][:4]])
