"""Multinomial logistic regression on frozen features ([v1] §B.8)."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import tensorflow as tf
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from simclr_tf.errors import UserError
from simclr_tf.evaluation.features import Features
from simclr_tf.evaluation.linear import LinearHead, cosine_optimizer, shuffled_batches
from simclr_tf.evaluation.metrics import top_k, voc07_mean_average_precision
from simclr_tf.evaluation.protocols import AffineClassifier, Prediction, ProtocolInputs
from simclr_tf.training.schedule import resolve_steps

# The paper's 45 values of L2 [v1 §B.8].
L2_SWEEP = np.logspace(-6, 5, 45)
_HELD_OUT = 0.1
_BLOCK = 2**16
_ADAM_BATCH, _ADAM_EPOCHS, _ADAM_RATE = 256, 50, 1e-3
_UNKNOWN = -1e9  # the logit of a class that train lacks


@dataclass(frozen=True)
class Logistic:
    """The protocol `logistic`: mean cross-entropy + l2/2·‖W‖², on features standardised on train.

    Args:
        l2: the penalty; None: 1 / num_train, which is scikit-learn's C = 1.
        sweep: choose l2 among the paper's 45 values on a held-out tenth of train (seeded, and
            stratified where the tenth has an image for every class) by top-1, of equals the
            strongest, and fit again on all of train.
        solver: "lbfgs" (scikit-learn) or "adam" (batches of 256, 50 epochs, 1e-3 falling to 0) for
            sets of which L-BFGS, which takes all of them at every step, would take too long.
        max_iter: bounds L-BFGS; a fit that it cuts short says so in the prediction's notice.

    With several labels per image there is one regression for each class, and the sweep goes by mean
    average precision.
    """

    l2: float | None = None
    sweep: bool = False
    solver: str = "lbfgs"
    max_iter: int = 1000

    name: ClassVar[str] = "logistic"

    def check(self, num_train: int) -> None:
        """Raise UserError where there is nothing to learn from."""
        if num_train < (20 if self.sweep else 2):
            least = "20 images with --l2_sweep" if self.sweep else "two images"
            raise UserError(f"--train_split needs at least {least} for the protocol logistic")

    def predict(self, task: ProtocolInputs) -> list[Prediction]:
        """Fit on train, whose labels are of at least two classes, and score test."""
        fit = self._by_lbfgs if self.solver == "lbfgs" else self._by_adam
        notices: list[str] = []
        l2, setting = self.l2 or 1 / task.train.num_examples, ""
        if self.sweep:
            l2 = self._choose(task, fit, notices)
            setting = f"L2={l2:.2g}, chosen of {len(L2_SWEEP)}"
            if l2 in (L2_SWEEP[0], L2_SWEEP[-1]):
                notices.append(f"logistic: the chosen L2={l2:.2g} is at the end of the sweep")
        if self.solver != "lbfgs":
            setting = ", ".join(filter(None, (self.solver, setting)))
        head = fit(task, task.train, l2, None, notices)
        return [
            Prediction(
                head.logits(task.test.features),
                setting,
                notice=" ".join(dict.fromkeys(notices)),
                classifier=None if task.train.labels.ndim == 2 else head.folded(),
            )
        ]

    def _choose(self, task: ProtocolInputs, fit: Callable, notices: list[str]) -> float:
        features, labels = task.train.features, task.train.labels
        several = labels.ndim == 2
        learn, judge = _hold_out(labels, task.seed)
        part = Features(features[learn], labels[learn])
        val_features, truth = features[judge], labels[judge]
        if several and not truth.any():
            raise UserError(
                f"--l2_sweep: none of the {len(judge)} images that it holds out of --train_split "
                "has a class to choose by; take a larger split, or leave --l2_sweep out"
            )
        best, chosen, head = -1.0, 0.0, None
        unfinished: list[str] = []
        for l2 in L2_SWEEP[::-1]:  # from the strongest: each fit starts where the last one ended
            head = fit(task, part, l2, head, unfinished)
            logits = head.logits(val_features)
            value = (
                voc07_mean_average_precision(logits, truth) if several else top_k(logits, truth)[0]
            )
            if value > best:
                best, chosen = value, l2
        if unfinished:
            notices.append(
                f"logistic: {len(unfinished)} of the sweep's {len(L2_SWEEP)} fits stopped before "
                "they converged."
            )
        return float(chosen)

    def _by_lbfgs(
        self,
        task: ProtocolInputs,
        train: Features,
        l2: float,
        start: "_Head | None",
        notices: list[str],
    ) -> "_Head":
        scaler = start.scaler if start else _scaler(train.features)
        inputs = scaler.transform(train.features)
        # Of several labels one each: OneVsRestClassifier would fit clones, which start at zero.
        targets = np.atleast_2d(train.labels.T)
        models = (
            start.models
            if start
            else tuple(LogisticRegression(max_iter=self.max_iter, warm_start=True) for _ in targets)
        )
        # The products are thin and OpenBLAS's threads wait for one another by spinning: with two on
        # a busy machine of two cores a step took 50 times as long as with one.
        with threadpool_limits(1, "blas"), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            for model, target in zip(models, targets, strict=True):
                model.set_params(C=1 / (l2 * train.num_examples))
                if target.min() < target.max():
                    model.fit(inputs, target)
        if any(issubclass(w.category, ConvergenceWarning) for w in caught):
            notices.append(
                f"logistic: L-BFGS stopped after {self.max_iter} steps before it converged; "
                "its figures are a little off the optimum"
            )
        if train.labels.ndim == 2:
            kernel, bias = _binary_coefficients(models, train)
        else:
            kernel, bias = _coefficients(models[0], task.num_classes)
        return _Head(scaler, kernel, bias, models)

    def _by_adam(
        self,
        task: ProtocolInputs,
        train: Features,
        l2: float,
        start: "_Head | None",
        notices: list[str],
    ) -> "_Head":
        del notices
        scaler = start.scaler if start else _scaler(train.features)
        count, dims = train.features.shape
        batch = min(_ADAM_BATCH, count)
        steps = resolve_steps(count, batch, epochs=_ADAM_EPOCHS)
        head = LinearHead(
            dims,
            task.num_classes,
            cosine_optimizer("adam", _ADAM_RATE, steps),
            multi_label=train.labels.ndim == 2,
            l2=l2,
        )
        if start:
            head.kernel.assign(start.kernel)
            head.bias.assign(start.bias)
        batches = shuffled_batches(train.features, train.labels, batch, steps, task.seed)
        for rows, labels in batches:
            head.step(tf.constant(scaler.transform(rows), tf.float32), tf.constant(labels))
        return _Head(scaler, head.kernel.numpy(), head.bias.numpy())


def _hold_out(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows to learn from, of at least two classes, ascending, and those held out."""
    rows, count = np.arange(len(labels)), math.ceil(_HELD_OUT * len(labels))
    stays, stratify = rows[:0], None
    if labels.ndim == 1:
        _, first, sizes = np.unique(labels, return_index=True, return_counts=True)
        if sizes.min() > 1 and len(sizes) <= count:
            stratify = labels
        else:  # impossible; a plain draw could take all images but those of one class
            stays = first[:2]
    rest = np.delete(rows, stays)
    learn, judge = train_test_split(rest, test_size=count, random_state=seed, stratify=stratify)
    return np.sort(np.concatenate([stays, learn])), judge


