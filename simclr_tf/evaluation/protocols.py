"""What an evaluation protocol is, what it works on, and what it answers."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from simclr_tf.data import ImageSource
from simclr_tf.errors import UserError
from simclr_tf.evaluation.features import Arrays, Encoder, Features
from simclr_tf.utils.files import atomic_write


@dataclass(frozen=True)
class ProtocolInputs:
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

    def predict(self, task: ProtocolInputs) -> list[Prediction]:
        """Learn from `task.train` and predict `task.test`, once for every setting."""


@dataclass(frozen=True)
class FittedClassifier:
    """A head and what it was fitted as.

    Attributes:
        classifier: of features [N, D].
        class_names: of its C logits.
        protocol: "logistic" or "linear".
        dataset: whose labels it learned.
        step: of the encoder's training.
    """

    classifier: AffineClassifier
    class_names: tuple[str, ...]
    protocol: str
    dataset: str
    step: int

    def save(self, path: Path) -> None:
        """Write it as a NumPy archive, whole or not at all."""
        file = io.BytesIO()
        np.savez(
            file,
            kernel=self.classifier.kernel,
            bias=self.classifier.bias,
            class_names=np.array(self.class_names),
            about=np.array([self.protocol, self.dataset, str(self.step)]),
        )
        atomic_write(path, file.getvalue())

    @classmethod
    def load(cls, path: Path) -> "FittedClassifier":
        """Read one back.

        Raises:
            UserError: it is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as kept:
                kernel, bias = kept["kernel"], kept["bias"]
                names = tuple(str(name) for name in kept["class_names"])
                protocol, dataset, step = (str(word) for word in kept["about"])
            if kernel.ndim != 2 or bias.shape != (kernel.shape[1],) or len(names) != len(bias):
                raise ValueError(f"shapes {kernel.shape}, {bias.shape}, {len(names)} classes")
            return cls(AffineClassifier(kernel, bias), names, protocol, dataset, int(step))
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path} is no classifier that evaluate --save_classifier wrote ({error}); remove "
                "it, or save it again"
            ) from None
