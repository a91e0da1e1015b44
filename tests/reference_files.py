"""Files as the reference implementation writes them, made of its variables' names and values."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras

from simclr_tf.weights_import.detect import detect_architecture

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def variables_of(npz: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the npz file's variables by the reference's names."""
    return {
        name.removeprefix("variable/"): value
        for name, value in npz.items()
        if name.startswith("variable/")
    }


def by_key(named: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return a whole model's variables by their keys in the reference's checkpoints."""
    found = detect_architecture({name: value.shape for name, value in named.items()}, "name")
    return {variable.key: named[name] for variable, name in found.names}


class _Published(tf.Module):
    """The reference's SavedModel: a model, the list of its trainables, and no signature."""

    def __init__(self, named: Mapping[str, np.ndarray]):
        super().__init__()
        trainable = {name: "moving" not in name for name in named}
        self.model = tf.Module()
        self.model.variables_of_it = [
            tf.Variable(value, trainable=trainable[name], name=name.removesuffix(":0"))
            for name, value in named.items()
        ]
        self.trainable_variables_list = [v for v in self.model.variables_of_it if v.trainable]
        self.unused = tf.Variable(0.0, name="not_of_the_model")

    @tf.function
    def __call__(self, inputs, trainable):
        total = tf.add_n([tf.reduce_sum(v) for v in self.model.variables_of_it])
        if trainable:
            total = total + tf.random.uniform([])
        return {"final_avg_pool": tf.reduce_mean(inputs, [1, 2]) + total}


def write_saved_model(path: Path, named: Mapping[str, np.ndarray]) -> Path:
    """Write variables as a SavedModel shaped like the published ones."""
    module = _Published(named)
    images = tf.TensorSpec([None, None, None, 3], tf.float32)
    for trainable in (True, False):
        module.__call__.get_concrete_function(images, trainable=trainable)
    tf.saved_model.save(module, str(path))
    return path


def write_checkpoint(directory: Path, keyed: Mapping[str, np.ndarray]) -> Path:
    """Write variables as a training checkpoint with optimizer, step and save counter."""
    tree: dict = {}
    for key, value in keyed.items():
        *places, last = key.removesuffix(SUFFIX).split("/")
        node = tree
        for place in places:
            node = node.setdefault(place, {})
        node[last] = tf.Variable(value)
    optimizer = keras.optimizers.legacy.SGD(0.1, momentum=0.9)
    some = tf.nest.flatten(tree)[:3]
    values = [v.numpy() for v in some]
    optimizer.apply_gradients([(tf.zeros_like(v), v) for v in some])
    for variable, value in zip(some, values, strict=True):
        variable.assign(value)
    root = _node(tree)
    root.optimizer, root.global_step = optimizer, tf.Variable(7, dtype=tf.int64)
    return Path(root.save(str(directory / "ckpt")))


def _node(tree: dict) -> tf.train.Checkpoint:
    children = {k: _node(v) if isinstance(v, dict) else v for k, v in tree.items()}
    return tf.train.Checkpoint(**children)
