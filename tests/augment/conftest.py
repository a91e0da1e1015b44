"""Random images, and a fixture that runs an operation eagerly, in tf.data and under XLA."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf


@pytest.fixture
def images():
    """Random float images [6, 12, 12, 3], the last three with little, no and full color."""
    random = np.random.default_rng(0).uniform(size=(6, 12, 12, 3)).astype(np.float32)
    random[3] = 0.5 + 0.05 * (random[3] - 0.5)
    random[4] = random[4, :, :, :1]
    random[5] = random[5] > 0.5
    return tf.constant(random)


@pytest.fixture(scope="session")
def photographs():
    """Ten uint8 images [10, 24, 24, 3] with large and small structure."""
    random = np.random.default_rng(0)
    coarse = random.uniform(size=(10, 4, 4, 3)).repeat(6, 1).repeat(6, 2)
    mixed = 0.7 * coarse + 0.3 * random.uniform(size=(10, 24, 24, 3))
    return (255 * mixed).astype(np.uint8)


@contextlib.contextmanager
def functions_run(eagerly):
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(eagerly)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


@pytest.fixture
def eagerly():
    """Disables compilation, which takes seconds per shape; `in_all_modes` compiles anyway."""
    with functions_run(eagerly=True):
        yield


@pytest.fixture
def in_all_modes():
    """`operation(*inputs)` run eagerly; tf.data and XLA must agree with it. Returns a NumPy array.

    `exactly` requires equal bits.
    """

    def run(operation, *inputs, exactly=False):
        inputs = tuple(tf.convert_to_tensor(value) for value in inputs)
        with functions_run(eagerly=True):
            eager = operation(*inputs).numpy()
        with functions_run(eagerly=False):
            dataset = tf.data.Dataset.from_tensors(inputs).map(lambda *args: operation(*args))
            in_data = next(iter(dataset)).numpy()
            compiled = tf.function(operation, jit_compile=True)(*inputs).numpy()
        tolerance = {"rtol": 0, "atol": 0} if exactly else {"rtol": 1e-5, "atol": 2e-6}
        np.testing.assert_allclose(in_data, eager, **tolerance)
        np.testing.assert_allclose(compiled, eager, **tolerance)
        return eager

    return run
