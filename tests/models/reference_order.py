"""Our variables in the order in which the reference implementation builds its own."""

import re

import numpy as np
import tf_keras as keras

LEAVES = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
# Within a block: the shortcut first, then the residual branch in the order of the data.
_ROLES = ("shortcut", "conv1", "bn1", "conv2", "bn2", "sk_conv1", "sk_bn1", "sk_conv2", "conv3")


def _build_position(layer: keras.layers.Layer) -> tuple[int, ...]:
    block = re.fullmatch(r"block_group(\d)_block(\d+)_(\w+)", layer.name)
    if not block:
        return (0,)
    role = next((i for i, role in enumerate(_ROLES) if block[3].startswith(role)), len(_ROLES))
    return int(block[1]), int(block[2]), role


def ours(model: keras.Model) -> dict[str, list]:
    """Return the model's variables by kind, each kind in the reference's build order."""
    # Keras sorts a functional model's layers by their distance from the output; the sort here is
    # stable, so that the layers outside the blocks keep the order in which data meets them.
    by_kind = {leaf: [] for leaf in LEAVES}
    for layer in sorted((x for x in model.layers if x.weights), key=_build_position):
        for variable in layer.weights:
            by_kind[_leaf(variable.name)].append(variable)
    return by_kind


def theirs(named: list[tuple[str, object]], scope: str) -> dict[str, list]:
    """Return the values of (name, value) whose name starts with `scope`, by kind."""
    by_kind = {leaf: [] for leaf in LEAVES}
    for name, value in named:
        if name.startswith(scope):
            by_kind[_leaf(name)].append(value)
    return by_kind


def load(model: keras.Model, npz: dict[str, np.ndarray], scope: str) -> None:
    """Assign the npz file's variables under `scope` to the model, which they must all fit."""
    values = theirs(list(npz.items()), f"variable/{scope}/")
    for leaf, variables in ours(model).items():
        for variable, value in zip(variables, values[leaf], strict=True):
            variable.assign(value)


def _leaf(name: str) -> str:
    return name.rsplit("/", 1)[1].removesuffix(":0")
