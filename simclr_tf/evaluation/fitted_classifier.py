"""A fitted head, kept beside the run whose encoder it sits on."""

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from simclr_tf.errors import UserError
from simclr_tf.evaluation.protocols import AffineClassifier
from simclr_tf.utils.files import atomic_write


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
