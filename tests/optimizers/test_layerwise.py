"""Common parts of LARS, LAMB and Muon, with transcriptions in NumPy; replicas and checkpoints."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import optimizers
from simclr_tf.optimizers import LARS, Muon, WarmupCosine
from tests.optional import needs

START = [[1.0, 2.0], [3.0, 4.0]]
SCHEDULE = WarmupCosine(0.5, 3, 10)
pytestmark = pytest.mark.parametrize(
    "name", ["lars", "muon", pytest.param("lamb", marks=needs("tensorflow_addons"))]
)


class Slow:
    """One variable in float64, with a trust ratio if adapted, which is 1 where a norm is 0."""

    coefficient = 1.0

    def __init__(self, weight, adapted, weight_decay):
        self.weight = np.array(weight, np.float64)
        self.adapted, self.weight_decay = adapted, weight_decay if adapted else 0.0
        self.velocity = self.mean = self.square = self.t = 0

    def trust(self, update):
        norms = np.linalg.norm(self.weight), np.linalg.norm(update)
        return self.coefficient * norms[0] / norms[1] if self.adapted and min(norms) > 0 else 1.0


class SlowLARS(Slow):
    """With the learning rate inside the velocity."""

    coefficient = 0.02

    def step(self, gradient, learning_rate):
        update = gradient + self.weight_decay * self.weight
        self.last_trust = self.trust(update)
        self.velocity = 0.8 * self.velocity + learning_rate * self.last_trust * update
        self.weight = self.weight - self.velocity


class SlowLAMB(Slow):
    """You et al., 2020, Algorithm 2, φ the identity."""

    def step(self, gradient, learning_rate):
        self.t += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient**2
        mean, square = self.mean / (1 - 0.9**self.t), self.square / (1 - 0.999**self.t)
        update = mean / (np.sqrt(square) + 1e-6) + self.weight_decay * self.weight
        self.last_trust = self.trust(update)
        self.weight = self.weight - learning_rate * self.last_trust * update


class SlowMuon(Slow):
    """Jordan et al., 2024: its polynomial acts on the singular values, which are explicit here."""

    def step(self, gradient, learning_rate):
        self.velocity = 0.8 * self.velocity + gradient
        update = gradient + 0.8 * self.velocity
        if self.adapted:
            self.weight = self.weight * (1 - learning_rate * self.weight_decay)
            matrix = update.reshape(-1, update.shape[-1])
            u, s, vt = np.linalg.svd(matrix, full_matrices=False)
            s = s / np.linalg.norm(s) if s.any() else s
            for _ in range(5):
                s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
            fan_in, fan_out = matrix.shape
            matrix = np.sqrt(max(1, fan_out / fan_in)) * (u * s) @ vt
            update = matrix.reshape(update.shape)
        self.weight = self.weight - learning_rate * update


SLOW = {"lars": SlowLARS, "lamb": SlowLAMB, "muon": SlowMuon}


def fresh(name, *variables, excluded=(), rate=SCHEDULE, decay=0.1):
    if name == "lars":
        optimizer = LARS(rate, momentum=0.8, weight_decay=decay, trust_coefficient=0.02)
    elif name == "muon":
        optimizer = Muon(rate, momentum=0.8, weight_decay=decay)
    else:
        optimizer = optimizers.get(name, rate, weight_decay=decay)
    optimizer.exclude_from_weight_decay(var_list=list(excluded))
    if variables:
        optimizer.build(list(variables))
    return optimizer


@pytest.mark.parametrize(("decay", "in_graph"), [(0.0, False), (0.1, True)])
def test_ten_steps_of_varying_gradients_and_learning_rate(name, decay, in_graph):
    random = np.random.default_rng(0)
    shapes = {"kernel": (3, 3, 2, 4), "dense": (5, 2), "wide": (2, 8), "bias": (4,), "scalar": ()}
    shapes["named"] = (2, 3)
    start = {key: np.asarray(random.normal(size=shape)) for key, shape in shapes.items()}
    start["zeros"] = np.zeros((2, 2))
    adapted = {"kernel", "dense", "wide", "zeros"}
    variables = {key: tf.Variable(value) for key, value in start.items()}
    slow = {key: SLOW[name](value, key in adapted, decay) for key, value in start.items()}
    optimizer = fresh(name, *variables.values(), excluded=[variables["named"]], decay=decay)

    def apply(gradients):
        optimizer.apply_gradients([(gradients[key], variables[key]) for key in variables])

    apply = tf.function(apply) if in_graph else apply
    for step in range(10):
        gradients = {key: np.asarray(random.normal(size=v.shape)) for key, v in start.items()}
        if step in (0, 5):
            gradients["dense"] = np.zeros((5, 2))
        shown = {
            key: optimizer.trust_ratio(tf.constant(gradient), variables[key])
            for key, gradient in gradients.items()
        }
        apply({key: tf.constant(gradient) for key, gradient in gradients.items()})
        rate = float(SCHEDULE(step))
        assert float(optimizer.learning_rate) == pytest.approx(rate, rel=1e-5)
        for key, transcription in slow.items():
            transcription.step(gradients[key], rate)
            np.testing.assert_allclose(
                variables[key], transcription.weight, rtol=1e-5, atol=1e-6, err_msg=key
            )
            assert (shown[key] is None) == (key not in adapted or name == "muon")
            if shown[key] is not None:
                np.testing.assert_allclose(shown[key], transcription.last_trust, rtol=1e-5)


def test_gradients_of_replicas_are_summed_before_they_are_adapted(name, mirrored):
    strategy = mirrored(2)
    shares = [np.array([[1.0, 0.0], [2.0, 1.0]]), np.array([[-3.0, 1.0], [0.5, 0.5]])]
    with strategy.scope():
        kernel, named = (tf.Variable(np.array(START)) for _ in range(2))
        optimizer = fresh(name, kernel, named, excluded=[named], rate=0.5)
    gradients = strategy.experimental_distribute_values_from_function(
        lambda replica: tf.constant(shares[replica.replica_id_in_sync_group])
    )

    def apply(gradient):
        optimizer.apply_gradients([(gradient, kernel), (gradient, named)])

    step = tf.function(lambda: strategy.run(apply, [gradients]))
    slow = {adapted: SLOW[name](START, adapted, 0.1) for adapted in (True, False)}
    for _ in range(3):
        step()
        for transcription in slow.values():
            transcription.step(sum(shares), 0.5)
    for variable, adapted in (kernel, True), (named, False):
        for copy in strategy.experimental_local_results(variable):
            np.testing.assert_allclose(copy, slow[adapted].weight, rtol=1e-6)


def test_a_checkpoint_carries_the_state(name, tmp_path):
    gradients = [tf.constant([[1.0, -2.0], [0.5, 1.0]]), tf.constant([[2.0, 1.0], [-0.5, 0.0]])]

    def made():
        kernel = tf.Variable(START)
        optimizer = fresh(name, kernel)
        return kernel, optimizer, tf.train.Checkpoint(kernel=kernel, optimizer=optimizer)

    kernel, optimizer, checkpoint = made()
    for gradient in [*gradients, gradients[0]]:
        optimizer.apply_gradients([(gradient, kernel)])
    path = checkpoint.save(str(tmp_path / "ckpt"))
    optimizer.apply_gradients([(gradients[1], kernel)])

    restored, optimizer, checkpoint = made()
    checkpoint.restore(path).assert_consumed()
    optimizer.apply_gradients([(gradients[1], restored)])
    np.testing.assert_array_equal(restored, kernel)


@pytest.mark.parametrize("rate", [0.25, WarmupCosine(1.0, 2, 6)])
def test_config_round_trip(name, rate):
    first = fresh(name, rate=rate)
    second = type(first).from_config(first.get_config())
    assert second.get_config() == first.get_config()
    paths = []
    for optimizer in first, second:
        kernel = tf.Variable(START)
        optimizer.build([kernel])
        for _ in range(3):
            optimizer.apply_gradients([(tf.constant([[1.0, 0.0], [0.0, 2.0]]), kernel)])
        paths.append(kernel.numpy())
    np.testing.assert_array_equal(*paths)
    assert not np.array_equal(paths[0], START)
