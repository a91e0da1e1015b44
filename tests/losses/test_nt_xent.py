"""NT-Xent against the reference's digits, a loop over the paper's Algorithm 1, and replicas."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf.losses import NTXent, nt_xent
from tests.losses.views import gradients, on_replicas, projections, results_and_gradients


def algorithm_1(z_a, z_b, temperature, normalize=True):
    """Loss, accuracy and entropy by Algorithm 1 of v1, one pair of views at a time in float64."""
    z = []
    for a, b in zip(z_a, z_b, strict=True):  # views 2k and 2k + 1 come from example k
        z += [np.asarray(a, np.float64), np.asarray(b, np.float64)]
    if normalize:
        z = [row / np.linalg.norm(row) if row.any() else row for row in z]
    losses, hits, entropies = [], [], []
    for i in range(len(z)):
        positive = i + 1 if i % 2 == 0 else i - 1
        others = [k for k in range(len(z)) if k != i]
        logits = np.array([sum(x * y for x, y in zip(z[i], z[k], strict=True)) for k in others])
        logits /= temperature
        largest = logits.max()
        log_sum = largest + np.log(np.exp(logits - largest).sum())
        losses.append(log_sum - logits[others.index(positive)])
        hits.append(others[int(logits.argmax())] == positive)
        entropies.append(-sum(np.exp(s - log_sum) * (s - log_sum) for s in logits))
    return np.mean(losses), np.mean(hits), np.mean(entropies)


# --- the digits of the reference -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, 11.3577947),
        ({"temperature": 0.5}, 3.0766719),
        ({"temperature": 1.0}, 2.3604124),
        ({"temperature": 1.0, "normalize": False}, 3.0585901),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reference_digits(arguments, expected, dtype):
    z = np.sin(1.3 * np.arange(32) + 0.5).reshape(8, 4).astype(dtype)
    loss, _, _ = nt_xent(z[:4], z[4:], **arguments)
    np.testing.assert_allclose(loss, expected, atol=1e-7 if dtype == np.float64 else 4e-6, rtol=0)


@pytest.mark.parametrize(
    ("n", "dtype", "expected", "tolerance"),
    [
        (4, tf.float64, 1.9459101, 1e-7),
        (256, tf.float64, 6.2363696, 1e-7),
        # Matrices of 8192² numbers: gigabytes, and seconds.
        pytest.param(4096, tf.float32, 9.0107913, 1e-4, marks=pytest.mark.slow),
    ],
)
def test_collapse_gives_the_log_of_the_candidates_and_no_accuracy(n, dtype, expected, tolerance):
    z = tf.tile(tf.constant([[0.3, -0.4, 1.2]], dtype), [n, 1])
    loss, accuracy, entropy = nt_xent(z, z, temperature=0.1)
    np.testing.assert_allclose([loss, entropy], [expected] * 2, atol=tolerance, rtol=0)
    assert accuracy == 0.0


def test_loss_of_a_hand_calculated_case():
    z = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    loss, accuracy, _ = nt_xent(z[[0, 2]], z[[1, 3]], temperature=0.5)  # pairs (0, 1) and (2, 3)
    np.testing.assert_allclose(loss, 0.2395448, atol=1e-7)
    assert accuracy == 1.0


# --- Algorithm 1 ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 12])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("temperature", [0.05, 1.0, 10.0])
def test_equals_algorithm_1(n, normalize, temperature):
    z_a, z_b = projections(n, 6, seed=n)
    got = nt_xent(z_a, z_b, temperature=temperature, normalize=normalize)
    assert [value.dtype for value in got[:1]] == [tf.float64]
    assert all(value.shape == () for value in got)
    expected = algorithm_1(z_a, z_b, temperature, normalize)
    assert 0 < expected[1] < 1 or n < 12
    np.testing.assert_allclose(got[0], expected[0], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(got[1], expected[1], rtol=1e-6)
    np.testing.assert_allclose(got[2], expected[2], rtol=1e-6, atol=1e-6)


def test_the_views_are_interchangeable_and_their_order_does_not_matter():
    z_a, z_b = projections(7, 5)
    loss = nt_xent(z_a, z_b)[0]
    order = np.random.default_rng(1).permutation(7)
    np.testing.assert_allclose(nt_xent(z_b, z_a)[0], loss, rtol=1e-12)
    np.testing.assert_allclose(nt_xent(z_a[order], z_b[order])[0], loss, rtol=1e-12)


def test_normalization_ignores_the_scale_of_each_projection():
    z_a, z_b = projections(5, 4)
    scales = np.array([[1e-3], [0.1], [1.0], [50.0], [1e4]])
    np.testing.assert_allclose(nt_xent(scales * z_a, z_b)[0], nt_xent(z_a, z_b)[0], rtol=1e-9)


def test_accuracy_counts_all_candidates_and_both_views_as_anchors():
    # Every anchor of the first view is nearer to a first view of another example than to its
    # positive, and no second view of another example comes near: half the candidates would miss it.
    z_a = np.array([[1.0, 0.0, 0.0], [1.0, 0.01, 0.0]])
    z_b = np.array([[1.0, 0.0, 1.0], [1.0, 0.01, -1.0]])
    _, accuracy, _ = nt_xent(z_a, z_b, temperature=0.5)
    assert algorithm_1(z_a, z_b, 0.5)[1] == 0.5
    np.testing.assert_allclose(accuracy, 0.5)


def test_half_of_what_keras_cv_returns():
    keras_cv = pytest.importorskip("keras_cv")
    z_a, z_b = projections(9, 5, dtype=np.float32)
    for temperature in 0.1, 0.5:
        theirs = keras_cv.losses.SimCLRLoss(temperature=temperature)(z_a, z_b)
        np.testing.assert_allclose(2 * nt_xent(z_a, z_b, temperature)[0], theirs, rtol=2e-6)


# --- gradients -----------------------------------------------------------------------------------


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_gradient_equals_finite_differences_of_algorithm_1(normalize, temperature):
    pair = np.stack(projections(3, 4, seed=3))
    expected = np.empty_like(pair)
    step = 1e-5
    for index in np.ndindex(*pair.shape):
        moved = [pair.copy(), pair.copy()]
        moved[0][index] += step
        moved[1][index] -= step
        plus, minus = (algorithm_1(*views, temperature, normalize)[0] for views in moved)
        expected[index] = (plus - minus) / (2 * step)
    got = gradients(*pair, temperature=temperature, normalize=normalize)
    np.testing.assert_allclose(np.stack(got), expected, rtol=1e-6, atol=1e-7)


def test_zero_projections_leave_loss_and_gradient_finite():
    z_a, z_b = projections(4, 3)
    z_a[1] = z_b[1] = z_b[2] = 0.0
    np.testing.assert_allclose(nt_xent(z_a, z_b)[0], algorithm_1(z_a, z_b, 0.1)[0], rtol=1e-6)
    assert np.isfinite(gradients(z_a, z_b)).all()
    zeros = np.zeros((4, 3), np.float32)
    np.testing.assert_allclose(nt_xent(zeros, zeros)[0], np.log(7), rtol=1e-6)
    assert np.isfinite(gradients(zeros, zeros)).all()


# --- precision -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    z_a, z_b = (tf.cast(z, dtype) for z in projections(16, 8, dtype=np.float32))
    loss, _, entropy = nt_xent(z_a, z_b, temperature=0.05)
    expected = algorithm_1(tf.cast(z_a, tf.float64), tf.cast(z_b, tf.float64), 0.05)
    assert loss.dtype == tf.float32
    np.testing.assert_allclose(loss, expected[0], rtol=2e-6)
    np.testing.assert_allclose(entropy, expected[2], rtol=1e-5)


@pytest.mark.parametrize("dtype", [tf.float16, tf.bfloat16])
@pytest.mark.parametrize(
    ("normalize", "length", "tolerance"),
    # float16 has neither a squared norm of 1.1e7 nor exp(1 / 0.05), nor the logit 73,728 in
    # float32 (rounded to 1/128) where nothing is normalized.
    [(True, 300.0, 1e-5), (False, 5.366563, 0.02)],
)
def test_half_precision_overflows_nowhere(dtype, normalize, length, tolerance):
    z = tf.cast(tf.fill([6, 128], length), dtype)
    loss, _, entropy = nt_xent(z, z, temperature=0.05, normalize=normalize)
    np.testing.assert_allclose(loss, np.log(11), rtol=tolerance)
    np.testing.assert_allclose(entropy, np.log(11), rtol=tolerance)
    for gradient in gradients(z, z, temperature=0.05, normalize=normalize):
        assert np.isfinite(gradient.astype(np.float32)).all()


def test_float32_is_stable_at_a_low_temperature():
    z_a, z_b = projections(8, 4, dtype=np.float32)
    z_b = -z_a  # the positive is the least likely candidate: its probability underflows
    loss = nt_xent(z_a, z_b, temperature=0.01)[0]
    np.testing.assert_allclose(loss, algorithm_1(z_a, z_b, 0.01)[0], rtol=1e-5)
    assert np.isfinite(gradients(z_a, z_b, temperature=0.01)).all()


# --- how it is called ----------------------------------------------------------------------------


def test_batch_size_may_be_unknown_when_traced():
    signature = [tf.TensorSpec([None, 4], tf.float64)] * 2
    traced = tf.function(nt_xent, input_signature=signature)
    for n in 3, 6:
        z_a, z_b = projections(n, 4)
        np.testing.assert_allclose(traced(z_a, z_b)[0], algorithm_1(z_a, z_b, 0.1)[0], rtol=1e-9)


def test_wrong_arguments_are_refused():
    z_a, z_b = projections(4, 3)
    for temperature in 0.0, -1.0:
        with pytest.raises(ValueError, match="temperature"):
            nt_xent(z_a, z_b, temperature=temperature)
    with pytest.raises(ValueError, match="block_size"):
        nt_xent(z_a, z_b, block_size=-1)
    with pytest.raises(ValueError, match=r"[Ss]hape"):
        nt_xent(z_a, z_b[:3])


# --- blocks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block_size", "xla"),
    [(1, False), (5, False), (26, False), (100, False), (0, True), (5, True)],
)
def test_blocks_of_any_size_equal_the_dense_form(block_size, xla):
    views = [tf.constant(z) for z in projections(13, 6)]

    def step(z_a, z_b, block_size):
        return results_and_gradients(z_a, z_b, 3.0, temperature=0.2, block_size=block_size)

    expected = step(*views, 0)
    found = (tf.function(step, jit_compile=True) if xla else step)(*views, block_size)
    for ours, wanted in zip(tf.nest.flatten(found), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_blocks_in_float32_are_as_near_to_the_truth_as_the_dense_form(spread):
    z_a, z_b = projections(150, 16, spread=spread)
    truth = gradients(z_a, z_b, temperature=0.05, block_size=0)
    for block_size in 0, 64:
        halves = z_a.astype(np.float32), z_b.astype(np.float32)
        results, found = results_and_gradients(*halves, temperature=0.05, block_size=block_size)
        wanted = nt_xent(z_a, z_b, temperature=0.05)
        np.testing.assert_allclose(results, wanted, rtol=1e-5, atol=1e-6)
        for ours, exact in zip(found, truth, strict=True):
            np.testing.assert_allclose(ours, exact, rtol=1e-3, atol=1e-5 * np.abs(exact).max())


def test_no_more_logits_are_held_than_one_block():
    step = tf.function(results_and_gradients)

    def largest(n):
        traced = step.get_concrete_function(*[tf.TensorSpec([n, 8])] * 2)
        graph = traced.graph.as_graph_def(add_shapes=True)
        nodes = [*graph.node, *(node for f in graph.library.function for node in f.node_def)]
        shapes = [s for node in nodes for s in node.attr["_output_shapes"].list.shape]
        return max(np.prod([max(d.size, 1) for d in s.dim], dtype=int) for s in shapes)

    assert largest(512) == 1024**2  # dense
    assert largest(4096) <= 2**22  # the dense logits would be 2²⁶


# --- replicas ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block_size", "normalize", "replicas"), [(0, True, 2), (3, True, 4), (0, False, 4)]
)
def test_replicas_give_the_loss_and_gradient_of_one_device(
    block_size, normalize, replicas, mirrored
):
    x_a, x_b = projections(8, 5, seed=2)
    weights = tf.constant(np.random.default_rng(3).normal(size=(5, 4)))

    def step(x_a, x_b):
        with tf.GradientTape() as tape:
            tape.watch([weights, x_a, x_b])
            results = nt_xent(x_a @ weights, x_b @ weights, 0.2, normalize, block_size)
            scaled = 8.0 * results[0]  # as a loss scale does
        return results, tape.gradient(scaled, [weights, x_a, x_b])

    expected, (expected_weights, *expected_inputs) = step(tf.constant(x_a), tf.constant(x_b))
    slow, _, _ = algorithm_1(x_a @ weights, x_b @ weights, 0.2, normalize)
    np.testing.assert_allclose(expected[0], slow, rtol=1e-9)
    results, (weight_gradients, *input_gradients) = on_replicas(mirrored(replicas), step, x_a, x_b)

    for per_replica, value in zip(results, expected, strict=True):
        assert len(per_replica) == replicas
        np.testing.assert_allclose(per_replica, [value.numpy()] * replicas, rtol=1e-9)
    np.testing.assert_allclose(sum(weight_gradients), expected_weights, rtol=1e-9, atol=1e-12)
    for shares, whole in zip(input_gradients, expected_inputs, strict=True):
        np.testing.assert_allclose(np.concatenate(shares), whole, rtol=1e-9, atol=1e-12)


def test_replicas_see_each_others_negatives(mirrored):
    # Two replicas that hold the same two examples: each anchor has copies of itself elsewhere.
    z = np.tile(np.eye(2), (2, 1))
    (loss, accuracy, _), _ = on_replicas(
        mirrored(2), lambda z_a, z_b: (nt_xent(z_a, z_b, temperature=0.5), ()), z, z
    )
    alone = algorithm_1(z[:2], z[:2], 0.5)[0]
    together = algorithm_1(z, z, 0.5)[0]
    assert together - alone > 0.5
    np.testing.assert_allclose(loss, [together, together], rtol=1e-9)
    assert len(accuracy) == 2


def test_replicas_in_half_precision(mirrored):
    z_a, z_b = (tf.cast(z, tf.float16) for z in projections(4, 8, dtype=np.float32))
    loss, _, _ = on_replicas(
        mirrored(2), lambda z_a, z_b: nt_xent(z_a, z_b, temperature=0.05), z_a, z_b
    )
    assert loss[0].dtype == tf.float32
    np.testing.assert_allclose(loss, [nt_xent(z_a, z_b, temperature=0.05)[0]] * 2, rtol=1e-6)


# --- the Keras loss ------------------------------------------------------------------------------


def test_keras_loss_equals_nt_xent_of_the_halves_and_serializes():
    z_a, z_b = projections(8, 5)
    loss = NTXent(temperature=0.3, normalize=False, block_size=3)
    copy = keras.losses.deserialize(keras.losses.serialize(loss))
    assert copy.get_config() == loss.get_config()
    for one in (loss, copy):
        found = one(np.zeros(16), np.concatenate([z_a, z_b]))
        np.testing.assert_allclose(found, nt_xent(z_a, z_b, 0.3, False)[0], rtol=1e-12)
    for wrong in ({"temperature": 0.0}, {"block_size": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            NTXent(**wrong)


def test_keras_loss_trains_replicas_as_one_device(mirrored):
    x_a, x_b = projections(8, 5)

    def kernel_after_a_step(rows, strategy):
        with strategy.scope():
            start = keras.initializers.GlorotUniform(seed=0)
            dense = keras.layers.Dense(4, None, False, start, dtype="float64")
            model = keras.Sequential([keras.Input(5, dtype="float64"), dense])
            model.compile(keras.optimizers.SGD(0.1), NTXent(temperature=0.2))
        model.fit(rows, np.zeros(16), batch_size=16, shuffle=False, verbose=0)
        return dense.kernel.numpy()

    halves = [x for i in (0, 4) for x in (x_a[i : i + 4], x_b[i : i + 4])]  # of either replica
    found = kernel_after_a_step(np.concatenate(halves), mirrored(2))
    default = tf.distribute.get_strategy()
    expected = kernel_after_a_step(np.concatenate([x_a, x_b]), default)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
