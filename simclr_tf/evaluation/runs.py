"""Evaluation of a run directory or of an exported encoder."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.build import build_encoder
from simclr_tf.config import Data, FinetuneConfig
from simclr_tf.data import Source, open_source
from simclr_tf.data.subset import choose_labelled
from simclr_tf.errors import UserError
from simclr_tf.evaluation.baselines import PCAEncoder
from simclr_tf.evaluation.classifier import FittedClassifier
from simclr_tf.evaluation.evaluate import (
    Evaluation,
    Representation,
    Setting,
    check_splits,
    evaluate,
    judged,
)
from simclr_tf.evaluation.features import Encoder, FeatureExtractor, weights_identity
from simclr_tf.evaluation.protocols import EvaluationProtocol
from simclr_tf.evaluation.records import Recorder
from simclr_tf.evaluation.transfer import transfer_set
from simclr_tf.evaluation.transformations import (
    Probed,
    Represent,
    probe_transformations,
)
from simclr_tf.run import Run, load

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Splits:
    """The labelled data of an evaluation: what is learnt from, and what is judged on."""

    dataset: str
    train_split: str
    test_split: str
    data_dir: str = ""
    storage_size: int | None = None
    skip_unreadable: bool = False
    metric: str = "top-1"

    @classmethod
    def of(cls, data: Data) -> "Splits":
        """Those that a run's data settings name."""
        return cls(
            data.dataset,
            data.train_split,
            data.eval_split,
            data.data_dir,
            data.storage_size,
            data.skip_unreadable,
        )

    def open(self) -> tuple[Source, Source]:
        """Opens both splits.

        Raises:
            UserError: if one is not to be had.
        """
        train, test = (
            open_source(
                self.dataset,
                split,
                data_dir=self.data_dir or None,
                storage_size=self.storage_size,
                skip_unreadable=self.skip_unreadable,
            )
            for split in (self.train_split, self.test_split)
        )
        return train, test


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be measured, whatever the encoder.

    Attributes:
        protocols: such as KNN() and Logistic().
        baselines: any of BASELINES.
        transformations: any of TRANSFORMATIONS: told from the encoder's and the head's outputs.
        datasets: labelled datasets; empty: the run's own.
        train_split, test_split, metric: for all of them; "": the run's for its own dataset, else
            those that `transfer_set` knows.
        data_dir: where TFDS datasets are prepared; "": the run's.
        skip_unreadable: leave out files that are not images.
        label_fraction, labels_per_class: how many of the labels are learnt from, class by class.
        save_classifier: keep the one fitted head, of the one protocol and dataset that has it.
        batch_size: images per call of an encoder.
        seed: of the choice of labels and of the protocols' own draws.
    """

    protocols: Sequence[EvaluationProtocol] = ()
    baselines: Sequence[str] = ()
    transformations: Sequence[str] = ()
    datasets: Sequence[str] = ()
    train_split: str = ""
    test_split: str = ""
    metric: str = ""
    data_dir: str = ""
    skip_unreadable: bool = False
    label_fraction: float = 1.0
    labels_per_class: int = 0
    save_classifier: bool = False
    batch_size: int = 256
    seed: int = 0

    def splits(self, dataset: str, own: Splits) -> Splits:
        """Returns the splits of a dataset: what was asked for, the run's, or the usual ones."""
        usual = own if dataset == own.dataset else None
        known = transfer_set(dataset)
        return dataclasses.replace(
            own,
            dataset=dataset,
            train_split=self.train_split or (usual or known).train_split or "train",
            test_split=self.test_split or (usual or known).test_split or "test",
            metric=self.metric or known.metric,
            data_dir=self.data_dir or own.data_dir,
            skip_unreadable=self.skip_unreadable or own.skip_unreadable,
        )

    def open(self, splits: Splits) -> tuple[Source, Source]:
        """Opens both splits, train's down to the labels that may be learnt from."""
        train, test = splits.open()
        if train.class_names and (self.label_fraction < 1 or self.labels_per_class):
            positions = choose_labelled(
                train.labels(),
                train.class_names,
                fraction=self.label_fraction,
                per_class=self.labels_per_class,
                seed=self.seed,
            )
            train = train.subset(positions)
        return train, test


def check_evaluation(data: Data, protocols: Sequence[EvaluationProtocol]) -> None:
    """Checks what `evaluate_run` will need, before the run that it is to follow.

    Raises:
        UserError: if the splits that `data` names cannot be evaluated on.
    """
    splits = Splits.of(data)
    train, test = splits.open()
    check_splits(train, test, protocols, _setting(splits))


