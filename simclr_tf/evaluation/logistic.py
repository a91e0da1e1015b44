"""Multinomial logistic regression on frozen features ([v1] §B.8)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import tensorflow as tf
from threadpoolctl import threadpool_limits

from simclr_tf.errors import UserError
from simclr_tf.evaluation.features import Features
from simclr_tf.evaluation.linear import LinearHead, shuffled_batches
from simclr_tf.evaluation.metrics import METRIC_FUNCTIONS
from simclr_tf.evaluation.protocols import AffineClassifier, Prediction, ProtocolInputs
from simclr_tf.training.schedule import resolve_steps

if TYPE_CHECKING:  # scikit-learn is imported where it is used: training starts without it
    import sklearn.linear_model
    import sklearn.preprocessing

# The paper's 45 values of L2 [v1 §B.8].
L2_SWEEP = tuple(np.logspace(-6, 5, 45).tolist())
_VAL_FRACTION = 0.1
_BLOCK_ROWS = 2**16
_ADAM_BATCH = 256
_ABSENT_CLASS_LOGIT = -1e9


@dataclass(frozen=True)
class Logistic:
    """Protocol `logistic`: mean cross-entropy + l2/2·‖W‖² on standardized features.

    Mean and deviation are those of the training split. Images with several labels have one
    regression per class, and the sweep maximizes mean average precision.

    >>> from simclr_tf.evaluation import Logistic
    >>> Logistic(sweep=True).check(num_train=1000)

    Args:
        l2: coefficient of the penalty; None: 1 / num_train, which is scikit-learn's C = 1.
        sweep: select l2 from `l2_values` by top-1 on a held-out tenth of the training split
            (seeded, and stratified if the tenth has an image for every class), of equal accuracies
            the strongest, and fit again on the whole split.
        solver: "lbfgs" (scikit-learn), or "adam" (batches of 256, cosine schedule to 0) for splits
            that are too large for L-BFGS, which reads all examples at every step.
        max_iter: maximum number of L-BFGS steps; a fit that reaches it has a warning.
        adam_epochs: epochs of Adam.
        adam_learning_rate: initial learning rate of Adam.
        l2_values: values of the sweep, ascending.
    """

    l2: float | None = None
    sweep: bool = False
    solver: str = "lbfgs"
    max_iter: int = 1000
    adam_epochs: float = 50
    adam_learning_rate: float = 1e-3
    l2_values: tuple[float, ...] = L2_SWEEP

    name: ClassVar[str] = "logistic"

    def check(self, num_train: int) -> None:
        """Raises UserError if there are too few training examples."""
        minimum = 20 if self.sweep else 2
        if num_train < minimum:
            sweep = " with --l2_sweep" if self.sweep else ""
            raise UserError(
                f"--train_split: the protocol logistic{sweep} requires at least {minimum} images, "
                f"got {num_train}. Fix: choose a larger split"
            )

    def predict(self, inputs: ProtocolInputs) -> list[Prediction]:
        """Fits the training split, which has at least two classes, and scores the test split."""
        l2, warning_lines = self.l2 or 1 / inputs.train.num_examples, []
        parts = [] if self.solver == "lbfgs" else [self.solver]
        if self.sweep:
            l2, sweep_warning = self._select_l2(inputs)
            parts.append(f"L2={l2:.2g}, chosen of {len(self.l2_values)}")
            warning_lines.append(sweep_warning)
            if l2 in (self.l2_values[0], self.l2_values[-1]):
                warning_lines.append(
                    f"logistic: the selected L2={l2:.2g} is an end point of the sweep"
                )
        head = self.fit(inputs.train, inputs.num_classes, l2, seed=inputs.seed)
        warning = "; ".join(filter(None, (*warning_lines, head.warning)))
        classifier = None if inputs.train.labels.ndim == 2 else head.fold_scaler()
        scores = head.logits(inputs.test.features)
        return [Prediction(scores, ", ".join(parts), warning, classifier)]

    def fit(
        self,
        train: Features,
        num_classes: int,
        l2: float,
        start: StandardizedClassifier | None = None,
        seed: int = 0,
    ) -> StandardizedClassifier:
        """Fits a classifier, from the solution of an earlier fit on the same rows if given."""
        scaler = start.scaler if start else _fit_scaler(train.features)
        if self.solver == "adam":
            return self._fit_adam(train, num_classes, l2, start, scaler, seed)
        return self._fit_lbfgs(train, num_classes, l2, start, scaler)

    def _select_l2(self, inputs: ProtocolInputs) -> tuple[float, str]:
        """Returns the selected L2 and a warning, or ""."""
        features, labels = inputs.train.features, inputs.train.labels
        multi_label = labels.ndim == 2
        metric = METRIC_FUNCTIONS["11-point mAP" if multi_label else "top-1"]
        train_rows, val_rows = _train_val_split(labels, inputs.seed)
        part = Features(features[train_rows], labels[train_rows])
        val_features, val_labels = features[val_rows], labels[val_rows]
        if multi_label and not val_labels.any():
            raise UserError(
                f"--l2_sweep: none of the {len(val_rows)} held-out images of --train_split has a "
                "class. Fix: choose a larger split, or omit --l2_sweep"
            )
        best, selected, num_unconverged, head = -1.0, 0.0, 0, None
        for l2 in self.l2_values[::-1]:  # strongest first: each fit starts from the previous one
            head = self.fit(part, inputs.num_classes, l2, head, inputs.seed)
            num_unconverged += bool(head.warning)
            value = metric(head.logits(val_features), val_labels)
            if value > best:
                best, selected = value, l2
        if not num_unconverged:
            return selected, ""
        count = f"{num_unconverged} of the {len(self.l2_values)}"
        return selected, f"logistic: {count} fits of the sweep stopped before convergence"

    def _fit_lbfgs(
        self,
        train: Features,
        num_classes: int,
        l2: float,
        start: StandardizedClassifier | None,
        scaler: sklearn.preprocessing.StandardScaler,
    ) -> StandardizedClassifier:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        scaled = scaler.transform(train.features)
        # With several labels a model for each: OneVsRestClassifier would fit clones, which start
        # at zero.
        targets = np.atleast_2d(train.labels.T)
        models = (
            start.models
            if start
            else tuple(LogisticRegression(max_iter=self.max_iter, warm_start=True) for _ in targets)
        )
        # The products are small and OpenBLAS's threads wait for each other by spinning: with two
        # on a busy machine of two cores a step took 50 times as long as with one.
        with threadpool_limits(1, "blas"), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            for model, target in zip(models, targets, strict=True):
                model.set_params(C=1 / (l2 * train.num_examples))
                if target.min() < target.max():
                    model.fit(scaled, target)
        warning = ""
        if any(issubclass(w.category, ConvergenceWarning) for w in caught):
            warning = (
                f"logistic: L-BFGS stopped after {self.max_iter} steps before convergence, so that "
                "the accuracy may be slightly below the optimum"
            )
        if train.labels.ndim == 2:
            kernel, bias = _binary_coefficients(models, train)
        else:
            kernel, bias = _coefficients(models[0], num_classes)
        return StandardizedClassifier(scaler, kernel, bias, models, warning)

    def _fit_adam(
        self,
        train: Features,
        num_classes: int,
        l2: float,
        start: StandardizedClassifier | None,
        scaler: sklearn.preprocessing.StandardScaler,
        seed: int,
    ) -> StandardizedClassifier:
        count, dims = train.features.shape
        batch = min(_ADAM_BATCH, count)
        steps = resolve_steps(count, batch, epochs=self.adam_epochs)
        multi_label, rate = train.labels.ndim == 2, self.adam_learning_rate
        head = LinearHead(dims, num_classes, "adam", rate, steps, multi_label, l2)
        if start:
            head.kernel.assign(start.kernel)
            head.bias.assign(start.bias)
        batches = shuffled_batches(train.features, train.labels, batch, steps, seed)
        for rows, labels in batches:
            scaled = tf.constant(scaler.transform(rows), tf.float32)
            head.train_step_fn(scaled, tf.constant(labels))
        return StandardizedClassifier(scaler, head.kernel.numpy(), head.bias.numpy())


def _train_val_split(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the training rows, ascending and of at least two classes, and the held-out rows."""
    from sklearn.model_selection import train_test_split

    rows, count = np.arange(len(labels)), math.ceil(_VAL_FRACTION * len(labels))
    forced_train, stratify = rows[:0], None
    if labels.ndim == 1:
        _, first, sizes = np.unique(labels, return_index=True, return_counts=True)
        if sizes.min() > 1 and len(sizes) <= count:
            stratify = labels
        else:  # not possible; a plain draw could leave training images of one class only
            forced_train = first[:2]
    rest = np.delete(rows, forced_train)
    train, val = train_test_split(rest, test_size=count, random_state=seed, stratify=stratify)
    return np.sort(np.concatenate([forced_train, train])), val


