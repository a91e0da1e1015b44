"""The trained encoder and its baselines, compared on one dataset after the other."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from simclr_tf.errors import UserError
from simclr_tf.evaluation.baselines import PCAEncoder
from simclr_tf.evaluation.evaluate import Evaluation, Representation, evaluate, judged
from simclr_tf.evaluation.features import Encoder
from simclr_tf.evaluation.fitted_classifier import FittedClassifier
from simclr_tf.evaluation.options import Request, Splits
from simclr_tf.evaluation.results import Recorder
from simclr_tf.evaluation.transformation_probes import (
    Probed,
    Represent,
    check_probes,
    probe_transformations,
)
from simclr_tf.runs.run_dir import RunDir

Say = Callable[[str], None]
Make = Callable[[], tuple[Encoder, str]]


def compare(
    encoders: Mapping[str, Make],
    request: Request,
    own: Splits,
    directory: Path,
    say: Say,
    represent: tuple[Represent, str] | None = None,
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
        represent: for the probes of h and g(h) what the trained encoder and its projection head
            make of images, and the identity of the head; None: the encoder alone.
        rest: of `Setting`: image_size and step.

    Raises:
        UserError: if the data or the settings do not allow it.
    """
    once: dict[str, Make] = {name: functools.cache(make) for name, make in encoders.items()}
    jobs = [
        _Comparison(request, request.splits(dataset, own), directory, once, represent, say, rest)
        for dataset in request.datasets or (own.dataset,)
    ]
    if request.save_classifier and all(job.multi_label for job in jobs):
        raise UserError(
            "--save_classifier: its head has one class per image; name a dataset whose images "
            "have one label each"
        )
    recorder = Recorder(directory, say)
    for job in jobs:
        names = job.class_names
        for evaluation in job.figures():
            recorder.add(evaluation, names)
            head = evaluation.classifier
            if request.save_classifier and head is not None and "/" not in evaluation.protocol:
                about = (evaluation.protocol, evaluation.dataset, evaluation.step)
                path = RunDir(directory).classifier_file
                FittedClassifier(head, names, *about).save(path)
                say(f"the classifier of {evaluation.protocol} is kept in {path}")
        for evaluation, ways in job.probes():
            recorder.add(evaluation, ways)
    recorder.close()


class _Comparison:
    """Encoders compared on one dataset: checked when it is made, measured when it is asked."""

    def __init__(
        self,
        request: Request,
        splits: Splits,
        directory: Path,
        encoders: Mapping[str, Make],
        represent: tuple[Represent, str] | None,
        say: Say,
        rest: Mapping[str, Any],
    ):
        self._request, self._say, self._represent = request, say, represent
        self._makers: dict[str, Make] = {**encoders, "pca": functools.cache(self._pca)}
        self._train, self._test = request.open(splits)
        self.class_names = tuple(self._train.class_names or ())
        self.multi_label = self._train.multi_label
        self._setting = splits.setting(
            batch_size=request.batch_size,
            seed=request.seed,
            cache_dir=RunDir(directory).features_dir,
            **rest,
        )
        self._figures: Iterator[Evaluation] = iter(())
        if request.protocols:
            self._figures = evaluate(
                [Representation(name, self._makers[name]) for name in ("", *request.baselines)],
                self._train,
                self._test,
                request.protocols,
                self._setting,
            )
        if request.transformations:
            check_probes(self._train, self._test)

    def figures(self) -> Iterator[Evaluation]:
        """Yield what the protocols say."""
        counts = f"{self._train.num_examples} + {self._test.num_examples}"
        self._say(f"evaluating on {counts} images of {self._setting.dataset}")
        yield from self._figures

    def probes(self) -> Iterator[tuple[Evaluation, tuple[str, ...]]]:
        """Yield what the probes of transformations say, with the names of the ways."""
        for name in ("", *self._request.baselines) if self._request.transformations else ():
            for probed in self._probed(name):
                protocol = f"probe:{probed.transformation}"
                if probed.representation:
                    protocol += f"/{probed.representation}"
                evaluation = judged(
                    dataclasses.replace(self._setting, metric="top-1"),
                    probed.scores,
                    probed.labels,
                    protocol=protocol,
                    num_train=probed.num_train,
                    seconds=probed.seconds,
                    setting=self._setting.words(),
                    notice=probed.notice,
                )
                yield evaluation, probed.class_names

    def _probed(self, name: str) -> Iterator[Probed]:
        encoder, identity = self._makers[name]()

        if not name and self._represent is not None:
            represent, of_head = self._represent
            identity += of_head
        else:
            represent = lambda images: {name: encoder(images, training=False)}  # noqa: E731
        setting = self._setting
        return probe_transformations(
            represent,
            self._train,
            self._test,
            setting.image_size,
            self._request.transformations,
            batch_size=setting.batch_size,
            seed=setting.seed,
            cache_dir=setting.cache_dir,
            identity=identity,
        )

    def _pca(self) -> tuple[Encoder, str]:
        encoder = PCAEncoder(
            self._train, self._setting.image_size, self._request.batch_size, self._request.seed
        )
        if encoder.notice:
            self._say(f"note: {encoder.notice}")
        return encoder, encoder.identity
