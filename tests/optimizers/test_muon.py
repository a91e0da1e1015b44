"""Orthogonalization against the singular value decomposition; what Muon does not depend on."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.optimizers import Muon
from simclr_tf.optimizers.muon import orthogonalize


def matrix_with_singular_values(singular_values, rows, columns, seed=0):
    random = np.random.default_rng(seed)
    count = len(singular_values)
    u, _ = np.linalg.qr(random.normal(size=(rows, count)))
    v, _ = np.linalg.qr(random.normal(size=(columns, count)))
    return (u * singular_values) @ v.T, u @ v.T


@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (72, 16), (16, 72)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_singular_values_become_about_1(rows, columns, dtype):
    # The smallest is 1 % of the norm.
    singular_values = np.geomspace(1, 0.012, 16)
    matrix, orthogonal = matrix_with_singular_values(singular_values, rows, columns)
    found = orthogonalize(tf.constant(matrix, dtype))
    assert found.dtype == dtype
    values = np.linalg.svd(found, compute_uv=False)
    assert values.min() > 0.68 and values.max() < 1.14
    # In the directions of the matrix: the difference lies in the singular values alone.
    assert np.linalg.norm(found - orthogonal, 2) < 0.33


def test_half_precision_is_computed_in_float32():
    matrix, orthogonal = matrix_with_singular_values(np.geomspace(1, 0.1, 8), 8, 8)
    found = orthogonalize(tf.constant(matrix, tf.bfloat16))
    assert found.dtype == tf.bfloat16
    exact = orthogonalize(tf.cast(tf.constant(matrix, tf.bfloat16), tf.float64))
    # What remains is the rounding of the result.
    np.testing.assert_allclose(tf.cast(found, tf.float64), exact, atol=2**-8)
    assert np.linalg.norm(exact - orthogonal, 2) < 0.4


@pytest.mark.parametrize("scale", [1e-35, 1e-6, 1e6, 1e35])
def test_the_scale_of_the_gradient_does_not_matter(scale):
    gradient = np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype(np.float32)
    kernels = []
    for factor in 1.0, scale:
        kernel = tf.Variable(tf.zeros(gradient.shape))
        Muon(0.1).apply_gradients([(tf.constant(gradient * np.float32(factor)), kernel)])
        kernels.append(kernel.numpy())
    np.testing.assert_allclose(*kernels, atol=1e-5)


def test_a_rank_deficient_or_empty_gradient_moves_only_its_directions():
    outer = np.outer([1.0, 2.0, 2.0], [3.0, 4.0])
    found = orthogonalize(tf.constant(outer))
    length = np.linalg.norm(found)
    np.testing.assert_allclose(found / length, outer / 15, atol=1e-12)
    assert 0.68 < length < 1.14
    np.testing.assert_array_equal(orthogonalize(tf.zeros([3, 2])), np.zeros((3, 2)))


@pytest.mark.parametrize(
    "wrong", [{"momentum": -0.1}, {"momentum": 1}, {"weight_decay": -1}, {"iterations_per_step": 0}]
)
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Muon(0.1, **wrong)
