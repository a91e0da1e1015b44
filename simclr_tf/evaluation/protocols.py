"""What an evaluation protocol is, what it works on, and what it answers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from simclr_tf.data import ImageSource
from simclr_tf.evaluation.array_cache import Arrays
from simclr_tf.evaluation.features import Encoder, Features


@dataclass(frozen=True)
class Task:
    """Frozen features of two splits, and for those who look again, the images behind them.

    Attributes:
        train: what is learnt from, its labels in [0, num_classes), or [N, C] of 0 and 1.
        test: what is judged on, its labels as `Features` says.
        num_classes: C.
        encoder: gave the features; called as encoder(images, training=False).
        source: the images of `train`.
        image_size: S, in pixels, at which the encoder sees them.
        scratch: a directory, of this encoder and `train` alone, where a long protocol keeps what it
            has; None: nowhere.
        seed: of the protocol's own draws.
    """

    train: Features
    test: Features
    num_classes: int
    encoder: Encoder | None = None
    source: ImageSource | None = None
    image_size: int = 0
    scratch: Path | None = None
    seed: int = 0


@dataclass(frozen=True)
class AffineClassifier:
    """A fitted head: logits [N, C] = features [N, D] @ kernel [D, C] + bias [C], all float32."""

    kernel: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class Prediction:
    """What a protocol thinks of every test image.

    `scores` is float [M, C], higher for likelier classes. `setting` tells apart the answers of one
    protocol ("k=20, T=0.07"). `notice` is a line that the user must see beside the figures, or
    empty. `classifier` is the fitted head, of protocols that have one.
    """

    scores: np.ndarray
    setting: str = ""
    notice: str = ""
    classifier: AffineClassifier | None = None

    def arrays(self) -> Arrays:
        """Return it as arrays, to be kept."""
        head = self.classifier
        parts = {} if head is None else {"kernel": head.kernel, "bias": head.bias}
        texts = {"setting": np.array(self.setting), "notice": np.array(self.notice)}
        return {"scores": self.scores, **texts, **parts}

    @classmethod
    def of(cls, arrays: Arrays) -> "Prediction":
        """Return what `arrays` was made of."""
        head = AffineClassifier(arrays["kernel"], arrays["bias"]) if "kernel" in arrays else None
        return cls(arrays["scores"], str(arrays["setting"]), str(arrays["notice"]), head)


class EvaluationProtocol(Protocol):
    """A way to judge an encoder: learn from a labelled split, predict another."""

    @property
    def name(self) -> str:
        """Return the protocol's name in evaluations.json."""

    def check(self, num_train: int) -> None:
        """Raise UserError where the settings do not go with `num_train` train examples."""

    def predict(self, task: Task) -> list[Prediction]:
        """Learn from `task.train` and predict `task.test`, once for every setting."""