def _fit_scaler(features: np.ndarray) -> sklearn.preprocessing.StandardScaler:
    """Fits mean and deviation block by block, because features may be memory-mapped."""
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler()
    for start in range(0, len(features), _BLOCK_ROWS):
        scaler.partial_fit(features[start : start + _BLOCK_ROWS])
    return scaler


@dataclass(frozen=True)
class StandardizedClassifier:
    """A linear classifier of standardized features, and the warning of its fit.

    >>> import numpy as np
    >>> from simclr_tf.evaluation import Features, Logistic
    >>> features = Features(np.array([[0.0], [1.0]], np.float32), np.array([0, 1]))
    >>> classifier = Logistic().fit(features, num_classes=2, l2=0.1)
    >>> classifier.logits(features.features).argmax(axis=1)
    array([0, 1])
    """

    scaler: sklearn.preprocessing.StandardScaler
    kernel: np.ndarray
    bias: np.ndarray
    models: tuple[sklearn.linear_model.LogisticRegression, ...] = ()
    warning: str = ""

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Returns logits [N, C] of features [N, D]."""
        return self.scaler.transform(features) @ self.kernel + self.bias

    def fold_scaler(self) -> AffineClassifier:
        """Returns the same classifier for features that are not standardized."""
        kernel = self.kernel / self.scaler.scale_[:, None]
        bias = self.bias - self.scaler.mean_ @ kernel
        return AffineClassifier(kernel.astype(np.float32), bias.astype(np.float32))


def _binary_coefficients(
    models: Sequence[sklearn.linear_model.LogisticRegression], train: Features
) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel [D, C] and bias [C] of one regression per class."""
    kernel = np.zeros((train.features.shape[1], len(models)))
    # A class that all or none of the images have has no regression.
    bias = np.where(train.labels[0] > 0, -_ABSENT_CLASS_LOGIT, _ABSENT_CLASS_LOGIT)
    for number, model in enumerate(models):
        if hasattr(model, "coef_"):
            kernel[:, number], bias[number] = model.coef_[0], model.intercept_[0]
    return kernel, bias


def _coefficients(
    model: sklearn.linear_model.LogisticRegression, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns kernel [D, C] and bias [C] of all classes, including those absent from training."""
    coefficients, intercepts, present = model.coef_, model.intercept_, model.classes_
    if len(coefficients) == 1:  # for two classes scikit-learn stores the difference
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    kernel = np.zeros((coefficients.shape[1], num_classes))
    bias = np.full(num_classes, _ABSENT_CLASS_LOGIT)
    kernel[:, present], bias[present] = coefficients.T, intercepts
    return kernel, bias
