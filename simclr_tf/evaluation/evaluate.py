"""Evaluation of runs, exported encoders and fine-tuned classifiers."""

import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from simclr_tf.config import (
    CLASSIFIER_CONFIGS,
    DistillConfig,
    FinetuneConfig,
    PretrainConfig,
    TrainingPlan,
)
from simclr_tf.data import ImageSource
from simclr_tf.errors import UserError
from simclr_tf.evaluation.baselines import PCAEncoder
from simclr_tf.evaluation.features import Encoder, FeatureExtractor
from simclr_tf.evaluation.knn import KNN
from simclr_tf.evaluation.linear import Linear
from simclr_tf.evaluation.load_encoder import (
    FrozenEncoder,
    encoder_from_run,
    encoder_from_saved_model,
    untrained_encoder,
)
from simclr_tf.evaluation.logistic import Logistic
from simclr_tf.evaluation.options import EvalOptions
from simclr_tf.evaluation.protocol_runner import EncoderFactory, run_protocols
from simclr_tf.evaluation.protocols import EvaluationProtocol, FittedClassifier
from simclr_tf.evaluation.results import Evaluation, ResultWriter, make_evaluation
from simclr_tf.evaluation.splits import Splits, check_splits
from simclr_tf.evaluation.transformation_probes import check_probes, probe_transformations
from simclr_tf.runs.load import load_model
from simclr_tf.runs.results_file import Record
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.utils.files import check_output_path
from simclr_tf.utils.paths import printable, user_path

logger = logging.getLogger(__name__)


def evaluate_run(
    model_dir: str | Path,
    options: EvalOptions,
    *,
    train_supervised: Callable[[RunDir, Splits], Path] | None = None,
) -> list[Record]:
    """Evaluates the newest checkpoint of a run and writes each record when it is computed.

    Args:
        model_dir: the run directory.
        options: protocols, baselines and data; omitted data options default to the run's.
        train_supervised: trains the baseline `supervised` of a run on its data if necessary, and
            returns its run directory.

    Returns:
        The records in the order of computation.

    Raises:
        UserError: if the run, the data or the options are not usable.

    Example:
    >>> from simclr_tf.evaluation import EvalOptions, evaluate_run
    >>> options = EvalOptions(protocols="knn", baselines="pca")
    >>> records = evaluate_run("runs/first", options)  # doctest: +SKIP
    """
    run = RunDir(model_dir)
    config, plan = run.read_config()
    check_output_path(run.path, "model_dir")
    if options.save_classifier and isinstance(config, CLASSIFIER_CONFIGS):
        raise UserError(
            f"--save_classifier: {run.path} exports its own classifier. Fix: omit the option"
        )
    run_splits = Splits.labeled(config, plan)
    if run_splits.dataset != config.data.dataset and not options.dataset_names:
        logger.info(
            f"note: {config.data.dataset} has no labels: evaluating on {run_splits.dataset}, the "
            "--probe_dataset of the run"
        )
    trained = encoder_from_run(model_dir)
    supervised_records: list[Record] = []
    supervised_splits = run_splits.override(options, run_splits.dataset)
    if "supervised" in options.baseline_names:  # trained late, so it is checked early
        check_supervised_baseline(run, supervised_splits, options)

    def supervised() -> tuple[Encoder, str]:
        if train_supervised is None:
            raise ValueError("the baseline `supervised` requires train_supervised")
        path = train_supervised(run, supervised_splits)
        supervised_records.extend(
            evaluate_classifier(path, batch_size=options.eval_batch_size, results_run=run)
        )
        encoder = encoder_from_run(path)
        return encoder.encoder, encoder.fingerprint

    baselines = {"random": lambda: untrained_encoder(config), "supervised": supervised}
    records = _evaluate_encoders(trained, baselines, options, run_splits, run.path)
    return [*supervised_records, *records]


def evaluate_saved_model(
    encoder: str | Path, output: str | Path, options: EvalOptions
) -> list[Record]:
    """Evaluates an exported encoder and writes the records to `output`/evaluations.json.

    Args:
        encoder: a SavedModel of `simclr-tf export`.
        output: directory of the results.
        options: protocols, baselines and data.

    Returns:
        The records in the order of computation.

    Raises:
        UserError: if it is not a SavedModel of an image encoder, or the data are not usable.

    Example:
    >>> from simclr_tf.evaluation import EvalOptions, evaluate_saved_model
    >>> options = EvalOptions(dataset="shapes", protocols="knn")
    >>> export = "runs/first/export/780"
    >>> records = evaluate_saved_model(export, "results", options)  # doctest: +SKIP
    """
    output = user_path(output)
    check_output_path(output, "output")
    exported = encoder_from_saved_model(encoder)
    for baseline in ("random", "supervised"):
        if baseline in options.baseline_names:
            raise UserError(
                f"--baselines={baseline}: requires the architecture of the encoder, which an "
                "exported model does not contain. Fix: omit it, or evaluate a run with --model_dir"
            )
    # As a run at that image size stores images.
    splits = Splits("", "", "", storage_size=round(1.5 * exported.image_size))
    return _evaluate_encoders(exported, {}, options, splits, output)


