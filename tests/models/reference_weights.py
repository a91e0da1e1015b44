"""The reference implementation's variables, by our names for them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tf_keras as keras

from simclr_tf.weights_import.detect import detect_architecture


def theirs(named: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Return what each variable of a part of the model has in `named`, an array or a shape."""
    shapes = {name: tuple(getattr(value, "shape", value)) for name, value in named.items()}
    found = detect_architecture(shapes, "name")
    return {v.keras_name: named[name] for v, name in found.names if v.part == part}


def ours(model: keras.Model) -> dict[str, Any]:
    """Return the model's variables by name."""
    return {variable.name.removesuffix(":0"): variable for variable in model.variables}


def load(model: keras.Model, npz: Mapping[str, np.ndarray], part: str) -> None:
    """Assign the npz file's variables of that part to the model, which they must all fit."""
    named = {n.removeprefix("variable/"): v for n, v in npz.items() if n.startswith("variable/")}
    values, variables = theirs(named, part), ours(model)
    assert set(values) == set(variables)
    for name, variable in variables.items():
        variable.assign(values[name])
