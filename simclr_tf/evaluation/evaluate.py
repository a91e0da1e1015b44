"""Protocols × (the trained encoder and its baselines): every figure as soon as it is known."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simclr_tf.config import (
    CLASSIFIER_CONFIGS,
    DistillConfig,
    FinetuneConfig,
    PretrainConfig,
    TrainingPlan,
)
from simclr_tf.data import ImageSource
from simclr_tf.data.base import content_hash
from simclr_tf.errors import UserError
from simclr_tf.evaluation.baselines import PCAEncoder
from simclr_tf.evaluation.features import Encoder, FeatureExtractor, Features, kept
from simclr_tf.evaluation.load_encoder import (
    FrozenEncoder,
    encoder_from_run,
    encoder_from_saved_model,
    untrained_encoder,
)
from simclr_tf.evaluation.options import EvalOptions
from simclr_tf.evaluation.protocols import (
    EvaluationProtocol,
    FittedClassifier,
    Prediction,
    ProtocolInputs,
)
from simclr_tf.evaluation.results import EvalContext, Evaluation, ResultWriter, make_evaluation
from simclr_tf.evaluation.splits import Splits, check_splits
from simclr_tf.evaluation.transformation_probes import (
    OutputsFn,
    ProbeResult,
    check_probes,
    probe_transformations,
)
from simclr_tf.runs.load import load_model
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.utils.files import check_output_path

BASELINES = ("pca", "random", "supervised")


@dataclass(frozen=True)
class Representation:
    """An encoder among those that are compared; made only when its turn comes.

    Attributes:
        name: "" for the trained encoder, else that of a baseline.
        make: returns (encoder, identity): the encoder is called as encoder(images float32
            [B, S, S, 3] in [0, 1], training=False); the identity, a string, changes with whatever
            changes its features.
    """

    name: str
    make: Callable[[], tuple[Encoder, str]]


def evaluate(
    representations: Sequence[Representation],
    train: ImageSource,
    test: ImageSource,
    protocols: Sequence[EvaluationProtocol],
    setting: EvalContext,
) -> Iterator[Evaluation]:
    """Check everything that can be checked, then yield one Evaluation after the other.

    Each representation's features are extracted once and shared by the protocols. A protocol is
    named `knn` for the trained encoder, `knn/pca` and so on for baselines. With a `cache_dir` what
    a protocol answered is kept there beside the features, and found again.

    Raises:
        UserError: at once, where settings or splits do not go together; while iterating, where
            images or features turn out unusable.
    """
    num_classes = len(check_splits(train, test, protocols, setting))

    def run() -> Iterator[Evaluation]:
        for representation in representations:
            encoder, identity = representation.make()
            started = time.monotonic()
            extract = FeatureExtractor(
                encoder, setting.image_size, setting.batch_size, setting.cache_dir, identity
            )
            learnt = extract(train)
            if learnt.labels.ndim == 2:
                learnt = Features(learnt.features, np.maximum(learnt.labels, 0))
            task = ProtocolInputs(
                learnt,
                extract(test),
                num_classes,
                encoder=encoder,
                source=train,
                image_size=setting.image_size,
                scratch=extract.cache_path(train),
                seed=setting.seed,
            )
            extraction = time.monotonic() - started
            for protocol in protocols:
                place = None
                if task.scratch is not None:
                    key = content_hash(protocol, test.fingerprint(), num_classes, setting.seed)
                    place = task.scratch / f"{protocol.name}-{key[:16]}.npz"
                predictions, seconds = _answers(protocol, task, place, extraction)
                name = representation.name
                for prediction in predictions:
                    yield make_evaluation(
                        setting,
                        prediction.scores,
                        task.test.labels,
                        protocol=f"{protocol.name}/{name}" if name else protocol.name,
                        num_train=task.train.num_examples,
                        seconds=seconds,
                        setting=setting.words(prediction.setting),
                        notice=prediction.notice,
                        classifier=prediction.classifier,
                    )

    return run()


def _answers(
    protocol: EvaluationProtocol, task: ProtocolInputs, place: Path | None, extraction: float
) -> tuple[list[Prediction], float]:
    """Return a protocol's predictions and the seconds that they took, perhaps in another call."""

    def compute() -> dict[str, np.ndarray]:
        started = time.monotonic()
        predictions = protocol.predict(task)
        seconds = extraction + time.monotonic() - started
        arrays = {
            f"{number} {name}": array
            for number, prediction in enumerate(predictions)
            for name, array in prediction.arrays().items()
        }
        return {"seconds": np.array(round(seconds, 3)), **arrays}

    found: dict[str, dict[str, np.ndarray]] = {}
    arrays = dict(kept(place, compute))
    seconds = float(arrays.pop("seconds"))
    for name, array in arrays.items():
        number, _, part = name.partition(" ")
        found.setdefault(number, {})[part] = array
    return [Prediction.of(parts) for parts in found.values()], seconds


