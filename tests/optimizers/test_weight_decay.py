"""Momentum, Adam and AdamW against slow transcriptions: what is decayed, and how."""

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import optimizers

RATE, DECAY = 0.05, 0.1


class Momentum:
    """Nesterov's, with the L2 term in the gradient."""

    def __init__(self, decay):
        self.decay, self.velocity = decay, 0.0

    def step(self, w, gradient, _):
        gradient = gradient + self.decay * w
        self.velocity = 0.9 * self.velocity - RATE * gradient
        return w + 0.9 * self.velocity - RATE * gradient


class Adam:
    """With the L2 term in the gradient, or with decoupled decay."""

    def __init__(self, decay, decoupled=False):
        self.decay, self.decoupled = decay, decoupled
        self.mean = self.square = 0.0

    def step(self, w, gradient, t):
        if self.decoupled:
            w = w - RATE * self.decay * w
        else:
            gradient = gradient + self.decay * w
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient**2
        mean, square = self.mean / (1 - 0.9**t), self.square / (1 - 0.999**t)
        return w - RATE * mean / (np.sqrt(square) + 1e-7)


@pytest.mark.parametrize(
    ("name", "slow"),
    [
        ("momentum", Momentum),
        ("adam", Adam),
        ("adamw", lambda decay: Adam(decay, decoupled=True)),
    ],
)
def test_only_kernels_are_decayed(name, slow):
    random = np.random.default_rng(0)
    start = {"kernel": (4, 3), "bias": (3,), "excluded": (3, 2), "convolution": (3, 3, 2, 4)}
    start = {key: random.normal(size=shape) for key, shape in start.items()}
    variables = {key: tf.Variable(value, name=key) for key, value in start.items()}
    optimizer = optimizers.get(name, RATE, weight_decay=DECAY)
    optimizer.exclude_from_weight_decay(var_list=[variables["excluded"]])
    optimizer.build(list(variables.values()))
    decayed = {"kernel": DECAY, "convolution": DECAY, "bias": 0.0, "excluded": 0.0}
    rules = {key: slow(decay) for key, decay in decayed.items()}
    for t in range(1, 5):
        gradients = {key: random.normal(size=value.shape) for key, value in start.items()}
        optimizer.apply_gradients(
            [(tf.constant(gradients[key]), variable) for key, variable in variables.items()]
        )
        start = {key: rules[key].step(start[key], gradients[key], t) for key in start}
    for key, variable in variables.items():
        np.testing.assert_allclose(variable, start[key], rtol=2e-4, atol=2e-5, err_msg=key)


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match="momentum, adam, adamw, lars"):
        optimizers.get("sgd", RATE)