def _scaler(features: np.ndarray) -> StandardScaler:
    """Mean and deviation, block by block: the features may be mapped from a file."""
    scaler = StandardScaler()
    for start in range(0, len(features), _BLOCK):
        scaler.partial_fit(features[start : start + _BLOCK])
    return scaler


@dataclass(frozen=True)
class _Head:
    """An affine classifier of standardised features."""

    scaler: StandardScaler
    kernel: np.ndarray
    bias: np.ndarray
    models: tuple[LogisticRegression, ...] = ()

    def logits(self, features: np.ndarray) -> np.ndarray:
        return self.scaler.transform(features) @ self.kernel + self.bias

    def folded(self) -> AffineClassifier:
        """The same of features as they are."""
        kernel = self.kernel / self.scaler.scale_[:, None]
        bias = self.bias - self.scaler.mean_ @ kernel
        return AffineClassifier(kernel.astype(np.float32), bias.astype(np.float32))


def _binary_coefficients(
    models: Sequence[LogisticRegression], train: Features
) -> tuple[np.ndarray, np.ndarray]:
    """Kernel [D, C] and bias [C] of a regression for each class."""
    kernel = np.zeros((train.features.shape[1], len(models)))
    # A class that all or none of the images have has no regression.
    bias = np.where(train.labels[0] > 0, -_UNKNOWN, _UNKNOWN)
    for number, model in enumerate(models):
        if hasattr(model, "coef_"):
            kernel[:, number], bias[number] = model.coef_[0], model.intercept_[0]
    return kernel, bias


def _coefficients(model: LogisticRegression, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Kernel [D, C] and bias [C] of all classes, those that train lacks among them."""
    coefficients, intercepts, known = model.coef_, model.intercept_, model.classes_
    if len(coefficients) == 1:  # of two classes scikit-learn keeps the difference
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercepts = np.concatenate([-intercepts, intercepts]) / 2
    kernel = np.zeros((coefficients.shape[1], num_classes))
    bias = np.full(num_classes, _UNKNOWN)
    kernel[:, known], bias[known] = coefficients.T, intercepts
    return kernel, bias
