"""The study's other losses against their papers' gradients, written out one term at a time."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import losses
from simclr_tf.losses import dcl, margin_triplet, nt_logistic, nt_xent, supcon
from tests.losses.views import gradients, on_replicas, projections, results_and_gradients

TEMPERATURE, MARGIN = 0.3, 0.4
LABELS = np.array([0, 1, -1, 0, 2, -1, 1, 0])
NAMES = ["nt_logistic", "nt_logistic_semi_hard", "margin", "margin_semi_hard", "supcon", "dcl"]


def loss_named(name, labels=LABELS):
    loss = losses.get(name, MARGIN)
    return functools.partial(loss, labels=labels) if name == "supcon" else loss


# --- the papers' formulas ------------------------------------------------------------------------

# Each gives of one anchor u its loss and, for every v, the factor with which v enters the gradient
# with respect to u, as the papers print it. s: the products u·v; p: the place of the positive.


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def slow_nt_logistic(s, p, negatives, same):
    """v1 Table 2: log σ(u·v⁺/τ) + log σ(-u·v⁻/τ); gradient σ(-u·v⁺/τ)/τ v⁺ - σ(u·v⁻/τ)/τ v⁻."""
    loss, factors = 0.0, np.zeros_like(s)
    for n in negatives:
        loss -= np.log(sigmoid(s[p] / TEMPERATURE)) + np.log(sigmoid(-s[n] / TEMPERATURE))
        factors[p] += sigmoid(-s[p] / TEMPERATURE) / TEMPERATURE
        factors[n] -= sigmoid(s[n] / TEMPERATURE) / TEMPERATURE
    return loss / max(1, len(negatives)), -factors / max(1, len(negatives))


def slow_margin(s, p, negatives, same):
    """v1 Table 2: -max(u·v⁻ - u·v⁺ + m, 0); gradient v⁺ - v⁻ if u·v⁺ - u·v⁻ < m else 0."""
    loss, factors = 0.0, np.zeros_like(s)
    for n in negatives:
        loss += max(s[n] - s[p] + MARGIN, 0)
        if s[p] - s[n] < MARGIN:
            factors[p] += 1
            factors[n] -= 1
    return loss / max(1, len(negatives)), -factors / max(1, len(negatives))


def slow_dcl(s, p, negatives, same):
    """DCL §3; gradient: NT-Xent's without the factor that couples positive and negatives."""
    exponentials = np.zeros_like(s)
    for n in negatives:
        exponentials[n] = np.exp(s[n] / TEMPERATURE)
    factors = exponentials / exponentials.sum()
    factors[p] -= 1
    return -s[p] / TEMPERATURE + np.log(exponentials.sum()), factors / TEMPERATURE


def slow_supcon(s, p, negatives, same):
    """SupCon eq. 2; gradient (Σ_p z_p (P_ip - X_ip) + Σ_n z_n P_in) / τ with X_ip = 1 / |P(i)|."""
    others = [p, *negatives]
    positives = [k for k in others if k == p or same[k]]
    total = sum(np.exp(s[a] / TEMPERATURE) for a in others)
    loss, factors = 0.0, np.zeros_like(s)
    for k in positives:
        loss -= np.log(np.exp(s[k] / TEMPERATURE) / total) / len(positives)
    for k in others:
        factors[k] = np.exp(s[k] / TEMPERATURE) / total / TEMPERATURE
        if k in positives:
            factors[k] -= 1 / len(positives) / TEMPERATURE
    return loss, factors


SLOW = dict(nt_logistic=slow_nt_logistic, margin=slow_margin, dcl=slow_dcl, supcon=slow_supcon)


def slow_loss(name, z_a, z_b, normalize=True, labels=LABELS):
    """Value, gradients with respect to z_a and z_b, and the anchors' losses."""
    z = np.concatenate([z_a, z_b])
    lengths = np.linalg.norm(z, axis=1, keepdims=True) if normalize else np.ones((len(z), 1))
    u, n = z / lengths, len(z_a)
    labels = np.tile(labels[:n], 2)
    losses, gradient = [], np.zeros_like(u)
    for i in range(2 * n):
        p = (i + n) % (2 * n)
        negatives = [k for k in range(2 * n) if k not in (i, p)]
        same = (labels == labels[i]) & (labels[i] >= 0)
        s = u @ u[i]
        if name.endswith("semi_hard"):
            negatives = [k for k in negatives if s[p] - MARGIN < s[k] < s[p]]
        loss, factors = SLOW[name.removesuffix("_semi_hard")](s, p, negatives, same)
        losses.append(loss)
        gradient[i] += factors @ u
        # What a product u·v is to u it is to v.
        gradient += factors[:, np.newaxis] * u[i]
    gradient /= 2 * n
    if normalize:  # a change of z along itself changes nothing
        gradient = (gradient - (gradient * u).sum(axis=1, keepdims=True) * u) / lengths
    return np.mean(losses), np.split(gradient, 2), np.array(losses)


