"""Names, shapes and values of the variables in a SavedModel or TensorFlow checkpoint.

The functions of a SavedModel are neither executed nor loaded: names are read from its object graph
and values from its checkpoint.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import saved_model_pb2, trackable_object_graph_pb2

from simclr_tf.errors import UserError
from simclr_tf.utils.paths import user_path

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "VARIABLE_VALUE"
_DAMAGED_HINT = "Fix: the file is damaged, copy it again"
# Training state in the authors' checkpoints, by key.
_TRAINING_STATE = {
    "optimizer state": re.compile(r"(.*/\.OPTIMIZER_SLOT/.*|_?optimizer/.*)"),
    "counters": re.compile(r"(save_counter|global_step)/.*"),
}


@dataclasses.dataclass(frozen=True)
class WeightsFile:
    """Model variables of a file; values are read one at a time."""

    kind: str  # "SavedModel" or "TensorFlow checkpoint"
    name_kind: str  # "name" if variables are named as in the graph, "key" as in the checkpoint
    shapes: Mapping[str, tuple[int, ...]]  # by name
    skipped: Mapping[str, int]  # kind of training state → number of values that are not imported
    _keys: Mapping[str, str]
    _reader: Any

    def read(self, name: str) -> np.ndarray:
        """Returns a variable's value; raises UserError if it is not finite or damaged."""
        try:
            value = self._reader.get_tensor(self._keys[name])
        except tf.errors.OpError as error:
            raise UserError(
                f"{name} cannot be read: {_first_line(error)}. {_DAMAGED_HINT}"
            ) from None
        if not np.isfinite(value).all():
            raise UserError(
                f"{name} contains numbers that are not finite. Fix: use another checkpoint"
            )
        return value


def open_weights_file(path: str | Path) -> WeightsFile:
    """Opens a SavedModel (its directory) or a TensorFlow checkpoint (PREFIX, or its directory)."""
    path = user_path(path)
    try:
        return _saved_model(path) if (path / "saved_model.pb").is_file() else _checkpoint(path)
    except (DecodeError, IndexError, KeyError, ValueError, OSError, tf.errors.OpError) as error:
        raise UserError(f"cannot be read: {_first_line(error)}. {_DAMAGED_HINT}") from None


def _checkpoint(path: Path) -> WeightsFile:
    prefix = path
    if path.is_dir():
        if (path / "config.json").is_file():
            raise UserError(
                "is a run of this project already. Fix: use simclr-tf export, evaluate or finetune"
            )
        latest = tf.train.latest_checkpoint(str(path))
        prefix = Path(latest) if latest else path
    if not Path(f"{prefix}.index").is_file():
        raise UserError(
            "expected a SavedModel (a directory with saved_model.pb) or a TensorFlow checkpoint "
            "(PREFIX of PREFIX.index), got neither. Fix: choose a local path of either kind"
        )
    reader, shapes = _open(prefix)
    keys = {key: key for key in shapes}
    skipped = {}
    for kind, pattern in _TRAINING_STATE.items():
        if matching := list(filter(pattern.fullmatch, keys)):
            skipped[kind] = len(matching)
            for key in matching:
                del keys[key]
    return _make_file("TensorFlow checkpoint", "key", shapes, skipped, keys, reader)


def _saved_model(path: Path) -> WeightsFile:
    document = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    objects = document.meta_graphs[0].object_graph_def
    reader, shapes = _open(path / "variables" / "variables")
    keys = _keys(objects, reader)
    named: dict[str, str] = {}
    for node in _variables_used_by_call(objects):
        name = objects.nodes[node].variable.name.removesuffix(":0") + ":0"
        if name in named:
            raise UserError(f"has two variables of the name {name}. {_DAMAGED_HINT}")
        named[name] = keys[node]
    return _make_file("SavedModel", "name", shapes, {}, named, reader)


def _make_file(
    kind: str,
    name_kind: str,
    shapes: Mapping[str, tuple[int, ...]],
    skipped: Mapping[str, int],
    keys: Mapping[str, str],
    reader: Any,
) -> WeightsFile:
    """Checks the types of the variables in `keys`, whose shapes are given by key."""
    types = reader.get_variable_to_dtype_map()
    for name, key in keys.items():
        if types[key] != tf.float32:
            raise UserError(
                f"{name} is of type {types[key].name}, expected float32. Fix: choose a "
                "complete model of the authors' TF2 code"
            )
    named_shapes = {name: shapes[key] for name, key in keys.items()}
    return WeightsFile(kind, name_kind, named_shapes, skipped, keys, reader)


def _variables_used_by_call(objects: Any) -> list[int]:
    """Returns the nodes of the variables that the functions of `obj.__call__` use, in order."""
    children = {child.local_name: child.node_id for child in objects.nodes[0].children}
    if "__call__" not in children:
        raise UserError(
            "is a SavedModel that cannot be called. Fix: choose one that the authors published"
        )
    functions = objects.nodes[children["__call__"]].function.concrete_functions
    nodes = [node for f in functions for node in objects.concrete_functions[f].bound_inputs]
    return [n for n in dict.fromkeys(nodes) if objects.nodes[n].WhichOneof("kind") == "variable"]


def _keys(objects: Any, reader: Any) -> dict[int, str]:
    """Returns the checkpoint key of every variable node: both files describe the same tree."""
    graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(
        reader.get_tensor(_OBJECT_GRAPH)
    )
    keys: dict[int, str] = {}
    visited, pending = {0}, [(0, 0)]
    while pending:
        node, checkpoint_node = pending.pop()
        for attribute in graph.nodes[checkpoint_node].attributes:
            if attribute.name == _VALUE:
                keys[node] = attribute.checkpoint_key
        children_by_name = {
            child.local_name: child.node_id for child in graph.nodes[checkpoint_node].children
        }
        for child in objects.nodes[node].children:
            if child.local_name in children_by_name and child.node_id not in visited:
                visited.add(child.node_id)
                pending.append((child.node_id, children_by_name[child.local_name]))
    return keys


def _open(prefix: Path) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """The reader of a checkpoint and the shapes in it, which must fit into the data on disk."""
    reader = tf.train.load_checkpoint(str(prefix))
    types = reader.get_variable_to_dtype_map()
    shapes = {
        key: tuple(shape)
        for key, shape in sorted(reader.get_variable_to_shape_map().items())
        if key != _OBJECT_GRAPH
    }
    # A damaged index may declare any size, which TensorFlow would allocate before it reads.
    declared_bytes = sum(
        math.prod(shape) * types[key].size
        for key, shape in shapes.items()
        if types[key] != tf.string
    )
    actual_bytes = sum(file.stat().st_size for file in prefix.parent.glob(f"{prefix.name}.data-*"))
    if declared_bytes > actual_bytes:
        raise UserError(
            f"expected {declared_bytes:,} bytes of variables, got {actual_bytes:,}. {_DAMAGED_HINT}"
        )
    return reader, shapes


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
