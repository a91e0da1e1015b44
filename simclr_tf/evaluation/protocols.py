"""What an evaluation protocol is, and what it answers."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from simclr_tf.evaluation.features import Features


@dataclass(frozen=True)
class Prediction:
    """The classes that a protocol thinks likeliest, [M, min(5, C)] int64, best first.

    `notice` is a line that the user must see beside the figures, or empty.
    """

    classes: np.ndarray
    notice: str = ""


class EvaluationProtocol(Protocol):
    """A way to judge frozen features: learn from a labelled split, predict another."""

    @property
    def name(self) -> str:
        """Return the protocol's name in evaluations.json."""

    def check(self, num_train: int) -> None:
        """Raise UserError where the settings do not go with `num_train` train examples."""

    def predict(self, train: Features, test: Features, num_classes: int) -> Prediction:
        """Learn from `train`, whose labels lie in [0, num_classes), and classify `test`."""


def top_k_accuracy(classes: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Return (top-1, top-5) accuracy in [0, 1] of ranked classes [M, ≤ 5] against labels [M].

    With fewer than six classes every class is among the first five, and top-5 is 1.
    """
    hits = classes == labels[:, None]
    return float(hits[:, 0].mean()), float(hits.any(axis=1).mean())
