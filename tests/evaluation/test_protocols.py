"""Fitted classifiers: saved and loaded without loss, damaged files refused."""

import numpy as np
import pytest

from simclr_tf.errors import UserError
from simclr_tf.evaluation.protocols import AffineClassifier, FittedClassifier


def _fitted(classes=("Käse", "b")):
    rng = np.random.default_rng(0)
    head = AffineClassifier(
        rng.normal(size=(4, 2)).astype(np.float32), rng.normal(size=2).astype(np.float32)
    )
    return FittedClassifier(head, classes, "linear", "folder:a b", 12)


def test_loaded_classifier_equals_the_saved_one(tmp_path):
    _fitted().save(tmp_path / "classifier.npz")
    found = FittedClassifier.load(tmp_path / "classifier.npz")
    np.testing.assert_array_equal(found.classifier.kernel, _fitted().classifier.kernel)
    np.testing.assert_array_equal(found.classifier.bias, _fitted().classifier.bias)
    for name in ("class_names", "protocol", "dataset", "step"):
        assert getattr(found, name) == getattr(_fitted(), name)


@pytest.mark.parametrize("damage", ["cut", "text", "pickle", "names", "shapes"])
def test_load_refuses_a_damaged_classifier(tmp_path, damage):
    path = tmp_path / "classifier.npz"
    (_fitted() if damage != "names" else _fitted(("a", "b", "c"))).save(path)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "text":
        path.write_text("nothing of the kind")
    elif damage == "pickle":
        np.savez(path, kernel=np.array([{}], dtype=object))
    elif damage == "shapes":
        with np.load(path) as file:
            arrays = dict(file)
        np.savez(path, **{**arrays, "kernel": arrays["kernel"].T})
    with pytest.raises(UserError, match=r"classifier\.npz: expected a classifier of evaluate"):
        FittedClassifier.load(path)
