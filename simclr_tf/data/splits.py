"""TFDS's way to write splits, for every source: `train`, `train[:90%]`, `train+test`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tensorflow_datasets as tfds

from simclr_tf.errors import UserError


def split_indices(
    dataset: str, split: str, sizes: Mapping[str, int]
) -> list[tuple[str, np.ndarray]]:
    """Resolves a split in TFDS's syntax (`train[:90%]`, `train+test`, `train[100:200]`).

    Args:
      dataset: for messages.
      split: the specification.
      sizes: how many examples each split has.

    Returns:
      (split's name, int64 row numbers within it) for every part of the sum.

    Raises:
      UserError: as `resolve_split`.
    """
    infos = [tfds.core.SplitInfo(name, [size], 0) for name, size in sizes.items()]
    parts = resolve_split(dataset, split, tfds.core.splits.SplitDict(infos))
    return [(name, np.arange(start, stop)) for name, start, stop in parts]


def resolve_split(
    dataset: str, split: str, infos: tfds.core.splits.SplitDict
) -> list[tuple[str, int, int]]:
    """Resolves a split in TFDS's syntax to (split's name, first, end) for every part of the sum.

    Raises:
      UserError: no such split, no such slice, or nothing in it.
    """
    available = ", ".join(f"{name} ({info.num_examples:,})" for name, info in infos.items())
    try:
        instructions = tfds.core.ReadInstruction.from_spec(split).to_absolute(infos)
    except (ValueError, NotImplementedError) as error:
        raise UserError(
            f"--dataset={dataset} has no split {split!r}: choose among {available}, a slice such "
            f"as {next(iter(infos))}[:90%], or a sum"
        ) from error
    parts = []
    for part in instructions:
        stop = infos[part.splitname].num_examples if part.to is None else part.to
        parts.append((part.splitname, part.from_ or 0, stop))
    if not any(stop > start for _, start, stop in parts):
        raise UserError(
            f"the split {split!r} of --dataset={dataset} is empty: there is {available}"
        )
    return parts