def evaluate_classifier(
    model_dir: str | Path,
    *,
    batch_size: int = 256,
    results_run: RunDir | None = None,
    data: Mapping[str, Any] | None = None,
) -> list[Record]:
    """Evaluates the classifier of a fine-tuned, distilled or supervised run on its eval_split.

    Args:
        model_dir: the run directory.
        batch_size: images per call.
        results_run: run whose evaluations.json gets the record; None: the same run.
        data: data options that replace the run's, such as eval_split or data_dir.

    Returns:
        The record, in a list.

    Raises:
        UserError: if the run has no classifier, or the data are not usable.

    Example:
    >>> from simclr_tf.evaluation import evaluate_classifier
    >>> (record,) = evaluate_classifier("runs/tuned")  # doctest: +SKIP
    """
    run = RunDir(model_dir)
    config, plan = run.read_config()
    if not isinstance(config, CLASSIFIER_CONFIGS):
        raise UserError(
            f"{run.path}: expected a run with a classifier. "
            "Fix: choose a run of simclr-tf finetune or distill"
        )
    splits = Splits.from_config(dataclasses.replace(config.data, **(data or {})))
    test = open_test_split(splits, plan.class_names, with_labels=isinstance(config, FinetuneConfig))
    model = load_model(model_dir)
    extract = FeatureExtractor(model, config.augmentation.evaluation_size, batch_size)
    start = time.monotonic()
    logits = extract(test)
    evaluation = make_evaluation(
        splits.context(step=int(model.step.numpy())),
        logits.features,
        logits.labels,
        num_train=plan.num_examples,
        seconds=round(time.monotonic() - start, 3),
        **_protocol_and_setting(config, plan),
    )
    writer = ResultWriter((results_run or run).path)
    writer.add(evaluation, test.class_names or ())
    if results_run is None:
        writer.log_table()
    return writer.records


def make_protocols(options: EvalOptions) -> list[EvaluationProtocol]:
    """Returns the protocols of the options; `probes` is not one of them.

    >>> from simclr_tf.evaluation import EvalOptions, make_protocols
    >>> make_protocols(EvalOptions(protocols="knn", knn_k=20))
    [KNN(k=(20,), temperature=(0.1,))]
    """
    factories: dict[str, Callable[[], EvaluationProtocol]] = {
        "knn": lambda: KNN(options.k_values, options.temperatures),
        "logistic": lambda: Logistic(sweep=options.l2_sweep, solver=options.logistic_solver),
        "linear": lambda: Linear(
            options.linear_epochs,
            options.linear_batch_size,
            options.linear_learning_rate,
            cached=options.linear_features == "cached",
        ),
    }
    return [factories[name]() for name in options.protocol_names if name in factories]


def _evaluate_encoders(
    trained: FrozenEncoder,
    baselines: Mapping[str, EncoderFactory],
    options: EvalOptions,
    default_splits: Splits,
    directory: Path,
) -> list[Record]:
    """Evaluates an encoder and its baselines, after all datasets have been opened and checked."""
    baselines = {name: functools.cache(factory) for name, factory in baselines.items()}
    datasets = options.dataset_names or (default_splits.dataset,)
    all_splits = [default_splits.override(options, dataset) for dataset in datasets]
    evaluations = [
        _prepare_evaluation(trained, baselines, options, splits, directory) for splits in all_splits
    ]
    if options.save_classifier and all(train.multi_label for train, _ in evaluations):
        raise UserError(
            "--save_classifier: the images have several labels each. "
            "Fix: choose a dataset with one label per image"
        )
    writer = ResultWriter(directory)
    for _, results in evaluations:
        for result, class_names in results:
            writer.add(result, class_names)
            is_trained = "/" not in result.protocol
            if options.save_classifier and result.classifier is not None and is_trained:
                path = RunDir(directory).classifier_file
                metadata = (result.protocol, result.dataset, result.step)
                FittedClassifier(result.classifier, class_names, *metadata).save(path)
                logger.info(f"the {result.protocol} classifier is saved to {path}")
    writer.log_table()
    return writer.records


