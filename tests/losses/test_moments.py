"""VICReg and TCR against slow transcriptions and finite differences, on replicas."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import losses
from simclr_tf.losses import nt_xent, tcr, vicreg
from simclr_tf.models.build import build_model
from tests.losses.views import gradients, on_replicas, projections, results_and_gradients
from tests.training.tiny import PLAN, changed

TEMPERATURE = 0.3
NAMES = ["vicreg", "tcr"]
WEIGHTS = {"invariance_weight": 3.0, "variance_weight": 5.0, "covariance_weight": 0.7}


def slow_vicreg(*views, invariance_weight=25, variance_weight=25, covariance_weight=1):
    """Algorithm 1, one number at a time; means over pairs and views for more than two."""
    n, d = views[0].shape
    distances, hinges, covariances = [], [], []
    for i, z in enumerate(views):
        for other in views[:i]:
            squares = [(z[k, j] - other[k, j]) ** 2 for k in range(n) for j in range(d)]
            distances.append(np.mean(squares))
        mean = [sum(z[k, j] for k in range(n)) / n for j in range(d)]
        cov = np.zeros((d, d))
        for a in range(d):
            for b in range(d):
                for k in range(n):
                    cov[a, b] += (z[k, a] - mean[a]) * (z[k, b] - mean[b]) / (n - 1)
        hinges.append(np.mean([max(0, 1 - np.sqrt(cov[j, j] + 1e-4)) for j in range(d)]))
        covariances.append(sum(cov[a, b] ** 2 for a in range(d) for b in range(d) if a != b) / d)
    return (
        invariance_weight * np.mean(distances)
        + variance_weight * 2 * np.mean(hinges)
        + covariance_weight * 2 * np.mean(covariances)
    )


def slow_tcr(*views, invariance_weight=200, variance_weight=None, covariance_weight=None):
    """EMP-SSL's objective; the rate from the eigenvalues of the N × N similarities."""
    views = [z / np.linalg.norm(z, axis=1, keepdims=True) for z in views]
    n, d = views[0].shape
    total = 0.0
    for z in views:
        total += sum(np.log1p(np.linalg.eigvalsh(z @ z.T) * d / (n * 0.2))) / 2
        for k in range(n):
            mean = sum(other[k] for other in views) / len(views)
            total += invariance_weight * (z[k] @ mean) / np.linalg.norm(mean) / n
    return -total / len(views)


SLOW = {"vicreg": slow_vicreg, "tcr": slow_tcr}


def finite_differences(function, *views, step=1e-6):
    """The gradient of a function of views, from two values for every number."""
    found = []
    for i, z in enumerate(views):
        gradient = np.zeros_like(z)
        for index in np.ndindex(z.shape):
            values = []
            for sign in 1, -1:
                moved = [v.copy() for v in views]
                moved[i][index] += sign * step
                values.append(function(*moved))
            gradient[index] = (values[0] - values[1]) / (2 * step)
        found.append(gradient)
    return found


def both_views(n=6, d=4):
    """Views some of whose coordinates vary by more than VICReg's 1, and some by less."""
    return [z * np.linspace(0.2, 1.4, d) + 0.5 for z in projections(n, d, seed=3)]


@pytest.mark.parametrize("n", [2, 6])
@pytest.mark.parametrize("weights", [{}, WEIGHTS])
@pytest.mark.parametrize("name", NAMES)
def test_value_and_gradient_are_the_papers(name, weights, n):
    views, slow = both_views(n), functools.partial(SLOW[name], **weights)
    found, parts = results_and_gradients(*views, loss=losses.get(name, **weights))
    assert found[0].dtype == tf.float64 and all(part.shape == () for part in found)
    np.testing.assert_allclose(found[0], slow(*views), rtol=1e-11)
    np.testing.assert_allclose(parts, finite_differences(slow, *views), rtol=1e-5, atol=1e-6)


def test_cases_have_standard_deviations_on_both_sides_of_1():
    std = np.concatenate([z.std(axis=0, ddof=1) for z in both_views()])
    assert 0 < (std < 1).sum() < len(std)


