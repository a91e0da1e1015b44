"""Which labelled images may be learnt from: class by class, drawn from a seed."""

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
    """Returns the places of the images whose labels are used, int64, ascending.

    Every class gives the same share of its images, rounded, or the same number. With one seed a
    smaller choice is part of a larger one. Images of label -1 are never among them.

    Args:
        labels: int [N].
        class_names: what the labels count.
        fraction: share of each class's images, in (0, 1].
        per_class: images of each class; above 0 it overrides `fraction`.
        seed: of the draw.

    Raises:
        UserError: a class would be left empty or has too few images, or images have several
            labels each.
    """
    if labels.ndim != 1:
        raise UserError(
            "--label_fraction and --labels_per_class are for images of one class each; leave them "
            "out for a dataset with several labels per image"
        )
    random = np.random.Generator(np.random.Philox(seed))
    chosen = []
    for number in range(len(class_names)):
        members = random.permutation(np.flatnonzero(labels == number))
        wanted = per_class or round(fraction * len(members))
        if per_class > len(members):
            raise UserError(
                f"--labels_per_class={per_class}: class {class_names[number]!r} has "
                f"{len(members)} images; " + ("lower it" if len(members) else "take a larger split")
            )
        if not wanted and len(members):
            raise UserError(
                f"--label_fraction={fraction:g} leaves class {class_names[number]!r} without an "
                f"image of its {len(members)}; raise it, or name --labels_per_class"
            )
        chosen.append(members[:wanted])
    return np.sort(np.concatenate(chosen))


def mask_labels(source: ImageSource, positions: np.ndarray) -> ImageSource:
    """Returns the same images, of which those at these places alone keep their label.

    The others are decoded with label −1. Reads the records of those places once.
    """
    found = records_at(source, positions).map(source.record_id)
    keys = host_constant(np.sort(np.fromiter(found.as_numpy_iterator(), np.int64)))

    def decode(record: tf.Tensor) -> dict[str, tf.Tensor]:
        decoded = source.decode(record)
        key = source.record_id(record)
        place = tf.searchsorted(keys, tf.reshape(key, [-1]))
        nearest = tf.gather(keys, tf.minimum(place, len(keys) - 1))
        kept = tf.reshape(nearest, tf.shape(key)) == key
        label = decoded["label"]
        return {**decoded, "label": tf.where(kept, label, -tf.ones_like(label))}

    part = copy.copy(source)
    # Of the copy alone; whatever is made of it in turn, such as a worker's files, takes it along.
    part.decode = decode  # type: ignore[method-assign]
    return part