def _prepare_evaluation(
    trained: FrozenEncoder,
    baselines: Mapping[str, EncoderFactory],
    options: EvalOptions,
    splits: Splits,
    directory: Path,
) -> tuple[ImageSource, Iterator[tuple[Evaluation, tuple[str, ...]]]]:
    """Returns the training split, and an iterator of the evaluations with their class names."""
    train, test = splits.open_with_options(options)
    context = splits.context(
        image_size=trained.image_size,
        step=trained.step,
        batch_size=options.eval_batch_size,
        seed=options.seed,
        cache_dir=RunDir(directory).features_dir,
    )

    @functools.cache
    def make_pca() -> tuple[Encoder, str]:
        pca = PCAEncoder(train, context.image_size, context.batch_size, context.seed)
        if pca.warning:
            logger.warning(f"note: {pca.warning}")
        return pca, pca.fingerprint

    factories: dict[str, EncoderFactory] = {
        "": lambda: (trained.encoder, trained.fingerprint),
        "pca": make_pca,
        **baselines,
    }
    encoders = {name: factories[name] for name in ("", *options.baseline_names)}
    results: Iterator[Evaluation] = iter(())
    if protocols := make_protocols(options):
        results = run_protocols(encoders, train, test, protocols, context)
    if transformations := options.transformation_names:
        check_probes(train, test)

    def run() -> Iterator[tuple[Evaluation, tuple[str, ...]]]:
        counts = f"{train.num_examples} + {test.num_examples}"
        logger.info(f"evaluating on {counts} images of {printable(context.dataset)}")
        for result in results:
            yield result, tuple(train.class_names or ())
        for name, factory in encoders.items() if transformations else ():
            encoder, fingerprint = factory()
            if not name and trained.outputs_fn is not None:
                outputs_fn = trained.outputs_fn
                fingerprint += trained.head_fingerprint
            else:
                outputs_fn = functools.partial(_single_output, name, encoder)
            yield from probe_transformations(
                outputs_fn, train, test, transformations, context, fingerprint
            )

    return train, run()


def _single_output(name: str, encoder: Encoder, images: tf.Tensor) -> dict[str, tf.Tensor]:
    return {name: encoder(images, training=False)}


def open_test_split(
    splits: Splits, class_names: Sequence[str], *, with_labels: bool
) -> ImageSource:
    """Opens and checks the test split of a classifier, which was trained with or without labels."""
    train, test = splits.open()
    check_splits(train if with_labels else test, test, (), splits.context())
    if test.class_names != tuple(class_names):
        raise UserError(
            f"--dataset={splits.dataset}: its classes differ from those of the classifier. "
            "Fix: choose a dataset with the same classes"
        )
    return test


def check_supervised_baseline(run: RunDir, splits: Splits, options: EvalOptions) -> None:
    """Raises UserError if it cannot be trained; warns if it needs more memory than the run."""
    train, test = splits.open()
    check_splits(train, test, (), splits.context())
    if train.multi_label:
        raise UserError(
            f"--baselines=supervised: requires one label per image, and --dataset={splits.dataset} "
            "has several. Fix: omit the baseline"
        )
    if options.label_fraction < 1 or options.labels_per_class:
        raise UserError(
            "--baselines=supervised: is trained with all labels. "
            "Fix: omit it, or --label_fraction and --labels_per_class"
        )
    config, plan = run.read_config()
    batch = config.optimization.train_batch_size
    if train.num_examples < batch:
        raise UserError(
            f"--baselines=supervised: requires one batch of the run, {batch} images, and "
            f"--train_split={splits.train_split} has {train.num_examples}. "
            "Fix: choose a larger split, or omit the baseline"
        )
    memory_savers = [f"{plan.num_replicas} replicas"] if plan.num_replicas > 1 else []
    if config.optimization.microbatch_size:
        memory_savers.append(f"microbatches of {config.optimization.microbatch_size}")
    baseline = RunDir(run.supervised_dir(splits.train_split))
    if memory_savers and baseline.latest_step() < plan.total_steps:
        logger.warning(
            f"note: --baselines=supervised trains on whole batches of {batch} images on one device "
            f"and may exceed its memory: the run used {' and '.join(memory_savers)}"
        )


def check_runs(model_dirs: Sequence[str | Path]) -> None:
    """Raises UserError if a directory is not a run, or has no checkpoint."""
    for path in model_dirs:
        run = RunDir(path)
        run.read_config()
        run.checkpoint()


def _protocol_and_setting(config: PretrainConfig, plan: TrainingPlan) -> dict[str, str]:
    """Returns the protocol of a run's classifier and its differences from the default training."""
    if isinstance(config, DistillConfig):
        distillation = config.distillation
        parts = [f"T={distillation.distill_temperature:g}"]
        if plan.num_labels:
            parts.append(f"alpha={distillation.distill_alpha:g}, {plan.num_labels} labels")
        return {"protocol": "distill", "setting": ", ".join(parts)}
    assert isinstance(config, FinetuneConfig)
    finetuning, parts = config.finetuning, []
    if (block := finetuning.fine_tune_after_block) >= 0:
        parts.append("head only" if block == 4 else f"after block {block}")
    if finetuning.ft_proj_selector:
        parts.append(f"from layer {finetuning.ft_proj_selector} of the projection head")
    protocol = "finetune/supervised" if finetuning.from_scratch else "finetune"
    return {"protocol": protocol, "setting": ", ".join(parts)}