Say = Callable[[str], None]
Make = Callable[[], tuple[Encoder, str]]


def evaluate_encoders(
    encoders: Mapping[str, Make],
    request: EvalOptions,
    own: Splits,
    directory: Path,
    say: Say,
    represent: tuple[OutputsFn, str] | None = None,
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
        rest: of `EvalContext`: image_size and step.

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
    recorder = ResultWriter(directory, say)
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
        request: EvalOptions,
        splits: Splits,
        directory: Path,
        encoders: Mapping[str, Make],
        represent: tuple[OutputsFn, str] | None,
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
                evaluation = make_evaluation(
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

    def _probed(self, name: str) -> Iterator[ProbeResult]:
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


def evaluate_run(
    model_dir: str | Path,
    request: EvalOptions,
    *,
    train_supervised: Callable[[RunDir, Splits], Path] | None = None,
    say: Say = print,
) -> None:
    """Evaluates a run's newest checkpoint; what is left empty is taken from the run.

    Every figure goes into the run's evaluations.json as soon as it is known.

    Args:
        model_dir: the run directory.
        request: what is measured.
        train_supervised: trains the baseline `supervised` of a run on its data, where it is not
            trained yet, and returns its run directory.
        say: takes the lines for the user.

    Raises:
        UserError: if the run, the data or the settings do not allow it.
    """
    run = RunDir(Path(model_dir))
    config, _ = run.read_config()
    check_output_path(run.path, "model_dir")
    if request.save_classifier and isinstance(config, CLASSIFIER_CONFIGS):
        raise UserError(
            f"--save_classifier: {run.path} exports its own classifier; leave the flag out"
        )
    own = Splits.from_config(config.data)
    trained = encoder_from_run(model_dir)

    labelled = request.splits(own.dataset, own)
    if "supervised" in request.baselines:  # is trained late: what it needs is looked at now
        _check_supervised(run, labelled, request, say)

    def supervised() -> tuple[Encoder, str]:
        assert train_supervised is not None
        place = train_supervised(run, labelled)
        evaluate_classifier(place, batch_size=request.batch_size, into=run, say=say)
        with_labels = encoder_from_run(place)
        return with_labels.encoder, with_labels.fingerprint

    evaluate_encoders(
        {
            "": lambda: (trained.encoder, trained.fingerprint),
            "random": lambda: untrained_encoder(config),
            "supervised": supervised,
        },
        request,
        own,
        run.path,
        say,
        represent=_represent(trained),
        image_size=trained.image_size,
        step=trained.step,
    )


def evaluate_saved_model(
    encoder: str | Path,
    output: str | Path,
    request: EvalOptions,
    *,
    say: Say = print,
) -> None:
    """Evaluates an exported encoder; the figures go into `output`/evaluations.json.

    Raises:
        UserError: if it is no SavedModel of an image encoder, or the data do not allow it.
    """
    check_output_path(Path(output), "output")
    exported = encoder_from_saved_model(encoder)
    for baseline in ("random", "supervised"):
        if baseline in request.baselines:
            raise UserError(
                f"--baselines={baseline} needs the encoder's architecture, which an exported "
                "model does not tell; leave it out or evaluate a run with --model_dir"
            )
    evaluate_encoders(
        {"": lambda: (exported.encoder, exported.fingerprint)},
        request,
        Splits.for_exported_model(exported.image_size),
        Path(output),
        say,
        represent=_represent(exported),
        image_size=exported.image_size,
        step=exported.step,
    )


def evaluate_classifier(
    model_dir: str | Path,
    *,
    batch_size: int = 256,
    into: RunDir | None = None,
    say: Say = print,
    data: Mapping[str, Any] | None = None,
) -> None:
    """Measures the own classifier of a fine-tuned, distilled or supervised run on its eval_split.

    Args:
        model_dir: the run directory.
        batch_size: images per call.
        into: the run in whose evaluations.json the figure stands; None: its own.
        say: takes the lines for the user.
        data: settings of config.Data in place of the run's, such as eval_split or data_dir.

    Raises:
        UserError: if it is no such run, or the data do not allow it.
    """
    run = RunDir(Path(model_dir))
    config, plan = run.read_config()
    if not isinstance(config, CLASSIFIER_CONFIGS):
        raise UserError(
            f"{run.path} has no classifier of its own: name a run of simclr-tf finetune or distill"
        )
    splits = Splits.from_config(dataclasses.replace(config.data, **(data or {})))
    test = open_test_split(splits, plan.class_names, with_labels=isinstance(config, FinetuneConfig))
    model = load_model(model_dir)
    extract = FeatureExtractor(model, config.augmentation.image_size, batch_size)
    setting = splits.setting(step=int(model.step.numpy()))
    started = time.monotonic()
    logits = extract(test)
    evaluation = make_evaluation(
        setting,
        logits.features,
        logits.labels,
        num_train=plan.num_examples,
        seconds=round(time.monotonic() - started, 3),
        **_trained(config, plan),
    )
    recorder = ResultWriter((into or run).path, say)
    recorder.add(evaluation, test.class_names or ())
    if into is None:
        recorder.close()


def open_test_split(
    splits: Splits, class_names: Sequence[str], *, with_labels: bool
) -> ImageSource:
    """Opens the images that a classifier of these classes is judged on.

    Args:
        splits: whose test split it is.
        class_names: of the classifier's logits.
        with_labels: whether it has learnt from the labels of the train split.

    Raises:
        UserError: the labels are not such that it can be judged by them.
    """
    train, test = splits.open()
    check_splits(train if with_labels else test, test, (), splits.setting())
    if test.class_names != tuple(class_names):
        raise UserError(
            f"--dataset={splits.dataset} has other classes than those that the classifier was "
            "trained with; name a dataset of these"
        )
    return test


def _represent(encoder: FrozenEncoder) -> tuple[OutputsFn, str] | None:
    return None if encoder.outputs_fn is None else (encoder.outputs_fn, encoder.head_fingerprint)


def _check_supervised(run: RunDir, splits: Splits, request: EvalOptions, say: Say) -> None:
    """Raises UserError if it cannot be trained; says so where it takes more memory than the run."""
    train, test = splits.open()
    check_splits(train, test, (), splits.setting())
    if train.multi_label:
        raise UserError(
            f"--baselines=supervised: the images of --dataset={splits.dataset} have several labels "
            "each, and it is trained with one; leave it out"
        )
    if request.label_fraction < 1 or request.labels_per_class:
        raise UserError(
            "--baselines=supervised learns from all labels, which --label_fraction and "
            "--labels_per_class withhold; leave one of them out"
        )
    config, plan = run.read_config()
    batch, pieces = config.optimization.train_batch_size, config.optimization.microbatch_size
    if train.num_examples < batch:
        raise UserError(
            f"--baselines=supervised: trains in the run's batches of {batch} images, and "
            f"--train_split={splits.train_split} has {train.num_examples}; take a larger split or "
            "leave it out"
        )
    place = run.supervised_dir(splits.train_split)
    if (pieces or plan.num_replicas > 1) and RunDir(place).latest_step() < plan.total_steps:
        how = [f"on {plan.num_replicas} replicas"] if plan.num_replicas > 1 else []
        how += [f"in pieces of {pieces}"] if pieces else []
        say(
            f"note: --baselines=supervised trains on batches of {batch} images at once on one "
            f"device, which may not have the memory: the run took them {' '.join(how)}"
        )


def check_runs(model_dirs: Sequence[str | Path]) -> None:
    """Raises UserError if one of several is no run, or holds no checkpoint."""
    for path in model_dirs:
        run = RunDir(Path(path))
        run.read_config()
        run.checkpoint()


def _trained(config: PretrainConfig, plan: TrainingPlan) -> dict[str, str]:
    """What a run's own classifier is called, and what tells its way of training from the plain."""
    if isinstance(config, DistillConfig):
        settings = config.distillation
        words = [f"T={settings.distill_temperature:g}"]
        if plan.num_labels:
            words.append(f"alpha={settings.distill_alpha:g}, {plan.num_labels} labels")
        return {"protocol": "distill", "setting": ", ".join(words)}
    assert isinstance(config, FinetuneConfig)
    finetuning, words = config.finetuning, []
    if finetuning.fine_tune_after_block >= 0:
        words.append(
            "head only"
            if finetuning.fine_tune_after_block == 4
            else f"after block {finetuning.fine_tune_after_block}"
        )
    if finetuning.ft_proj_selector:
        words.append(f"from layer {finetuning.ft_proj_selector} of the projection head")
    protocol = "finetune/supervised" if finetuning.from_scratch else "finetune"
    return {"protocol": protocol, "setting": ", ".join(words)}
