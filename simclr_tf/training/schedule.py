"""What a run comes to before it starts: its steps, its rate, and whether it can be what it says."""

import json
import math
import zlib

import tf_keras as keras

from simclr_tf.augment.rand_augment import require_keras_cv
from simclr_tf.config import DistillConfig, FinetuneConfig, PretrainConfig, TrainingPlan, to_json
from simclr_tf.data import ImageSource
from simclr_tf.errors import UserError
from simclr_tf.optimizers import check_available, peak_learning_rate
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.distribution import DistributionContext


def make_plan(
    config: PretrainConfig, train: ImageSource, distribution: DistributionContext
) -> TrainingPlan:
    """Resolves durations and the learning rate against the training images.

    Raises:
        UserError: if the batch exceeds the images or the run would have no step.
    """
    settings = config.optimization
    count, batch = train.num_examples, settings.train_batch_size
    if batch > count:
        raise UserError(
            f"--train_batch_size={batch}: more than the {count} training images; lower it"
        )
    total = resolve_steps(count, batch, epochs=settings.train_epochs, steps=settings.train_steps)
    if total == 0:
        raise UserError(
            f"--train_epochs={settings.train_epochs:g} of {count} images is less than one step "
            f"of --train_batch_size={batch}"
        )
    names = () if train.multi_label else tuple(train.class_names or ())
    return TrainingPlan(
        num_examples=count,
        num_classes=len(names) or None,
        total_steps=total,
        warmup_steps=resolve_steps(count, batch, epochs=settings.warmup_epochs),
        steps_per_epoch=count / batch,
        peak_learning_rate=peak_learning_rate(
            settings.learning_rate, batch, settings.learning_rate_scaling
        ),
        num_replicas=distribution.num_replicas,
        num_workers=distribution.num_workers,
        class_names=names if isinstance(config, FinetuneConfig) else (),
    )


def checkpoint_interval(config: PretrainConfig, plan: TrainingPlan) -> int:
    """Returns the steps between checkpoints."""
    settings = config.checkpoints
    return max(
        1,
        resolve_steps(
            plan.num_examples,
            config.optimization.train_batch_size,
            epochs=settings.checkpoint_epochs,
            steps=settings.checkpoint_steps,
        ),
    )


def epochs_to_steps(config: PretrainConfig, plan: TrainingPlan, epochs: float) -> int:
    """Returns how many steps such a part of the run takes, at least one."""
    batch = config.optimization.train_batch_size
    return max(1, resolve_steps(plan.num_examples, batch, epochs=epochs))


def describe(
    config: PretrainConfig, plan: TrainingPlan, model: keras.Model, train: ImageSource
) -> str:
    """Returns the line that says what is about to be trained."""
    parameters = sum(math.prod(v.shape) for v in model.trainable_variables)
    labels = "several labels per image" if train.multi_label else "no labels"
    if plan.num_classes:
        labels = f"{plan.num_classes} classes"
    if isinstance(config, DistillConfig):
        labels = f"{plan.num_labels or 'no'} labels used"
    return (
        f"{plan.num_examples} images of {train.name}, {labels}; "
        f"{config.encoder.describe()}, {parameters:,} parameters, "
        f"{config.optimization.precision}; {plan.total_steps} steps of "
        f"{config.optimization.train_batch_size} images"
    )


def check_trainable(config: PretrainConfig, num_replicas: int) -> None:
    """Raises UserError if a run cannot be trained here, whatever its images.

    What it needs is not installed, or the batch cannot be encoded in the pieces that are asked for.
    """
    check_available(config.optimization.optimizer)
    if config.augmentation.policy == "randaugment":
        require_keras_cv()
    share = config.optimization.train_batch_size // num_replicas
    size = config.optimization.microbatch_size
    if size and config.augmentation.policy == "randaugment":
        raise UserError(
            f"--microbatch_size={size} makes every view twice, and RandAugment's never come again: "
            "leave it out, or --policy=randaugment"
        )
    if size and share % size:
        fitting = max(m for m in range(1, size + 1) if share % m == 0)
        raise UserError(
            f"--microbatch_size={size} does not divide a replica's {share} images: choose a "
            f"divisor, such as {fitting}"
        )


def check_same_sharding(run: RunDir, plan: TrainingPlan, train: ImageSource) -> None:
    """Refuses to go on with files dealt out to another number of workers: another stream."""
    before, now = run.read_config()[1].num_workers, plan.num_workers
    if before != now and train.shard_by_file(max(before, now), 0) is not None:
        raise UserError(
            f"{run.path} was trained by {before} workers, this is {now}, and the files of "
            f"{train.name} are dealt out among them: start as many as before"
        )


def config_checksum(config: PretrainConfig, plan: TrainingPlan, steps_per_execution: int) -> int:
    """A number that is the same for all workers who are about to do the same."""
    config = config.override({"data": {"data_dir": ""}, "monitoring": {"profile": False}})
    document = [to_json(config), to_json(plan), steps_per_execution]
    return zlib.crc32(json.dumps(document).encode())


def resolve_steps(
    num_examples: int, global_batch: int, *, epochs: float = 0, steps: int = 0
) -> int:
    """Returns a duration in steps: `steps` where given, else floor(N·E/B).

    Raises:
        UserError: if a duration is negative.
    """
    if steps < 0 or epochs < 0:
        raise UserError(f"a duration must not be negative: epochs {epochs}, steps {steps}")
    if steps:
        return steps
    # Of the whole product: flooring N/B first would lose up to E steps. The billionth is for
    # fractions such as 0.29, which floating point puts a little below a whole number of steps.
    return math.floor(num_examples * epochs / global_batch + 1e-9)