def evaluate_run(
    model_dir: str | Path,
    request: Request,
    *,
    train_supervised: Callable[[Run, str], Path] | None = None,
    say: Say = print,
) -> None:
    """Evaluates a run's newest checkpoint; what is left empty is taken from the run.

    Every figure goes into the run's evaluations.json as soon as it is known.

    Args:
        model_dir: the run directory.
        request: what is measured.
        train_supervised: trains the baseline `supervised` of a run on a split, where it is not
            trained yet, and returns its run directory.
        say: takes the lines for the user.

    Raises:
        UserError: if the run, the data or the settings do not allow it.
    """
    run = Run(Path(model_dir))
    config, _ = run.read()
    own = Splits.of(config.data)
    model = load(model_dir)
    head = getattr(model, "projection_head", None)
    precision = config.optimization.precision

    def trained() -> tuple[keras.Model, str]:
        return model.encoder, f"{weights_identity(model.encoder.variables)} {precision}"

    def untrained() -> tuple[keras.Model, str]:
        keras.utils.set_random_seed(config.optimization.seed)  # the run's own first weights
        encoder = build_encoder(config.encoder)
        return encoder, weights_identity(encoder.variables)

    def supervised() -> tuple[keras.Model, str]:
        if train_supervised is None:
            raise UserError("--baselines=supervised needs a run that can be trained")
        place = train_supervised(run, request.splits(own.dataset, own).train_split)
        evaluate_classifier(place, batch_size=request.batch_size, into=run, say=say)
        encoder = load(place).encoder
        return encoder, f"{weights_identity(encoder.variables)} {precision}"

    _evaluate(
        {"": trained, "random": untrained, "supervised": supervised},
        request,
        own,
        run.path,
        say,
        projection=head,
        image_size=config.views.image_size,
        step=int(model.step.numpy()),
    )


def evaluate_saved_model(
    encoder: str | Path,
    output: str | Path,
    request: Request,
    *,
    say: Say = print,
) -> None:
    """Evaluates an exported encoder; the figures go into `output`/evaluations.json.

    Raises:
        UserError: if it is no SavedModel of an image encoder, or the data do not allow it.
    """
    try:
        loaded = tf.saved_model.load(str(encoder))
        shape = loaded.signatures["serving_default"].structured_input_signature[1]["images"].shape
    except (OSError, KeyError, AttributeError) as error:
        raise UserError(
            f"--encoder={encoder}: not a SavedModel of an encoder ({str(error).splitlines()[0]}); "
            "name a directory that simclr-tf export wrote"
        ) from None
    for baseline in ("random", "supervised"):
        if baseline in request.baselines:
            raise UserError(
                f"--baselines={baseline} needs the encoder's architecture, which an exported "
                "model does not tell; leave it out or evaluate a run with --model_dir"
            )
    own = Splits("", "", "", storage_size=round(1.5 * shape[1]))
    _evaluate(
        {"": lambda: (loaded, weights_identity(loaded.variables))},
        request,
        own,
        Path(output),
        say,
        image_size=shape[1],
        step=0,
    )


def evaluate_classifier(
    model_dir: str | Path,
    *,
    batch_size: int = 256,
    into: Run | None = None,
    say: Say = print,
) -> None:
    """Measures a fine-tuned (or supervised) run's own classifier on its eval_split.

    Args:
        model_dir: the run directory.
        batch_size: images per call.
        into: the run in whose evaluations.json the figure stands; None: its own.
        say: takes the lines for the user.

    Raises:
        UserError: if it is no such run, or the data do not allow it.
    """
    run = Run(Path(model_dir))
    config, plan = run.read()
    if not isinstance(config, FinetuneConfig):
        raise UserError(f"{run.path} is no fine-tuned run: name one that simclr-tf finetune wrote")
    splits = Splits.of(config.data)
    train, test = splits.open()
    check_splits(train, test, (), _setting(splits))
    model = load(model_dir)
    extract = FeatureExtractor(model, config.views.image_size, batch_size)
    setting = _setting(splits, step=int(model.step.numpy()))
    started = time.monotonic()
    logits = extract(test)
    evaluation = judged(
        setting,
        logits.features,
        logits.labels,
        protocol="finetune/supervised" if config.finetuning.from_scratch else "finetune",
        num_train=plan.num_examples,
        seconds=round(time.monotonic() - started, 3),
        setting=_finetuning(config),
    )
    recorder = Recorder((into or run).path, say)
    recorder.add(evaluation, test.class_names or ())
    if into is None:
        recorder.close()


def _evaluate(
    encoders: Mapping[str, Callable],
    request: Request,
    own: Splits,
    directory: Path,
    say: Say,
    projection: keras.Model | None = None,
    **rest: Any,
) -> None:
    """Evaluates on every dataset, all of which are opened and checked before the first figure."""
    jobs = [
        _Job(request, request.splits(dataset, own), directory, encoders, projection, say, rest)
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


class _Job:
    """The evaluation on one dataset: checked when it is made, measured when it is asked."""

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
        self._setting = _setting(
            splits,
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


def _finetuning(config: FinetuneConfig) -> str:
    """What tells a way of fine-tuning from the plain one."""
    settings = config.finetuning
    words = []
    if settings.fine_tune_after_block >= 0:
        words.append(
            "head only"
            if settings.fine_tune_after_block == 4
            else f"after block {settings.fine_tune_after_block}"
        )
    if settings.ft_proj_selector:
        words.append(f"from layer {settings.ft_proj_selector} of the projection head")
    return ", ".join(words)


def _setting(splits: Splits, **rest: Any) -> Setting:
    return Setting(
        splits.dataset, splits.train_split, splits.test_split, metric=splits.metric, **rest
    )