@pytest.mark.parametrize("n", [2, 8])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient_are_the_papers(name, normalize, n):
    views = [z if normalize else 0.5 * z for z in projections(n, 5, seed=n)]
    value, gradient, _ = slow_loss(name, *views, normalize)
    settings = {"temperature": TEMPERATURE, "normalize": normalize}
    found, parts = results_and_gradients(*views, loss=loss_named(name, LABELS[:n]), **settings)
    assert found[0].dtype == tf.float64 and all(part.shape == () for part in found)
    np.testing.assert_allclose(found[0], value, rtol=1e-11)
    np.testing.assert_allclose(parts, gradient, rtol=1e-9, atol=1e-12)


def test_cases_contain_mined_and_unmined_negatives():
    z_a, z_b = projections(8, 5, seed=8)
    z = np.concatenate([z_a, z_b])
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    lead = np.array([z[i] @ z[(i + 8) % 16] - z @ z[i] for i in range(16)])
    negative = ~np.eye(16, dtype=bool) & ~np.roll(np.eye(16, dtype=bool), 8, axis=1)
    for least, most in (-9, 0), (0, MARGIN), (MARGIN, 9):  # nearer, semi-hard, farther
        assert ((least < lead) & (lead < most) & negative).sum() > 5
    for name in "nt_logistic_semi_hard", "margin_semi_hard":
        losses = slow_loss(name, z_a, z_b)[2]
        assert 0 < (losses == 0).sum() < 16  # anchors without a semi-hard negative


# --- what a term is worth ------------------------------------------------------------------------


def test_anchor_without_semi_hard_negatives_has_loss_0():
    # Of image 0 both views are e₀: each has one negative at cosine 0.8, semi-hard within 0.4, and
    # one at 0, which is not. Of image 1 the views are at right angles: no negative is farther than
    # the positive.
    z_a = np.array([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0]])
    z_b = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    loss, _, _ = margin_triplet(z_a, z_b, margin=0.4, semi_hard=True)
    np.testing.assert_allclose(loss, 2 * (0.8 - 1.0 + 0.4) / 4, rtol=1e-12)
    loss, _, _ = nt_logistic(z_a, z_b, 0.5, margin=0.4, semi_hard=True)
    expected = np.log1p(np.exp(-1.0 / 0.5)) + np.log1p(np.exp(0.8 / 0.5))
    np.testing.assert_allclose(loss, 2 * expected / 4, rtol=1e-12)


@pytest.mark.parametrize("name", ["nt_logistic_semi_hard", "margin_semi_hard"])
def test_batch_without_semi_hard_negatives_has_no_gradient(name):
    z_a, z_b = np.eye(4), np.eye(4)  # every negative is farther by more than the margin
    loss = losses.get(name, MARGIN)
    assert float(loss(z_a, z_b)[0]) == 0.0
    np.testing.assert_array_equal(gradients(z_a, z_b, loss=loss), np.zeros((2, 4, 4)))


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("nt_logistic", lambda n: np.log1p(np.exp(-2.0)) + np.log1p(np.exp(2.0))),
        ("margin", lambda n: MARGIN),
        # No negative is farther than the positive.
        ("nt_logistic_semi_hard", lambda n: 0.0),
        ("margin_semi_hard", lambda n: 0.0),
        ("dcl", lambda n: np.log(2 * n - 2)),
        ("supcon", lambda n: np.log(2 * n - 1)),
    ],
)
def test_identical_projections(name, expected, n):
    z = np.tile([[0.0, 1.0, 0.0]], (n, 1))
    loss, accuracy, entropy = loss_named(name, LABELS[:n])(z, z, temperature=0.5)
    np.testing.assert_allclose(loss, expected(n), rtol=1e-12)
    assert float(accuracy) == 0.0
    np.testing.assert_allclose(entropy, np.log(2 * n - 1), rtol=1e-12)
    # All directions are alike: what remains of the gradient lies along z, and has no effect.
    found = gradients(z, z, loss=loss_named(name, LABELS[:n]), temperature=0.5)
    np.testing.assert_allclose(found, np.zeros((2, n, 3)), atol=1e-12)


def test_one_image_has_no_negatives():
    z_a, z_b = projections(1, 4)
    for name in NAMES[:4]:
        assert float(loss_named(name)(z_a, z_b)[0]) == 0.0
    assert float(supcon(z_a, z_b, [5])[0]) == 0.0
    with pytest.raises(ValueError, match="2 images"):
        dcl(z_a, z_b)


