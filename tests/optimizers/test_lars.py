"""LARS against the reference's digits and a slow transcription in NumPy."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf.optimizers import LARS, WarmupCosine


class SlowLARS:
    """One variable's LARS in float64: lr inside the velocity, trust 1 where a norm is 0."""

    def __init__(self, weight, adapted, momentum=0.9, weight_decay=0.0, trust=0.001):
        self.weight = np.array(weight, np.float64)
        self.velocity = np.zeros_like(self.weight)
        self.adapted, self.momentum = adapted, momentum
        self.weight_decay, self.trust = weight_decay, trust

    def step(self, gradient, learning_rate):
        update, ratio = np.asarray(gradient, np.float64), 1.0
        if self.adapted:
            update = update + self.weight_decay * self.weight
            norms = np.sqrt((self.weight**2).sum()), np.sqrt((update**2).sum())
            if min(norms) > 0:
                ratio = self.trust * norms[0] / norms[1]
        self.last_trust = ratio if self.adapted else None
        self.velocity = self.momentum * self.velocity + learning_rate * ratio * update
        self.weight = self.weight - self.velocity


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


@pytest.mark.parametrize("weight_decay", [0.0, 1e-4, 0.5])
def test_ten_steps_of_varying_gradients_and_learning_rate(weight_decay):
    random = np.random.default_rng(0)
    shapes = {"kernel": (3, 3, 2, 4), "dense": (5, 2), "bias": (4,), "scalar": (), "named": (2, 3)}
    adapted = {"kernel", "dense"}
    start = {name: np.asarray(random.normal(size=shape)) for name, shape in shapes.items()}
    variables = {name: tf.Variable(value) for name, value in start.items()}
    settings = {"momentum": 0.8, "weight_decay": weight_decay}
    optimizer = LARS(WarmupCosine(2.0, 3, 12), **settings, trust_coefficient=0.02)
    optimizer.exclude_from_weight_decay(var_list=[variables["named"]])
    optimizer.build(list(variables.values()))
    slow = {
        name: SlowLARS(value, name in adapted, **settings, trust=0.02)
        for name, value in start.items()
    }
    for step in range(10):
        gradients = {name: np.asarray(random.normal(size=shapes[name])) for name in shapes}
        shown = {
            name: optimizer.trust_ratio(tf.constant(gradients[name]), variables[name])
            for name in shapes
        }
        optimizer.apply_gradients(
            [(tf.constant(gradients[name]), variables[name]) for name in shapes]
        )
        rate = 2 * step / 3 if step < 3 else 1 + np.cos(np.pi * (step - 3) / 9)
        for name in shapes:
            slow[name].step(gradients[name], rate)
            assert (shown[name] is None) == (name not in adapted)
            if name in adapted:
                np.testing.assert_allclose(shown[name], slow[name].last_trust, rtol=1e-5)
    for name in shapes:
        np.testing.assert_allclose(variables[name], slow[name].weight, rtol=1e-5, atol=1e-6)
        assert np.abs(start[name] - slow[name].weight).max() > 1e-3


def test_trust_is_one_for_a_kernel_of_zeros():
    kernel = tf.Variable(tf.zeros([2, 3]))
    LARS(0.5, weight_decay=0.1).apply_gradients([(tf.ones([2, 3]), kernel)])
    np.testing.assert_allclose(kernel, np.full((2, 3), -0.5), rtol=1e-6)


def test_a_gradient_of_zeros_leaves_the_velocity_running():
    kernel = tf.Variable(tf.ones([2, 2]))
    optimizer = LARS(1.0, momentum=0.5, trust_coefficient=0.1)
    optimizer.apply_gradients([(tf.ones([2, 2]), kernel)])  # trust .1 · 2 / 2, velocity .1
    optimizer.apply_gradients([(tf.zeros([2, 2]), kernel)])  # velocity .05
    np.testing.assert_allclose(kernel, np.full((2, 2), 0.85), rtol=1e-6)


def test_a_gradient_of_zeros_from_the_start_changes_nothing():
    kernel = tf.Variable(tf.ones([2, 2]))
    LARS(1.0).apply_gradients([(tf.zeros([2, 2]), kernel)])
    np.testing.assert_array_equal(kernel, np.ones((2, 2)))


