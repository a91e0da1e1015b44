"""Training from Python: pretrain, finetune, distill."""

import logging
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from simclr_tf.api.run import Run
from simclr_tf.api.signature import takes_options
from simclr_tf.api.training_options import (
    DISTILL_OPTIONS,
    FINETUNE_OPTIONS,
    PRETRAIN_OPTIONS,
    Options,
    RunOptions,
    distill_config,
    finetune_config,
    pretrain_config,
)
from simclr_tf.config import DistillConfig, PretrainConfig
from simclr_tf.errors import UserError
from simclr_tf.option_groups import Distribution
from simclr_tf.options import make_group
from simclr_tf.runs.run_dir import RunDir, recorded_command

if TYPE_CHECKING:
    import tf_keras as keras

    from simclr_tf.training.distribution import DistributionContext

logger = logging.getLogger(__name__)

PathLike = str | os.PathLike[str]

# Options that select the images of the evaluation at the end.
_EVAL_DATA = ("dataset", "data_dir", "eval_split", "skip_unreadable")


@takes_options(*PRETRAIN_OPTIONS)
def pretrain(
    model_dir: PathLike = "",
    *,
    dataset: Any = "",
    labels: Any = None,
    encoder: "str | keras.Model" = "resnet",
    callbacks: Sequence["keras.callbacks.Callback"] = (),
    **options: Any,
) -> Run:
    """Pretrains an encoder with SimCLR on images without labels.

    Writes a run directory: config.json, metrics.jsonl, checkpoints/ and tensorboard/. The same call
    again resumes an interrupted run.

    Example:
        >>> import simclr_tf as st
        >>> run = st.pretrain(  # doctest: +SKIP
        ...     "runs/photos", dataset="folder:photos", image_size=96, resnet_depth=18
        ... )
        >>> run.metrics[-1]["loss"]  # doctest: +SKIP
        4.1

    Args:
        model_dir: Run directory, created if it does not exist.
        dataset: TFDS name, `folder:PATH` (images at any depth), `shapes` (built in), uint8 images
            `[N, H, W, 3]`, or a finite `tf.data.Dataset` of such images.
        labels: int `[N]` from 0, for an array of images; for another dataset `auto`, its labels
            (for a folder those of its class folders), or `none`.
        encoder: `resnet`, `keras_cv:PRESET`, or a functional `keras.Model`, images → `[N, D]`,
            which is trained from its weights. The run stores its architecture.
        callbacks: Keras callbacks, called after the run's own. The run is one Keras epoch, so use
            the batch hooks.

    Returns:
        The run with its trained model. With several worker processes every worker gets it.

    Raises:
        SystemExit: 143 after SIGTERM, 130 after SIGINT, with a checkpoint of the last step.
    """
    options |= {"model_dir": model_dir, "dataset": dataset, "labels": labels}
    custom_encoder = None if isinstance(encoder, str | os.PathLike) else encoder
    if custom_encoder is None:
        options["encoder"] = encoder
    config, devices = pretrain_config(options), make_group(Distribution, options)
    run = make_group(RunOptions, options)

    from simclr_tf.evaluation.evaluate import evaluate_run, make_protocols
    from simclr_tf.evaluation.options import EvalOptions
    from simclr_tf.evaluation.splits import Splits, check_evaluation
    from simclr_tf.exporter.export_run import export_run
    from simclr_tf.training import tasks

    if run.mode == "train_then_eval":
        check_evaluation(Splits.labeled(config.resolve()), make_protocols(EvalOptions()))
    trained = _train(
        tasks.pretrain, config, run, devices, options, callbacks=callbacks, encoder=custom_encoder
    )
    if run.mode != "train" and trained.is_chief:
        data = {}
        if run.mode == "eval":  # otherwise the run has just stored them
            saved = vars(trained.config.data)
            changed = {name for name, value in vars(config.data).items() if value != saved[name]}
            names = changed & {*_EVAL_DATA, "train_split"} & set(options)
            data = {name: options[name] for name in names}
        evaluate_run(run.model_dir, EvalOptions(**data, eval_batch_size=run.eval_batch_size))
        export_run(run.model_dir)
    return trained


@takes_options(*FINETUNE_OPTIONS)
def finetune(
    model_dir: PathLike = "",
    *,
    checkpoint: PathLike = "",
    callbacks: Sequence["keras.callbacks.Callback"] = (),
    **options: Any,
) -> Run:
    """Fine-tunes a pretrained encoder and a new classifier with labels.

    Starts from the encoder of a run, or from the first layers of its projection head, and uses all
    labels or a class-balanced fraction of them. Omitted data and architecture options are those of
    the checkpoint's run; another dataset comes with its standard splits. At the end, the accuracy
    on `eval_split` is measured, and encoder and classifier are exported.

    Example:
        >>> import simclr_tf as st
        >>> run = st.finetune(  # doctest: +SKIP
        ...     "runs/photos-10percent", checkpoint="runs/photos", label_fraction=0.1
        ... )
        >>> run.evaluations[-1]["top1"]  # doctest: +SKIP
        0.81

    Args:
        model_dir: Run directory, created if it does not exist.
        checkpoint: Run whose weights to start from. Without it, `from_scratch=True` is needed.
        callbacks: Keras callbacks, called after the run's own.

    Returns:
        The run with its trained classifier.

    Raises:
        SystemExit: 143 after SIGTERM, 130 after SIGINT, with a checkpoint of the last step.
    """
    options |= {"model_dir": model_dir, "checkpoint": checkpoint}
    run = make_group(RunOptions, {"mode": "train_then_eval"} | options)
    config, devices = finetune_config(options), make_group(Distribution, options)

    from simclr_tf.evaluation.splits import Splits, check_evaluation
    from simclr_tf.training import tasks

    if run.mode == "train_then_eval":
        check_evaluation(Splits.from_config(config.resolve().data), ())
    fit_batch = "train_batch_size" not in options
    trained = _train(
        tasks.finetune, config, run, devices, options, callbacks=callbacks, fit_batch=fit_batch
    )
    if trained.is_chief:
        _evaluate_and_export(run, options)
    return trained


