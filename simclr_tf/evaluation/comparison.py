"""The trained encoder and its baselines, compared on one dataset after the other."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.errors import UserError
from simclr_tf.evaluation.baselines import PCAEncoder
from simclr_tf.evaluation.classifier import FittedClassifier
from simclr_tf.evaluation.evaluate import Evaluation, Representation, evaluate, judged
from simclr_tf.evaluation.features import Encoder
from simclr_tf.evaluation.records import Recorder
from simclr_tf.evaluation.request import Request, Splits
from simclr_tf.evaluation.transformations import Probed, Represent, probe_transformations

Say = Callable[[str], None]


def compare(
    encoders: Mapping[str, Callable],
    request: Request,
    own: Splits,
    directory: Path,
    say: Say,
    projection: keras.Model | None = None,
    **rest: Any,
) -> None:
    """Measures on every dataset, all of which are opened and checked before the first figure.

    Args:
        encoders: by name, "" for the trained one, what makes the encoder and its identity (see
            `Representation`); PCA is made here.
        request: what is measured.
        own: the run's own data.
        directory: where figures go.
        say: takes the lines for the user.
        projection: the projection head, for the probes of g(h).
        rest: of `Setting`: image_size and step.

    Raises:
        UserError: if the data or the settings do not allow it.
    """
    jobs = [
        _Comparison(
            request, request.splits(dataset, own), directory, encoders, projection, say, rest
        )
        for dataset in request.datasets or (own.dataset,)
    ]
    recorder = Recorder(directory, say)
    fitted = None
    for job in jobs:
        names = job.class_names
        for evaluation in job.figures():
            recorder.add(evaluation, names)
            if evaluation.classifier is not None and "/" not in evaluation.protocol:
                fitted = FittedClassifier(
                    evaluation.classifier,
                    names,
                    evaluation.protocol,
                    evaluation.dataset,
                    evaluation.step,
                )
        for evaluation, ways in job.probes():
            recorder.add(evaluation, ways)
    if request.save_classifier:
        if fitted is None:
            raise UserError(
                "--save_classifier: no head of one class per image was fitted; name a dataset "
                "whose images have one label each"
            )
        path = directory / "classifier.npz"
        fitted.save(path)
        say(f"the classifier of {fitted.protocol} is kept in {path}")
    recorder.close()


class _Comparison:
    """Encoders compared on one dataset: checked when it is made, measured when it is asked."""

    def __init__(
        self,
        request: Request,
        splits: Splits,
        directory: Path,
        encoders: Mapping[str, Callable],
        projection: keras.Model | None,
        say: Say,
        rest: Mapping[str, Any],
    ):
        self._request, self._say = request, say
        makers = {**encoders, "pca": self._pca}
        self._train, self._test = request.open(splits)
        self.class_names = tuple(self._train.class_names or ())
        self._setting = splits.setting(
            batch_size=request.batch_size,
            seed=request.seed,
            cache_dir=directory / "features",
            **rest,
        )
        self._figures: Iterator[Evaluation] = iter(())
        if request.protocols:
            names = ("", *request.baselines)
            self._figures = evaluate(
                [Representation(name, makers[name]) for name in names],
                self._train,
                self._test,
                request.protocols,
                self._setting,
            )
        self._probes: Iterator[Probed] = iter(())
        if request.transformations:
            encoder, _ = makers[""]()
            self._probes = probe_transformations(
                _both(encoder, projection),
                self._train,
                self._test,
                self._setting.image_size,
                request.transformations,
                batch_size=request.batch_size,
                seed=request.seed,
            )

    def figures(self) -> Iterator[Evaluation]:
        """Yield what the protocols say."""
        counts = f"{self._train.num_examples} + {self._test.num_examples}"
        self._say(f"evaluating on {counts} images of {self._setting.dataset}")
        yield from self._figures

    def probes(self) -> Iterator[tuple[Evaluation, tuple[str, ...]]]:
        """Yield what the probes of transformations say, with the names of the ways."""
        for probed in self._probes:
            name = f"probe:{probed.transformation}"
            if probed.representation != "encoder":
                name += f"/{probed.representation}"
            evaluation = judged(
                dataclasses.replace(self._setting, metric="top-1"),
                probed.scores,
                probed.labels,
                protocol=name,
                num_train=probed.num_train,
                seconds=probed.seconds,
                setting="",
                notice=probed.notice,
            )
            yield evaluation, probed.class_names

    def _pca(self) -> tuple[Encoder, str]:
        encoder = PCAEncoder(
            self._train, self._setting.image_size, self._request.batch_size, self._request.seed
        )
        if encoder.notice:
            self._say(f"note: {encoder.notice}")
        return encoder, encoder.identity


def _both(encoder: Encoder, projection: keras.Model | None) -> Represent:
    """What gives h and, where there is a projection head, g(h)."""

    def represent(images: tf.Tensor) -> dict[str, tf.Tensor]:
        features = encoder(images, training=False)
        if projection is None:
            return {"encoder": features}
        return {"encoder": features, "projection": projection(features, training=False)}

    return represent
