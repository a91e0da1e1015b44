"""Steps and learning rate of a run, and checks before it starts."""

import itertools
import json
import math
import zlib

import tf_keras as keras

from simclr_tf.augment.study import require_keras_cv
from simclr_tf.config import DistillConfig, FinetuneConfig, PretrainConfig, TrainingPlan, to_json
from simclr_tf.data import ImageSource
from simclr_tf.errors import UserError
from simclr_tf.optimizers import check_available, peak_learning_rate
from simclr_tf.options import FOLDER_PREFIX
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.distribution import DistributionContext


def make_plan(
    config: PretrainConfig, train: ImageSource, distribution: DistributionContext
) -> TrainingPlan:
    """Converts durations to steps and scales the learning rate; UserError without any step."""
    settings = config.optimization
    count, batch = train.num_examples, settings.train_batch_size
    if batch > count:
        raise UserError(
            f"--train_batch_size={batch}: expected at most {count}, the number of training "
            "images. Fix: use a smaller batch"
        )
    total = resolve_steps(count, batch, epochs=settings.train_epochs, steps=settings.train_steps)
    if total == 0:
        raise UserError(
            f"--train_epochs={settings.train_epochs:g}: expected at least one step, got "
            f"{settings.train_epochs * count:g} images for --train_batch_size={batch}. Fix: use "
            "more epochs or a smaller batch"
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
        view_size_steps=resolve_view_size_steps(config, total),
    )


def resolve_view_size_steps(config: PretrainConfig, total: int) -> tuple[int, ...]:
    """Returns the steps at which the sizes of `--view_size_schedule` end, but the last."""
    steps = tuple(
        resolve_steps(total, 1, epochs=end) if end < 1 else int(end)
        for _, end in config.augmentation.view_sizes
    )
    if not all(a < b for a, b in itertools.pairwise([0, *steps, total])):
        raise UserError(
            f"--view_size_schedule={config.augmentation.view_size_schedule}: expected steps above "
            f"0 that ascend, below the run's {total} steps, got {', '.join(map(str, steps))}. Fix: "
            "change the ends of the sizes, or train longer"
        )
    return steps


def steps_between(config: PretrainConfig, plan: TrainingPlan, epochs: float, steps: int = 0) -> int:
    """Returns the number of steps of an interval, at least one: `steps` if above 0, else epochs."""
    batch = config.optimization.train_batch_size
    return max(1, resolve_steps(plan.num_examples, batch, epochs=epochs, steps=steps))


def describe_run(
    config: PretrainConfig, plan: TrainingPlan, model: keras.Model, train: ImageSource
) -> str:
    """Describes images, model and steps in one line."""
    parameters = sum(math.prod(v.shape) for v in model.trainable_variables)
    labels = "several labels per image" if train.multi_label else "no labels"
    if plan.num_classes:
        labels = f"{plan.num_classes} classes"
    if isinstance(config, DistillConfig):
        labels = f"{plan.num_labels or 'no'} labels used"
    decay = config.optimization.ema_decay
    averaged = f"; evaluated with averaged weights (--ema_decay={decay:g})" if decay else ""
    return (
        f"{plan.num_examples} images of {train.name}, {labels}; "
        f"{config.encoder.describe()}, {parameters:,} parameters, "
        f"{config.optimization.precision}; {plan.total_steps} steps of "
        f"{config.optimization.train_batch_size} images{describe_view_sizes(config, plan)}"
        f"{averaged}"
    )


def describe_view_sizes(config: PretrainConfig, plan: TrainingPlan) -> str:
    """Describes the sizes of the views over a run, an empty text if they do not change."""
    if not plan.view_size_steps:
        return ""
    stages = [
        f"{size} px until step {end}"
        for (size, _), end in zip(config.augmentation.view_sizes, plan.view_size_steps, strict=True)
    ]
    return f"; views of {', '.join(stages)}, then {config.augmentation.image_size} px"


def check_trainable(config: PretrainConfig, num_replicas: int) -> None:
    """Raises UserError if a package is missing or the microbatch size does not fit."""
    check_available(config.optimization.optimizer)
    if config.augmentation.policy == "randaugment":
        require_keras_cv()
    per_replica = config.optimization.train_batch_size // num_replicas
    size = config.optimization.microbatch_size
    if size and config.augmentation.policy == "randaugment":
        raise UserError(
            f"--microbatch_size={size}: microbatches compute every view twice, and the views of "
            "--policy=randaugment are not reproducible. Fix: omit one of the two flags"
        )
    if size and per_replica % size:
        fitting = max(m for m in range(1, min(size, per_replica) + 1) if per_replica % m == 0)
        raise UserError(
            f"--microbatch_size={size}: expected a divisor of the {per_replica} images per "
            f"replica. Fix: use a divisor, such as {fitting}"
        )


def check_same_sharding(run: RunDir, plan: TrainingPlan, train: ImageSource) -> None:
    """Raises UserError if files are sharded over another number of workers than before.

    The order of the data depends on it.
    """
    before, now = run.read_config()[1].num_workers, plan.num_workers
    if before != now and train.shard_by_file(max(before, now), 0) is not None:
        raise UserError(
            f"{run.path} was trained by {before} workers, now there are {now}, and the files of "
            f"{train.name} are sharded over them. Fix: start {before} workers"
        )


def config_checksum(config: PretrainConfig, plan: TrainingPlan, steps_per_execution: int) -> int:
    """Returns a checksum of everything that must be equal on all workers."""
    data = {"data_dir": ""}
    if config.data.dataset.startswith(FOLDER_PREFIX):  # it may lie elsewhere on each machine
        data["dataset"] = FOLDER_PREFIX
    monitoring = {"profile": False, "probe_dataset": ""}  # of the chief alone
    config = config.override({"data": data, "monitoring": monitoring})
    document = [to_json(config), to_json(plan), steps_per_execution]
    return zlib.crc32(json.dumps(document).encode())


def resolve_steps(
    num_examples: int, global_batch: int, *, epochs: float = 0, steps: int = 0
) -> int:
    """Converts a duration, at least 0, to steps: `steps` if above 0, else floor(N·E/B)."""
    if steps < 0 or epochs < 0:
        raise UserError(f"expected durations of at least 0, got epochs {epochs}, steps {steps}")
    if steps:
        return steps
    # Rounding N/B first would lose up to E steps. The billionth is for fractions such as 0.29,
    # whose product is slightly below a whole number of steps in floating point.
    return math.floor(num_examples * epochs / global_batch + 1e-9)
