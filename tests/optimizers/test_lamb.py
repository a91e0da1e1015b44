"""TensorFlow Addons' LAMB against a slow transcription in NumPy, and what it needs to be there."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf import optimizers
from simclr_tf.optimizers import WarmupCosine
from tests.optional import needs

needs_addons = needs("tensorflow_addons")


class SlowLAMB:
    """One variable's LAMB in float64 (You et al., 2020, Algorithm 2, φ the identity)."""

    def __init__(self, weight, adapted, weight_decay=0.0):
        self.weight = np.array(weight, np.float64)
        self.mean, self.square, self.t = 0.0, 0.0, 0
        self.adapted, self.weight_decay = adapted, weight_decay

    def step(self, gradient, learning_rate):
        self.t += 1
        self.mean = 0.9 * self.mean + 0.1 * gradient
        self.square = 0.999 * self.square + 0.001 * gradient**2
        mean, square = self.mean / (1 - 0.9**self.t), self.square / (1 - 0.999**self.t)
        update, trust = mean / (np.sqrt(square) + 1e-6), 1.0
        if self.adapted:
            update = update + self.weight_decay * self.weight
            norms = np.sqrt((self.weight**2).sum()), np.sqrt((update**2).sum())
            if min(norms) > 0:
                trust = norms[0] / norms[1]
        self.last_trust = trust if self.adapted else None
        self.weight = self.weight - learning_rate * trust * update


SCHEDULE = WarmupCosine(0.1, 2, 10)


def fresh(*variables, excluded=(), rate=SCHEDULE, decay=0.1):
    optimizer = optimizers.get("lamb", rate, weight_decay=decay)
    optimizer.exclude_from_weight_decay(var_list=list(excluded))
    optimizer.build(list(variables))
    return optimizer


@needs_addons
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("in_graph", [False, True])
def test_ten_steps_of_varying_gradients_and_learning_rate(in_graph, decay):
    random = np.random.default_rng(0)
    shapes = {"kernel": (3, 3, 2, 4), "dense": (5, 2), "bias": (4,), "scalar": (), "named": (2, 3)}
    start = {name: np.asarray(random.normal(size=shape)) for name, shape in shapes.items()}
    start["zeros"] = np.zeros((2, 2))
    variables = {name: tf.Variable(value) for name, value in start.items()}
    slow = {
        name: SlowLAMB(value, name in ("kernel", "dense", "zeros"), decay)
        for name, value in start.items()
    }
    schedule = WarmupCosine(0.5, 3, 10)
    optimizer = fresh(
        *variables.values(), excluded=[variables["named"]], rate=schedule, decay=decay
    )

    def apply(gradients):
        optimizer.apply_gradients([(gradients[name], variables[name]) for name in variables])

    apply = tf.function(apply) if in_graph else apply
    for step in range(10):
        gradients = {name: np.asarray(random.normal(size=v.shape)) for name, v in start.items()}
        if step == 0:
            gradients["dense"] = np.zeros((5, 2))  # with no decay, no update either
        shown = {
            name: optimizer.trust_ratio(tf.constant(gradient), variables[name])
            for name, gradient in gradients.items()
        }
        apply({name: tf.constant(gradient) for name, gradient in gradients.items()})
        rate = float(schedule(step))
        assert float(optimizer.learning_rate) == rate
        for name, transcription in slow.items():
            transcription.step(gradients[name], rate)
            np.testing.assert_allclose(
                variables[name], transcription.weight, rtol=1e-6, atol=1e-7, err_msg=name
            )
            assert (shown[name] is None) == (transcription.last_trust is None)
            if shown[name] is not None:
                np.testing.assert_allclose(shown[name], transcription.last_trust, rtol=1e-6)


@needs_addons
def test_gradients_of_replicas_are_summed_before_they_are_adapted(mirrored):
    strategy = mirrored(2)
    shares = [np.array([[1.0, 0.0], [2.0, 1.0]]), np.array([[-3.0, 1.0], [0.5, 0.5]])]
    start = np.array([[1.0, 2.0], [3.0, 4.0]])
    with strategy.scope():
        kernel, named = tf.Variable(start), tf.Variable(start)
        optimizer = fresh(kernel, named, excluded=[named], rate=0.5)
    gradients = strategy.experimental_distribute_values_from_function(
        lambda replica: tf.constant(shares[replica.replica_id_in_sync_group])
    )

    def apply(gradient):
        optimizer.apply_gradients([(gradient, kernel), (gradient, named)])

    step = tf.function(lambda: strategy.run(apply, [gradients]))
    slow = {adapted: SlowLAMB(start, adapted, 0.1) for adapted in (True, False)}
    for _ in range(3):
        step()
        for transcription in slow.values():
            transcription.step(sum(shares), 0.5)
    for variable, adapted in (kernel, True), (named, False):
        for copy in strategy.experimental_local_results(variable):
            np.testing.assert_allclose(copy, slow[adapted].weight, rtol=1e-6)


