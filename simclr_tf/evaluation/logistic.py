"""Multinomial logistic regression on frozen features by L-BFGS ([v1] §B.8)."""

import warnings
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from simclr_tf.errors import UserError
from simclr_tf.evaluation.features import Features
from simclr_tf.evaluation.protocols import Prediction


@dataclass(frozen=True)
class Logistic:
    """The protocol `logistic`: features standardised on train, L2 penalty 1 / (C · num_train).

    `max_iter` bounds L-BFGS; a fit that it cuts short says so in the prediction's notice.
    """

    C: float = 1.0
    max_iter: int = 1000

    name: ClassVar[str] = "logistic"

    def check(self, num_train: int) -> None:
        """Raise UserError where there is nothing to learn from."""
        if num_train < 2:
            raise UserError("--train_split needs at least two images for the protocol logistic")

    def predict(self, train: Features, test: Features, num_classes: int) -> Prediction:
        """Fit on `train`, which has labels of at least two classes, and classify `test`."""
        scaler = StandardScaler()
        inputs = scaler.fit_transform(train.features)
        model = LogisticRegression(C=self.C, max_iter=self.max_iter)
        # The products are thin and OpenBLAS's threads wait for one another by spinning: with two on
        # a busy machine of two cores a step took 50 times as long as with one.
        with threadpool_limits(1, "blas"), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", ConvergenceWarning)
            model.fit(inputs, train.labels)
        unfinished = any(issubclass(w.category, ConvergenceWarning) for w in caught)
        scores = model.predict_proba(scaler.transform(test.features))
        ranked = np.argsort(-scores, axis=1, kind="stable")[:, :5]
        return Prediction(
            model.classes_[ranked].astype(np.int64),
            f"logistic: L-BFGS stopped after {self.max_iter} steps before it converged; "
            "its figures are a little off the optimum"
            if unfinished
            else "",
        )