@takes_options(*DISTILL_OPTIONS)
def distill(
    model_dir: PathLike = "",
    *,
    teacher: PathLike = "",
    callbacks: Sequence["keras.callbacks.Callback"] = (),
    **options: Any,
) -> Run:
    """Distills a classifier into an encoder of any size with unlabeled images.

    The teacher is a fine-tuned run or an exported SavedModel with a classifier. The student, an
    encoder with a linear classifier, is trained on the teacher's predictions, and on labels only
    with `distill_alpha` below 1. Omitted data and architecture options are those of the teacher's
    run, so that the student has the teacher's architecture by default (self-distillation). At the
    end, the accuracy is measured if `eval_split` has the teacher's classes, and encoder and
    classifier are exported.

    Example:
        >>> import simclr_tf as st
        >>> student = st.distill(  # doctest: +SKIP
        ...     "runs/student", teacher="runs/photos-10percent", width_multiplier=0.5
        ... )

    Args:
        model_dir: Run directory, created if it does not exist.
        teacher: Run of finetune or distill, or an exported SavedModel with a classifier.
        callbacks: Keras callbacks, called after the run's own.

    Returns:
        The run with its trained student.

    Raises:
        SystemExit: 143 after SIGTERM, 130 after SIGINT, with a checkpoint of the last step.
    """
    options |= {"model_dir": model_dir, "teacher": teacher}
    run = make_group(RunOptions, {"mode": "train_then_eval"} | options)
    config, devices = distill_config(options), make_group(Distribution, options)

    from simclr_tf.training import tasks
    from simclr_tf.training.distribution import make_distribution

    # Before the teacher is loaded: devices must be set up before TensorFlow's first operation.
    distribution = make_distribution(devices) if run.mode != "eval" else None
    is_testable = run.mode != "train" and _can_test_student(run, options, config)
    trained = _train(
        tasks.distill, config, run, devices, options, distribution, callbacks=callbacks
    )
    if trained.is_chief:
        _evaluate_and_export(run, options, test=is_testable)
    return trained


def _train(
    task: Callable[..., Any],
    config: PretrainConfig,
    run: RunOptions,
    devices: Distribution,
    options: Options,
    distribution: "DistributionContext | None" = None,
    **arguments: Any,
) -> Run:
    """Calls a function of `tasks`, unless the run is only evaluated; returns the run."""
    if run.mode == "eval":
        return Run(run.model_dir)

    from simclr_tf.training.distribution import make_distribution

    distribution = distribution or make_distribution(devices)
    flags = [
        f"--{name}={','.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for name, value in options.items()
        if value not in ("", None)
    ]
    with recorded_command(["simclr-tf", task.__name__, *flags]):
        model = task(config, run.model_dir, distribution, devices.steps_per_execution, **arguments)
    return Run(run.model_dir, model=model, is_chief=distribution.is_chief)


def _evaluate_and_export(run: RunOptions, options: Options, test: bool = True) -> None:
    """Measures a classifier's accuracy and exports it, unless the run only trains."""
    if run.mode == "train":
        return

    from simclr_tf.evaluation.evaluate import evaluate_classifier
    from simclr_tf.exporter.export_run import export_run

    if test:
        data = {name: options[name] for name in _EVAL_DATA if name in options}
        evaluate_classifier(run.model_dir, batch_size=run.eval_batch_size, data=data)
    export_run(run.model_dir)


def _can_test_student(run: RunOptions, options: Options, config: DistillConfig) -> bool:
    """Checks that eval_split has the teacher's classes; if the caller sets it, it must have."""
    from simclr_tf.evaluation.evaluate import open_test_split
    from simclr_tf.evaluation.splits import Splits
    from simclr_tf.models.teacher import load_teacher

    if run.mode == "eval":  # the teacher may no longer exist
        class_names = RunDir(run.model_dir).read_config()[1].class_names
    else:
        class_names = load_teacher(config.distillation.teacher).class_names
    try:
        open_test_split(Splits.from_config(config.resolve().data), class_names, with_labels=False)
    except UserError as error:
        if "eval_split" in options:
            raise
        logger.info(f"note: the student's accuracy will not be measured: {error}")
        return False
    return True
