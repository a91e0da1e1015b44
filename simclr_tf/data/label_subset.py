"""Label budgets: a seeded choice of labeled images of every class."""

import copy
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from simclr_tf.data.base import ImageSource, host_constant, records_at
from simclr_tf.errors import UserError


def sample_labeled(
    labels: np.ndarray,
    class_names: Sequence[str],
    *,
    fraction: float = 1.0,
    per_class: int = 0,
    seed: int = 0,
) -> np.ndarray:
    """Samples images of every class and returns their positions, int64, ascending.

    Every class contributes the same fraction (in (0, 1]) of its images, rounded, or, above 0, the
    same number. With one seed, a smaller choice is a subset of a larger one. Images of label -1 are
    never chosen.
    """
    if labels.ndim != 1:
        raise UserError(
            "--label_fraction and --labels_per_class: expected a dataset with one class per image, "
            "got one with several labels per image. Fix: remove these options."
        )
    random = np.random.Generator(np.random.Philox(seed))
    chosen = []
    for index, name in enumerate(class_names):
        members = random.permutation(np.flatnonzero(labels == index))
        count = per_class or round(fraction * len(members))
        if per_class > len(members):
            raise UserError(
                f"--labels_per_class={per_class}: class {name!r} has {len(members)} images. "
                f"Fix: {'lower it' if len(members) else 'use a larger split'}."
            )
        if not count and len(members):
            raise UserError(
                f"--label_fraction={fraction:g} selects none of the {len(members)} images of class "
                f"{name!r}. Fix: raise it or set --labels_per_class."
            )
        chosen.append(members[:count])
    return np.sort(np.concatenate(chosen))


def mask_labels(source: ImageSource, positions: np.ndarray) -> ImageSource:
    """Returns the same images with labels only at these positions; all others get label -1."""
    records = records_at(source, positions).map(source.record_id)
    labeled_ids = host_constant(np.sort(np.fromiter(records.as_numpy_iterator(), np.int64)))

    def decode(record: tf.Tensor) -> dict[str, tf.Tensor]:
        decoded = source.decode(record)
        record_id = source.record_id(record)
        insertion = tf.searchsorted(labeled_ids, tf.reshape(record_id, [-1]))
        nearest = tf.gather(labeled_ids, tf.minimum(insertion, len(labeled_ids) - 1))
        is_labeled = tf.reshape(nearest, tf.shape(record_id)) == record_id
        label = decoded["label"]
        return {**decoded, "label": tf.where(is_labeled, label, -tf.ones_like(label))}

    masked = copy.copy(source)
    # Copies of the copy, such as a worker's files, inherit it.
    masked.decode = decode  # type: ignore[method-assign]
    return masked


def drop_labels(source: ImageSource) -> ImageSource:
    """Returns the same images without labels."""
    unlabeled = copy.copy(source)
    unlabeled.class_names, unlabeled.multi_label = None, False

    def decode(record: tf.Tensor) -> dict[str, tf.Tensor]:
        decoded = source.decode(record)
        return {name: value for name, value in decoded.items() if name != "label"}

    unlabeled.decode = decode  # type: ignore[method-assign]
    return unlabeled
