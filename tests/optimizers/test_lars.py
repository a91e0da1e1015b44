"""LARS against the reference's digits, and what it adapts."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf.models import ResNet
from simclr_tf.optimizers import LARS


def sines(step, count, shape):
    return np.sin(step * np.arange(count) + 0.5).reshape(shape)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("in_graph", [False, True])
def test_reference_digits(dtype, in_graph):
    w = tf.Variable(sines(0.7, 6, (2, 3)).astype(dtype))
    b = tf.Variable(sines(0.9, 3, 3).astype(dtype))
    pairs = [(sines(1.1, 6, (2, 3)).astype(dtype), w), (sines(1.7, 3, 3).astype(dtype), b)]
    pairs = [(tf.constant(gradient), variable) for gradient, variable in pairs]
    optimizer = LARS(0.3, momentum=0.9, weight_decay=1e-4, trust_coefficient=1e-3)
    optimizer.build([w, b])

    def step():
        optimizer.apply_gradients(pairs)

    step = tf.function(step) if in_graph else step
    step()
    expected = [[0.4792810, 0.9317377, 0.9461712], [0.5156858, -0.1574495, -0.7567182]]
    np.testing.assert_allclose(w, expected, atol=2e-7, rtol=0)
    np.testing.assert_allclose(b, [0.3355979, 0.7429008, 0.9520351], atol=2e-7, rtol=0)
    step()
    step()
    expected = [[0.4786148, 0.9303487, 0.9455772], [0.5165359, -0.1560843, -0.7563299]]
    np.testing.assert_allclose(w, expected, atol=4e-7, rtol=0)
    np.testing.assert_allclose(b, [-0.3274476, -0.3752497, 1.9032157], atol=4e-7, rtol=0)


def test_defaults():
    config = LARS(0.1).get_config()
    assert (config["momentum"], config["weight_decay"]) == (0.9, 0.0)
    assert config["trust_coefficient"] == 0.001


def test_every_kernel_of_a_resnet_is_adapted_and_nothing_else_is():
    encoder = ResNet(18, 1 / 32, "cifar", se_ratio=0.5)
    features = keras.Input([encoder.output_shape[-1]])
    head = keras.Model(features, keras.layers.Dense(7)(features))
    kernels, others = [], []
    for layer in [*encoder.submodules, *head.submodules]:
        if isinstance(layer, keras.layers.BatchNormalization):
            others += [layer.gamma, layer.beta]
        elif isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            kernels.append(layer.kernel)
            others += [] if layer.bias is None else [layer.bias]
    assert (len(kernels), len(others)) == (21 + 16 + 1, 2 * 21 + 16 + 1)
    variables = [*encoder.trainable_variables, *head.trainable_variables]
    assert {v.ref() for v in variables} == {v.ref() for v in [*kernels, *others]}

    for variable in others:  # zeros would hide a decay
        variable.assign(tf.fill(variable.shape, 0.5))
    before = [kernel.numpy() for kernel in kernels]
    optimizer = LARS(10.0, weight_decay=1e-3, trust_coefficient=0.001)
    optimizer.build(variables)
    still = {kernel.ref() for kernel in kernels}
    gradients = [tf.fill(v.shape, 0.0 if v.ref() in still else 0.25) for v in variables]
    optimizer.apply_gradients(zip(gradients, variables, strict=True))
    # Without a gradient the update is wd·w, its trust 0.001 / wd: a kernel shrinks by 1 %.
    for old, kernel in zip(before, kernels, strict=True):
        np.testing.assert_allclose(kernel, 0.99 * old, rtol=1e-5, atol=1e-9)
    # All others take the plain step; a decay would add 0.005 to it.
    for variable in others:
        np.testing.assert_allclose(variable, np.full(variable.shape, -2.0), rtol=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"momentum": -0.1}, {"momentum": 1.5}, {"weight_decay": -1}, {"trust_coefficient": 0}]
)
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LARS(0.1, **wrong)