def test_the_scale_of_a_gradient_does_not_matter_to_a_kernel_but_does_to_a_bias():
    moved = []
    for scale in 1.0, 1000.0:
        kernel, bias = tf.Variable(tf.ones([2, 2])), tf.Variable(tf.ones([2]))
        LARS(0.1).apply_gradients(
            [(scale * tf.constant([[1.0, 2.0], [3.0, 4.0]]), kernel), (scale * tf.ones(2), bias)]
        )
        moved.append((kernel.numpy() - 1, bias.numpy() - 1))
    # 1 - 1e-4 in float32 keeps three digits of the move.
    np.testing.assert_allclose(moved[1][0], moved[0][0], rtol=2e-3)
    np.testing.assert_allclose(moved[1][1], 1000 * moved[0][1], rtol=1e-5)


def test_every_kernel_of_a_resnet_50_is_adapted_and_nothing_else_is():
    from simclr_tf.models import ResNet

    encoder = ResNet(50, width_multiplier=0.125)
    features = keras.Input([encoder.output_shape[-1]])
    head = keras.Model(features, keras.layers.Dense(7)(features))
    kernels, others = [], []
    for layer in [*encoder.submodules, *head.submodules]:
        if isinstance(layer, keras.layers.BatchNormalization):
            others += [layer.gamma, layer.beta]
        elif isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
            kernels.append(layer.kernel)
            others += [] if layer.bias is None else [layer.bias]
    assert (len(kernels), len(others)) == (53 + 1, 2 * 53 + 1)
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


def test_gradients_of_replicas_are_summed_before_they_are_adapted(mirrored):
    strategy = mirrored(2)
    shares = [np.array([[1.0, 0.0], [2.0, 1.0]]), np.array([[-3.0, 1.0], [0.5, 0.5]])]
    start = np.array([[1.0, 2.0], [3.0, 4.0]])
    with strategy.scope():
        kernel, named = tf.Variable(start), tf.Variable(start)
        optimizer = LARS(0.5, weight_decay=0.1, trust_coefficient=0.1)
        optimizer.exclude_from_weight_decay(var_list=[named])
        optimizer.build([kernel, named])
    gradients = strategy.experimental_distribute_values_from_function(
        lambda replica: tf.constant(shares[replica.replica_id_in_sync_group])
    )

    def apply(gradient):
        optimizer.apply_gradients([(gradient, kernel), (gradient, named)])

    step = tf.function(lambda: strategy.run(apply, [gradients]))
    slow = {
        adapted: SlowLARS(start, adapted, weight_decay=0.1, trust=0.1) for adapted in (True, False)
    }
    for _ in range(3):
        step()
        for transcription in slow.values():
            transcription.step(sum(shares), 0.5)
    for variable, adapted in (kernel, True), (named, False):
        for copy in strategy.experimental_local_results(variable):
            np.testing.assert_allclose(copy, slow[adapted].weight, rtol=1e-6)


@pytest.mark.parametrize(
    "wrong", [{"momentum": -0.1}, {"momentum": 1.5}, {"weight_decay": -1}, {"trust_coefficient": 0}]
)
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LARS(0.1, **wrong)


@pytest.mark.parametrize("learning_rate", [0.25, WarmupCosine(1.0, 2, 6)])
def test_config_round_trip(learning_rate):
    first = LARS(learning_rate, momentum=0.5, weight_decay=0.25, trust_coefficient=0.125)
    second = LARS.from_config(first.get_config())
    assert second.get_config() == first.get_config()
    paths = []
    for optimizer in first, second:
        kernel = tf.Variable([[1.0, 2.0], [3.0, 4.0]])
        for _ in range(3):
            optimizer.apply_gradients([(tf.constant([[1.0, 0.0], [0.0, 2.0]]), kernel)])
        paths.append(kernel.numpy())
    np.testing.assert_array_equal(*paths)
    assert not np.array_equal(paths[0], [[1.0, 2.0], [3.0, 4.0]])


def test_a_checkpoint_carries_the_velocity(tmp_path):
    gradient = tf.constant([[1.0, -2.0], [0.5, 1.0]])

    def fresh():
        kernel = tf.Variable([[1.0, 2.0], [3.0, 4.0]])
        optimizer = LARS(WarmupCosine(5.0, 1, 10), weight_decay=0.1)
        optimizer.build([kernel])
        return kernel, optimizer, tf.train.Checkpoint(kernel=kernel, optimizer=optimizer)

    kernel, optimizer, checkpoint = fresh()
    for _ in range(3):
        optimizer.apply_gradients([(gradient, kernel)])
    path = checkpoint.save(str(tmp_path / "ckpt"))
    optimizer.apply_gradients([(gradient, kernel)])

    restored, optimizer, checkpoint = fresh()
    checkpoint.restore(path).assert_consumed()
    optimizer.apply_gradients([(gradient, restored)])
    np.testing.assert_array_equal(restored, kernel)