@pytest.mark.parametrize("name", NAMES)
def test_accuracy_and_entropy_are_nt_xents(name):
    views = projections(8, 5)
    for normalize in True, False:
        found = losses.get(name)(*views, temperature=TEMPERATURE, normalize=normalize)
        wanted = nt_xent(*views, temperature=TEMPERATURE, normalize=normalize)
        assert 0 < found[1] < 1
        np.testing.assert_allclose(found[1:], wanted[1:], rtol=1e-12)
        # The loss itself depends on neither.
        np.testing.assert_allclose(found[0], losses.get(name)(*views)[0], rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_more_views_are_averaged(name):
    third, _ = projections(6, 4, seed=9)
    views = [*both_views(), third]
    loss = losses.get(name)(*views[:2], more_views=views[2:])[0]
    np.testing.assert_allclose(loss, SLOW[name](*views), rtol=1e-11)


# --- what a term is worth ------------------------------------------------------------------------


def test_collapsed_projections():
    z = np.tile([[0.0, 3.0, 4.0]], (5, 1))
    loss, accuracy, _ = vicreg(z, z)
    np.testing.assert_allclose(loss, 25 * 2 * (1 - 0.01), rtol=1e-12)
    assert float(accuracy) == 0
    assert np.isfinite(gradients(z, z, loss=vicreg)).all()
    # One direction of three: ½ log(1 + 3 / 0.2).
    np.testing.assert_allclose(tcr(z, z)[0], -0.5 * np.log(16) - 200, rtol=1e-12)


def test_vicreg_does_not_depend_on_the_mean_and_tcr_not_on_the_lengths():
    z_a, z_b = both_views()
    np.testing.assert_allclose(vicreg(z_a + 7, z_b + 7)[0], vicreg(z_a, z_b)[0], rtol=1e-9)
    lengths = np.arange(1, 7)[:, np.newaxis]
    np.testing.assert_allclose(tcr(lengths * z_a, z_b / lengths)[0], tcr(z_a, z_b)[0], rtol=1e-9)
    # A mean far above the deviations: float32 has 24 bits, a difference of squares would have none.
    large = [tf.constant(z + 1000, tf.float32) for z in (z_a, z_b)]
    exact = [tf.cast(z, tf.float64) for z in large]
    np.testing.assert_allclose(vicreg(*large)[0], vicreg(*exact)[0], rtol=1e-3)


def test_wrong_arguments_are_refused():
    z_a, z_b = projections(4, 3)
    for name in NAMES:
        with pytest.raises(ValueError, match="temperature"):
            losses.get(name)(z_a, z_b, temperature=0.0)
        with pytest.raises(ValueError, match=r"[Ss]hape"):
            losses.get(name)(z_a, z_b[:3])
    with pytest.raises(ValueError, match="2 images"):
        vicreg(z_a[:1], z_b[:1])


def test_weights_of_the_options_reach_the_loss():
    for options, wanted in (
        ({"loss": "vicreg", **WEIGHTS}, WEIGHTS),
        ({"loss": "vicreg"}, {"variance_weight": 25.0, "covariance_weight": 1.0}),
        ({"loss": "tcr", "invariance_weight": 3.0}, {"invariance_weight": 3.0}),
        ({"loss": "tcr"}, {}),
    ):
        model = build_model(changed(contrastive_loss=options).resolve(), PLAN)
        assert model.contrastive_loss.func is getattr(losses, options["loss"])
        assert model.contrastive_loss.keywords == wanted


# --- how they are called -------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_xla_agrees_with_eager(name):
    views = [tf.constant(z) for z in both_views()]

    def step(z_a, z_b):
        results, parts = results_and_gradients(z_a, z_b, loss=losses.get(name))
        return *results, *parts

    found = tf.function(step, jit_compile=True)(*views)
    for ours, wanted in zip(found, step(*views), strict=True):
        np.testing.assert_allclose(ours, wanted, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_batch_size_may_be_unknown_when_traced(name):
    signature = [tf.TensorSpec([None, 4], tf.float64)] * 2
    traced = tf.function(losses.get(name), input_signature=signature)
    for n in 3, 6:
        views = both_views(n)
        np.testing.assert_allclose(traced(*views)[0], SLOW[name](*views), rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_computed_in_float32(name):
    half = [tf.cast(z, tf.bfloat16) for z in both_views(64, 8)]
    wide = [tf.cast(z, tf.float64) for z in half]
    (found, *_), parts = results_and_gradients(*half, loss=losses.get(name))
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, losses.get(name)(*wide)[0], rtol=1e-5)
    assert np.isfinite(tf.cast(parts, tf.float32)).all()


# --- replicas --------------------------------------------------------------------------------


@pytest.mark.parametrize("replicas", [2, 4])
@pytest.mark.parametrize("name", NAMES)
def test_replicas_give_the_papers_loss_and_gradient(name, replicas, mirrored):
    z_a, z_b = both_views(8, 5)

    def step(z_a, z_b):
        # The factor is as that of a loss scale.
        return results_and_gradients(z_a, z_b, 8.0, losses.get(name), temperature=TEMPERATURE)

    results, parts = on_replicas(mirrored(replicas), step, z_a, z_b)
    _, *metrics = nt_xent(z_a, z_b, TEMPERATURE)
    for per_replica, wanted in zip(results, [SLOW[name](z_a, z_b), *metrics], strict=True):
        np.testing.assert_allclose(per_replica, [wanted] * replicas, rtol=1e-9)
    for shares, whole in zip(parts, gradients(z_a, z_b, loss=losses.get(name)), strict=True):
        np.testing.assert_allclose(np.concatenate(shares), 8.0 * whole, rtol=1e-9, atol=1e-11)