@needs_addons
def test_a_scaled_loss_takes_lambs_step_or_none():
    start, gradient = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 0.5], [0.0, 2.0]])
    kernel = tf.Variable(start, dtype=tf.float32)
    inner = fresh(kernel, rate=0.5)
    optimizer = keras.mixed_precision.LossScaleOptimizer(inner)
    slow = SlowLAMB(start, True, 0.1)
    for finite in True, False:
        scaled = optimizer.get_scaled_loss(tf.constant(gradient if finite else np.inf, tf.float32))
        (unscaled,) = optimizer.get_unscaled_gradients([scaled + tf.zeros([2, 2])])
        optimizer.apply_gradients([(unscaled, kernel)])
        if finite:
            slow.step(gradient, 0.5)
        np.testing.assert_allclose(kernel, slow.weight, rtol=1e-5)
    assert float(optimizer.loss_scale) == 2.0**14  # halved, from 2¹⁵
    assert float(optimizer.learning_rate) == 0.5


@needs_addons
def test_a_checkpoint_carries_the_moments(tmp_path):
    gradients = [tf.constant([[1.0, -2.0], [0.5, 1.0]]), tf.constant([[2.0, 1.0], [-0.5, 0.0]])]

    def made():
        kernel = tf.Variable([[1.0, 2.0], [3.0, 4.0]])
        optimizer = fresh(kernel)
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


@needs_addons
@pytest.mark.parametrize("rate", [0.25, WarmupCosine(1.0, 2, 6)])
def test_config_round_trip(rate):
    first = optimizers.get("lamb", rate, weight_decay=0.25)
    second = type(first).from_config(first.get_config())
    assert second.get_config() == first.get_config()
    paths = []
    for optimizer in first, second:
        kernel = tf.Variable([[1.0, 2.0], [3.0, 4.0]])
        for _ in range(3):
            optimizer.apply_gradients([(tf.constant([[1.0, 0.0], [0.0, 2.0]]), kernel)])
        paths.append(kernel.numpy())
    np.testing.assert_array_equal(*paths)
    assert not np.array_equal(paths[0], [[1.0, 2.0], [3.0, 4.0]])


def run_python(code, **environ):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environ, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_addons
def test_import_of_addons_restores_keras():
    printed = run_python("""
import simclr_tf, sys, warnings
import keras
warnings.simplefilter("error")  # Addons' own are silenced
there = {name: module for name, module in sys.modules.items() if name.startswith("keras")}
assert keras.__version__.startswith("3.") and "keras.src" in there
from simclr_tf.optimizers.tfa_compat import import_tensorflow_addons
addons = import_tensorflow_addons()
assert {name: module for name, module in sys.modules.items() if name in there} == there
assert {n for n in sys.modules if n.partition(".")[0] == "keras"} <= set(there)
import tf_keras
print(issubclass(addons.optimizers.LAMB, tf_keras.optimizers.legacy.Optimizer))
""")
    assert printed == "True"


def test_keras_3_in_tensorflow_is_refused_with_the_fix():
    printed = run_python("""
import tensorflow as tf
assert tf.keras.__version__.startswith("3.")
import simclr_tf
from simclr_tf.errors import UserError
from simclr_tf import optimizers
try:
    optimizers.get("lamb", 0.1)
except UserError as error:
    print(error)
""")
    assert "TF_USE_LEGACY_KERAS=1" in printed


@pytest.fixture
def without_addons(tmp_path):
    """The environment of a Python that has no TensorFlow Addons."""
    (tmp_path / "blocked").mkdir()
    file = tmp_path / "blocked" / "tensorflow_addons.py"
    file.write_text("raise ModuleNotFoundError(\"No module named 'tensorflow_addons'\")\n")
    return {"PYTHONPATH": str(file.parent)}


@pytest.mark.slow
def test_without_addons_lamb_is_one_line_before_any_work_and_lars_trains(
    run_cli, without_addons, tmp_path
):
    flags = [
        *("--dataset=shapes", "--train_split=train[:64]", "--image_size=16", "--resnet_depth=18"),
        *("--width_multiplier=0.0625", "--use_blur=False", "--train_batch_size=32"),
        *("--train_steps=1", f"--model_dir={tmp_path / 'run'}"),
    ]
    done = run_cli("pretrain", *flags, "--optimizer=lamb", **without_addons)
    assert done.returncode == 2, done.stderr
    assert done.stdout == "" and not (tmp_path / "run").exists()
    (line,) = [line for line in done.stderr.splitlines() if "simclr" in line]
    assert line.startswith("simclr-tf: error: --optimizer=lamb: expected TensorFlow Addons")
    assert "install 'tensorflow-addons<0.24' under Python 3.11" in line
    assert "Traceback" not in done.stderr
    done = run_cli("pretrain", *flags, "--optimizer=lars", **without_addons)
    assert done.returncode == 0, done.stderr
    assert "done: 1 steps" in done.stdout
