"""What lies in a SavedModel or a TensorFlow checkpoint: names, shapes and values.

Nothing of a SavedModel is executed, nor is its graph loaded: its object graph, a list, tells the
variables' names, and the checkpoint inside it their values.
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

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_VALUE = "VARIABLE_VALUE"
# What training keeps beside the model, by its place in the authors' checkpoints.
_TRAINING = {
    "optimizer state": re.compile(r"(.*/\.OPTIMIZER_SLOT/.*|_?optimizer/.*)"),
    "counters": re.compile(r"(save_counter|global_step)/.*"),
}


@dataclasses.dataclass(frozen=True)
class Stored:
    """The model variables of a file; values are read one at a time.

    Attributes:
        kind: in words.
        named_by: "name" in the graph or "key" of the checkpoint: what the names are.
        shapes: by name.
        skipped: what was left out by its name → how many.
    """

    kind: str
    named_by: str
    shapes: Mapping[str, tuple[int, ...]]
    skipped: Mapping[str, int]
    _keys: Mapping[str, str]
    _reader: Any

    def read(self, name: str) -> np.ndarray:
        """Returns a variable's value.

        Raises:
            UserError: it cannot be read, or is not finite.
        """
        try:
            value = self._reader.get_tensor(self._keys[name])
        except tf.errors.OpError as error:
            raise UserError(f"{name} cannot be read: {_first_line(error)}; {_COPY}") from None
        if not np.isfinite(value).all():
            raise UserError(f"{name} holds numbers that are not finite; take another checkpoint")
        return value


_COPY = "the file is damaged, copy it again"


def open_stored(path: str | Path) -> Stored:
    """Opens a SavedModel (its directory) or a TensorFlow checkpoint (PREFIX, or its directory).

    Raises:
        UserError: it is neither, or it is damaged.
    """
    path = Path(path)
    try:
        if (path / "saved_model.pb").is_file():
            return _saved_model(path)
        return _checkpoint(path)
    except (DecodeError, IndexError, KeyError, ValueError, OSError, tf.errors.OpError) as error:
        raise UserError(f"cannot be read: {_first_line(error)}; {_COPY}") from None


def _checkpoint(path: Path) -> Stored:
    prefix = path
    if path.is_dir():
        if (path / "config.json").is_file():
            raise UserError(
                "is a run of this project already: simclr-tf export, evaluate and finetune take it"
            )
        latest = tf.train.latest_checkpoint(str(path))
        prefix = Path(latest) if latest else path
    if not Path(f"{prefix}.index").is_file():
        raise UserError(
            "is neither a SavedModel (a directory with saved_model.pb) nor a TensorFlow checkpoint "
            "(PREFIX, beside which PREFIX.index lies); name one of them, copied to this machine"
        )
    reader, shapes = _open(prefix)
    skipped = {
        what: [key for key in shapes if pattern.fullmatch(key)]
        for what, pattern in _TRAINING.items()
    }
    dropped = {key for keys in skipped.values() for key in keys}
    kept = {key: shape for key, shape in shapes.items() if key not in dropped}
    counts = {what: len(keys) for what, keys in skipped.items() if keys}
    _check_types(reader, {key: key for key in kept})
    return Stored("TensorFlow checkpoint", "key", kept, counts, {key: key for key in kept}, reader)


def _saved_model(path: Path) -> Stored:
    document = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes())
    objects = document.meta_graphs[0].object_graph_def
    reader, shapes = _open(path / "variables" / "variables")
    keys = _keys(objects, reader)
    named: dict[str, str] = {}
    for node in _captured(objects):
        name = objects.nodes[node].variable.name.removesuffix(":0") + ":0"
        if name in named:
            raise UserError(f"has two variables of the name {name}; {_COPY}")
        named[name] = keys[node]
    _check_types(reader, named)
    found = {name: shapes[key] for name, key in named.items()}
    return Stored("SavedModel", "name", found, {}, named, reader)


def _captured(objects: Any) -> list[int]:
    """The nodes of the variables that the functions of `obj.__call__` use, as they list them."""
    children = {child.local_name: child.node_id for child in objects.nodes[0].children}
    if "__call__" not in children:
        raise UserError("is a SavedModel that cannot be called; name one of the authors'")
    functions = objects.nodes[children["__call__"]].function.concrete_functions
    nodes = [node for f in functions for node in objects.concrete_functions[f].bound_inputs]
    return [n for n in dict.fromkeys(nodes) if objects.nodes[n].WhichOneof("kind") == "variable"]


def _keys(objects: Any, reader: Any) -> dict[int, str]:
    """The checkpoint's key for every variable among the objects: both list the same tree."""
    graph = trackable_object_graph_pb2.TrackableObjectGraph.FromString(
        reader.get_tensor(_OBJECT_GRAPH)
    )
    keys: dict[int, str] = {}
    seen, waiting = {0}, [(0, 0)]
    while waiting:
        node, stored = waiting.pop()
        for attribute in graph.nodes[stored].attributes:
            if attribute.name == _VALUE:
                keys[node] = attribute.checkpoint_key
        places = {child.local_name: child.node_id for child in graph.nodes[stored].children}
        for child in objects.nodes[node].children:
            if child.local_name in places and child.node_id not in seen:
                seen.add(child.node_id)
                waiting.append((child.node_id, places[child.local_name]))
    return keys


def _open(prefix: Path) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """The reader of a checkpoint and the shapes in it, which must fit into what lies on disk."""
    reader = tf.train.load_checkpoint(str(prefix))
    types = reader.get_variable_to_dtype_map()
    shapes = {
        key: tuple(shape)
        for key, shape in sorted(reader.get_variable_to_shape_map().items())
        if key != _OBJECT_GRAPH
    }
    # An index may claim any size, and it would be allocated before the data turn out to be short.
    claimed = sum(
        math.prod(shape) * types[key].size
        for key, shape in shapes.items()
        if types[key] != tf.string
    )
    there = sum(file.stat().st_size for file in prefix.parent.glob(f"{prefix.name}.data-*"))
    if claimed > there:
        raise UserError(f"should hold {claimed:,} bytes of variables and has {there:,}; {_COPY}")
    return reader, shapes


def _check_types(reader: Any, keys: Mapping[str, str]) -> None:
    types = reader.get_variable_to_dtype_map()
    for name, key in keys.items():
        if types[key] != tf.float32:
            raise UserError(
                f"{name} is of type {types[key].name}, not float32; only whole models of the "
                "authors' TF2 code can be imported"
            )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
