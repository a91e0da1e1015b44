"""Interface of evaluation protocols, their inputs and predictions, and linear classifiers."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from simclr_tf.data import ImageSource
from simclr_tf.errors import UserError
from simclr_tf.evaluation.features import ArrayDict, Encoder, Features
from simclr_tf.utils.files import save_npz


@dataclass(frozen=True)
class ProtocolInputs:
    """Frozen features of two splits, and the training images and encoder behind them.

    >>> import numpy as np
    >>> from simclr_tf.evaluation import KNN, Features
    >>> from simclr_tf.evaluation.protocols import ProtocolInputs
    >>> features = Features(np.eye(2, dtype=np.float32), np.array([0, 1]))
    >>> inputs = ProtocolInputs(train=features, test=features, num_classes=2)
    >>> KNN(k=(1,)).predict(inputs)[0].scores.argmax(axis=1)
    array([0, 1])

    Attributes:
        train: training features; labels in [0, num_classes), or [N, C] of 0 and 1.
        test: test features; labels as in `Features`.
        num_classes: number of classes C.
        encoder: the encoder of the features, called as encoder(images, training=False).
        source: the images of `train`.
        image_size: side length S of the encoder's images in pixels.
        work_dir: directory for intermediate results, specific to the encoder and `source`; None
            disables them.
        seed: seed of the protocol.
    """

    train: Features
    test: Features
    num_classes: int
    encoder: Encoder | None = None
    source: ImageSource | None = None
    image_size: int = 0
    work_dir: Path | None = None
    seed: int = 0


@dataclass(frozen=True)
class AffineClassifier:
    """A linear classifier: logits [N, C] = features [N, D] @ kernel [D, C] + bias [C], float32.

    >>> import numpy as np
    >>> from simclr_tf.evaluation.protocols import AffineClassifier
    >>> classifier = AffineClassifier(kernel=np.eye(2), bias=np.ones(2))
    >>> np.array([[3.0, 4.0]]) @ classifier.kernel + classifier.bias
    array([[4., 5.]])
    """

    kernel: np.ndarray
    bias: np.ndarray


@dataclass(frozen=True)
class Prediction:
    """Predictions of a protocol for all test images.

    >>> import numpy as np
    >>> from simclr_tf.evaluation.protocols import Prediction
    >>> Prediction(scores=np.array([[0.1, 0.9]]), setting="k=1").scores.argmax(axis=1)
    array([1])

    Attributes:
        scores: float [M, C], higher for more likely classes.
        setting: distinguishes several predictions of one protocol, such as "k=20, T=0.07".
        warning: message for the user, or "".
        classifier: the fitted classifier, for protocols that have one.
    """

    scores: np.ndarray
    setting: str = ""
    warning: str = ""
    classifier: AffineClassifier | None = None

    def to_arrays(self) -> ArrayDict:
        """Returns the fields as arrays."""
        head = self.classifier
        weights = {} if head is None else {"kernel": head.kernel, "bias": head.bias}
        texts = {"setting": np.array(self.setting), "notice": np.array(self.warning)}
        return {"scores": self.scores, **texts, **weights}

    @classmethod
    def from_arrays(cls, arrays: ArrayDict) -> "Prediction":
        """Returns the prediction of the result of `to_arrays`."""
        head = AffineClassifier(arrays["kernel"], arrays["bias"]) if "kernel" in arrays else None
        return cls(arrays["scores"], str(arrays["setting"]), str(arrays["notice"]), head)


class EvaluationProtocol(Protocol):
    """A method that is fitted to the features of one split and predicts another.

    >>> import numpy as np
    >>> from simclr_tf.evaluation import Features
    >>> from simclr_tf.evaluation.protocols import Prediction, ProtocolInputs
    >>> class MostFrequentClass:
    ...     name = "most frequent class"
    ...
    ...     def check(self, num_train):
    ...         pass
    ...
    ...     def predict(self, inputs):
    ...         counts = np.bincount(inputs.train.labels, minlength=inputs.num_classes)
    ...         return [Prediction(np.tile(counts, (len(inputs.test.features), 1)))]
    >>> features = Features(np.zeros((3, 1), np.float32), np.array([0, 1, 1]))
    >>> inputs = ProtocolInputs(train=features, test=features, num_classes=2)
    >>> MostFrequentClass().predict(inputs)[0].scores.argmax(axis=1)
    array([1, 1, 1])
    """

    @property
    def name(self) -> str:
        """Name of the protocol in evaluations.json."""

    def check(self, num_train: int) -> None:
        """Raises UserError if the settings do not allow `num_train` training examples."""

    def predict(self, inputs: ProtocolInputs) -> list[Prediction]:
        """Fits `inputs.train` and predicts `inputs.test`, once for every setting."""


@dataclass(frozen=True)
class FittedClassifier:
    """A fitted linear classifier with the metadata that its export needs.

    >>> import numpy as np
    >>> from pathlib import Path
    >>> from simclr_tf.evaluation.protocols import AffineClassifier, FittedClassifier
    >>> classifier = AffineClassifier(kernel=np.eye(2), bias=np.zeros(2))
    >>> path = Path("classifier.npz")
    >>> FittedClassifier(classifier, ("circle", "cross"), "logistic", "shapes", 100).save(path)
    >>> FittedClassifier.load(path).class_names
    ('circle', 'cross')

    Attributes:
        classifier: classifier of features [N, D].
        class_names: names of its C classes.
        protocol: "logistic" or "linear".
        dataset: the dataset that it was fitted to.
        step: training step of the encoder.
    """

    classifier: AffineClassifier
    class_names: tuple[str, ...]
    protocol: str
    dataset: str
    step: int

    def save(self, path: Path) -> None:
        """Writes an .npz file atomically."""
        save_npz(
            path,
            kernel=self.classifier.kernel,
            bias=self.classifier.bias,
            class_names=np.array(self.class_names),
            about=np.array([self.protocol, self.dataset, str(self.step)]),
        )

    @classmethod
    def load(cls, path: Path) -> "FittedClassifier":
        """Reads a file of `save`; raises UserError if it is damaged."""
        try:
            with np.load(path, allow_pickle=False) as file:
                kernel, bias = file["kernel"], file["bias"]
                names = tuple(str(name) for name in file["class_names"])
                protocol, dataset, step = (str(value) for value in file["about"])
            if kernel.ndim != 2 or bias.shape != (kernel.shape[1],) or len(names) != len(bias):
                raise ValueError(f"shapes {kernel.shape}, {bias.shape}, {len(names)} classes")
            return cls(AffineClassifier(kernel, bias), names, protocol, dataset, int(step))
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{path}: expected a classifier of evaluate --save_classifier, got a damaged file "
                f"({error}). Fix: delete it, or save the classifier again"
            ) from None