@pytest.mark.parametrize("labels", [[-1] * 6, range(6), [0, -1, 1, -1, 2, -1]])
def test_supcon_without_two_images_of_a_class_is_nt_xent(labels):
    views = projections(6, 4)
    loss = functools.partial(supcon, labels=np.array(labels))
    np.testing.assert_allclose(loss(*views), nt_xent(*views), rtol=1e-12)
    np.testing.assert_allclose(gradients(*views, loss=loss), gradients(*views), atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_accuracy_and_entropy_are_nt_xents(name):
    z_a, z_b = projections(8, 5)
    _, accuracy, entropy = loss_named(name)(z_a, z_b, temperature=TEMPERATURE)
    _, *wanted = nt_xent(z_a, z_b, TEMPERATURE)
    assert 0 < accuracy < 1
    np.testing.assert_allclose([accuracy, entropy], wanted, rtol=1e-12)


def test_defaults_are_the_options():
    z_a, z_b = projections(8, 5)
    for name, loss in ("nt_logistic", nt_logistic), ("margin", margin_triplet):
        assert float(losses.get(name)(z_a, z_b)[0]) == float(loss(z_a, z_b)[0])
        mined = float(losses.get(f"{name}_semi_hard")(z_a, z_b)[0])
        assert mined == float(loss(z_a, z_b, semi_hard=True)[0]) != float(loss(z_a, z_b)[0])
        assert mined != float(losses.get(f"{name}_semi_hard", 0.3)(z_a, z_b)[0])
    assert losses.get("nt_xent") is nt_xent


# --- how they are called -------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_xla_agrees_with_eager(name):
    views = [tf.constant(z) for z in projections(8, 4)]

    def step(z_a, z_b, labels):
        loss = loss_named(name, labels)
        results, parts = results_and_gradients(z_a, z_b, loss=loss, temperature=TEMPERATURE)
        return *results, *parts

    found = tf.function(step, jit_compile=True)(*views, tf.constant(LABELS))
    for ours, wanted in zip(found, step(*views, LABELS), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_batch_size_may_be_unknown_when_traced(name):
    signature = [tf.TensorSpec([None, 4], tf.float64)] * 2 + [tf.TensorSpec([None], tf.int64)]
    traced = tf.function(
        lambda z_a, z_b, labels: loss_named(name, labels)(z_a, z_b, temperature=TEMPERATURE),
        input_signature=signature,
    )
    for n in 3, 6:
        z_a, z_b = projections(n, 4)
        found = traced(z_a, z_b, LABELS[:n])[0]
        np.testing.assert_allclose(found, slow_loss(name, z_a, z_b)[0], rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_computed_in_float32(name):
    # A squared norm beyond float16, and logits of 1 / 0.005.
    half = [tf.cast(300 * z, tf.float16) for z in projections(8, 8, dtype=np.float32)]
    wide = [tf.cast(z, tf.float64) for z in half]
    settings = {"loss": loss_named(name), "temperature": 0.005}
    (found, *_), parts = results_and_gradients(*half, **settings)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, results_and_gradients(*wide, **settings)[0][0], rtol=1e-4)
    assert np.isfinite(tf.cast(parts, tf.float32)).all()


def test_wrong_arguments_are_refused():
    z_a, z_b = projections(4, 3)
    for name in NAMES:
        for temperature in 0.0, -1.0:
            with pytest.raises(ValueError, match="temperature"):
                loss_named(name, LABELS[:4])(z_a, z_b, temperature=temperature)
        with pytest.raises(ValueError, match=r"[Ss]hape"):
            loss_named(name, LABELS[:4])(z_a, z_b[:3])
    for labels in LABELS[:3], np.zeros((4, 2), int):
        with pytest.raises(ValueError, match=r"[Ss]hape"):
            supcon(z_a, z_b, labels)
    for loss in nt_logistic, margin_triplet:
        with pytest.raises(ValueError, match="margin must be above 0 with semi_hard, got 0"):
            loss(z_a, z_b, margin=0, semi_hard=True)
    with pytest.raises(ValueError, match="margin must be at least 0"):
        margin_triplet(z_a, z_b, margin=-0.1)
    with pytest.raises(ValueError, match=r"one of nt_xent, nt_logistic, .* tcr, got 'triplet'"):
        losses.get("triplet")


# --- replicas ------------------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [2, 4])
@pytest.mark.parametrize("name", NAMES)
def test_replicas_give_the_papers_loss_and_gradient(name, replicas, mirrored):
    z_a, z_b = (0.6 * z for z in projections(8, 5, seed=8))

    def step(z_a, z_b, labels):
        # The factor is as that of a loss scale.
        return results_and_gradients(
            z_a, z_b, 8.0, loss_named(name, labels), temperature=TEMPERATURE
        )

    results, parts = on_replicas(mirrored(replicas), step, z_a, z_b, LABELS)
    value, gradient, _ = slow_loss(name, z_a, z_b)
    _, *figures = nt_xent(z_a, z_b, TEMPERATURE)
    for per_replica, wanted in zip(results, [value, *figures], strict=True):
        np.testing.assert_allclose(per_replica, [wanted] * replicas, rtol=1e-9)
    # The rows of a replica meet those of all others in the losses of both.
    for shares, whole in zip(parts, gradient, strict=True):
        np.testing.assert_allclose(np.concatenate(shares), 8.0 * whole, rtol=1e-9, atol=1e-12)
