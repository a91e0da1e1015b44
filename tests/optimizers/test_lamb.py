"""LAMB: what it needs to be installed, and a scaled loss."""

import subprocess
import sys
import types

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf
import tf_keras as keras

from simclr_tf import optimizers
from simclr_tf.cli.main import main
from simclr_tf.errors import UserError
from simclr_tf.optimizers import tfa_compat
from tests.optimizers.test_layerwise import START, SlowLAMB, fresh
from tests.optional import needs

needs_addons = needs("tensorflow_addons")


@needs_addons
def test_a_scaled_loss_takes_lambs_step_or_none():
    gradient = np.array([[1.0, 0.5], [0.0, 2.0]])
    kernel = tf.Variable(START)
    optimizer = keras.mixed_precision.LossScaleOptimizer(fresh("lamb", kernel, rate=0.5))
    slow = SlowLAMB(START, True, 0.1)
    for finite in True, False:
        scaled = optimizer.get_scaled_loss(tf.constant(gradient if finite else np.inf, tf.float32))
        (unscaled,) = optimizer.get_unscaled_gradients([scaled + tf.zeros([2, 2])])
        optimizer.apply_gradients([(unscaled, kernel)])
        if finite:
            slow.step(gradient, 0.5)
        np.testing.assert_allclose(kernel, slow.weight, rtol=1e-5)
    assert float(optimizer.loss_scale) == 2.0**14  # halved, from 2¹⁵
    assert float(optimizer.learning_rate) == 0.5


@pytest.mark.slow
@needs_addons
def test_import_of_addons_restores_keras():
    program = """
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
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={})
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr


def test_keras_3_in_tensorflow_is_refused_with_the_fix(monkeypatch):
    monkeypatch.setattr(tfa_compat, "keras", types.SimpleNamespace(Model=keras3.Model))
    with pytest.raises(UserError, match="TF_USE_LEGACY_KERAS=1"):
        optimizers.check_available("lamb")


def test_without_addons_lamb_is_one_line_before_any_work_and_lars_is_there(
    monkeypatch, capfd, tmp_path
):
    monkeypatch.setitem(sys.modules, "tensorflow_addons", None)
    flags = ["--dataset=shapes", f"--model_dir={tmp_path / 'run'}", "--optimizer=lamb"]
    assert main(["pretrain", *flags]) == 2
    printed = capfd.readouterr()
    assert printed.out == "" and not (tmp_path / "run").exists()
    (line,) = [line for line in printed.err.splitlines() if "simclr" in line]
    assert line.startswith("simclr-tf: error: --optimizer=lamb: expected TensorFlow Addons")
    assert "install 'tensorflow-addons<0.24' under Python 3.11" in line
    assert optimizers.get("lars", 0.1).name == "LARS"
