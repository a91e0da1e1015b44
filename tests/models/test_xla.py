"""The whole step of a replica, views included, as a TPU would be given it."""

import re

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf import config
from simclr_tf.models.build import build_model

CONFIG = config.PretrainConfig(
    data=config.Data(dataset="shapes"),
    augmentation=config.Augmentation(image_size=16),
    encoder=config.Encoder(resnet_depth=18, width_multiplier=1 / 16),
    projection_head=config.ProjectionHead(num_proj_layers=2, proj_out_dim=16),
    optimization=config.Optimization(train_batch_size=8),
).resolve()
PLAN = config.TrainingPlan(64, 10, 10, 0, 8.0, 0.1)
# Host work, shapes that depend on values, and what only an interpreter has.
NOT_FOR_XLA = re.compile(
    "PyFunc|Print|Assert|String|Decode|Encode|File|Iterator|Dataset|Unique|^Where$|Sparse(?!Softmax)"
    "|BooleanMask|StatefulRandom|^Random|TensorArray(?!V3)|Summary|LookupTable|Barrier|Queue"
)
# Talk with a host, kernels of one backend, random numbers with a state.
OPCODES_NOT_FOR_TPU = {
    *("custom-call", "infeed", "outfeed", "send", "send-done", "recv", "recv-done"),
    *("rng", "rng-get-and-update-state"),
}


@pytest.fixture(scope="module")
def batch():
    random = np.random.default_rng(0)
    return {
        "image": tf.constant(random.integers(0, 256, (8, 24, 24, 3)).astype(np.uint8)),
        "label": tf.constant(np.arange(8)),
        "aspect": tf.constant(random.uniform(0.5, 2.0, 8).astype(np.float32)),
    }


@pytest.fixture(scope="module")
def compiled():
    return tf.function(build_model(CONFIG, PLAN).train_step, jit_compile=True)


@pytest.mark.slow
def test_the_step_under_xla_is_the_step(batch, compiled):
    wanted = tf.function(build_model(CONFIG, PLAN).train_step)(batch)
    for name, value in compiled(batch).items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_the_step_of_large_and_small_views_under_xla_is_the_step(batch):
    views = {"num_views": 2, "num_small_views": 2, "small_view_size": 8}
    settings = CONFIG.override({"contrastive_loss": views})
    wanted = tf.function(build_model(settings, PLAN).train_step)(batch)
    found = tf.function(build_model(settings, PLAN).train_step, jit_compile=True)(batch)
    for name, value in found.items():
        np.testing.assert_allclose(value, wanted[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_no_operation_of_the_step_needs_a_host(batch, compiled):
    graph = compiled.get_concrete_function(batch).graph.as_graph_def()
    functions = [graph.node, *(function.node_def for function in graph.library.function)]
    operations = {node.op for nodes in functions for node in nodes}
    assert {"Conv2D", "StatelessRandomUniformFullIntV2", "AssignVariableOp"} <= operations
    assert not [op for op in operations if NOT_FOR_XLA.search(op)]

    program = compiled.experimental_get_compiler_ir(batch)(stage="hlo")
    opcodes = set(re.findall(r" = \(?\S+ (?:\S+\)? )*?([a-z][a-z\-]*)\(", program))
    assert {"convolution", "dot", "reduce"} <= opcodes
    assert not opcodes & OPCODES_NOT_FOR_TPU
    # A dynamic dimension is written as a bound; TPUs have no 64-bit floats.
    assert not re.search(r"\[[\d,]*<=", program)
    assert "f64[" not in program
