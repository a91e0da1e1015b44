"""Evaluation of a run directory, of an exported encoder and of a fine-tuned classifier."""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from simclr_tf.config import (
    CLASSIFIER_CONFIGS,
    DistillConfig,
    FinetuneConfig,
    PretrainConfig,
    TrainingPlan,
)
from simclr_tf.data import ImageSource
from simclr_tf.errors import UserError
from simclr_tf.evaluation.encoders import (
    TrainedEncoder,
    encoder_of_run,
    encoder_of_saved_model,
    untrained_encoder,
)
from simclr_tf.evaluation.evaluate import check_splits, judged
from simclr_tf.evaluation.evaluate_encoders import Say, compare
from simclr_tf.evaluation.features import Encoder, FeatureExtractor
from simclr_tf.evaluation.options import Request, Splits
from simclr_tf.evaluation.results import Recorder
from simclr_tf.evaluation.transformation_probes import Represent
from simclr_tf.runs.load import load_model
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.utils.files import check_output_path


def evaluate_run(
    model_dir: str | Path,
    request: Request,
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
    own = Splits.of(config.data)
    trained = encoder_of_run(model_dir)

    labelled = request.splits(own.dataset, own)
    if "supervised" in request.baselines:  # is trained late: what it needs is looked at now
        _check_supervised(run, labelled, request, say)

    def supervised() -> tuple[Encoder, str]:
        assert train_supervised is not None
        place = train_supervised(run, labelled)
        evaluate_classifier(place, batch_size=request.batch_size, into=run, say=say)
        with_labels = encoder_of_run(place)
        return with_labels.encoder, with_labels.identity

    compare(
        {
            "": lambda: (trained.encoder, trained.identity),
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
    request: Request,
    *,
    say: Say = print,
) -> None:
    """Evaluates an exported encoder; the figures go into `output`/evaluations.json.

    Raises:
        UserError: if it is no SavedModel of an image encoder, or the data do not allow it.
    """
    check_output_path(Path(output), "output")
    exported = encoder_of_saved_model(encoder)
    for baseline in ("random", "supervised"):
        if baseline in request.baselines:
            raise UserError(
                f"--baselines={baseline} needs the encoder's architecture, which an exported "
                "model does not tell; leave it out or evaluate a run with --model_dir"
            )
    compare(
        {"": lambda: (exported.encoder, exported.identity)},
        request,
        Splits.of_exported(exported.image_size),
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
    splits = Splits.of(dataclasses.replace(config.data, **(data or {})))
    test = open_judged(splits, plan.class_names, with_labels=isinstance(config, FinetuneConfig))
    model = load_model(model_dir)
    extract = FeatureExtractor(model, config.augmentation.image_size, batch_size)
    setting = splits.setting(step=int(model.step.numpy()))
    started = time.monotonic()
    logits = extract(test)
    evaluation = judged(
        setting,
        logits.features,
        logits.labels,
        num_train=plan.num_examples,
        seconds=round(time.monotonic() - started, 3),
        **_trained(config, plan),
    )
    recorder = Recorder((into or run).path, say)
    recorder.add(evaluation, test.class_names or ())
    if into is None:
        recorder.close()


def open_judged(splits: Splits, class_names: Sequence[str], *, with_labels: bool) -> ImageSource:
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


def _represent(encoder: TrainedEncoder) -> tuple[Represent, str] | None:
    return None if encoder.represent is None else (encoder.represent, encoder.head_identity)


def _check_supervised(run: RunDir, splits: Splits, request: Request, say: Say) -> None:
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
