"""A run with a step of its own, from its start or from where it was left, to its end."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf
import tf_keras as keras

from simclr_tf.config import PretrainConfig, TrainingPlan
from simclr_tf.data import READ_ERRORS, ImageSource, find_undecodable_image, train_batches
from simclr_tf.errors import UserError
from simclr_tf.models.build import build_model, resolve_encoder
from simclr_tf.models.keras_cv_backbones import load_preset_weights
from simclr_tf.runs.load import restore
from simclr_tf.runs.metrics_log import truncate_metrics
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.runs.status import check_not_running, track_status
from simclr_tf.training.callbacks import LoggingCallback, ScheduledEvaluator, raise_if_diverged
from simclr_tf.training.checkpoints import CheckpointCallback, CheckpointWriteError
from simclr_tf.training.distribution import DistributionContext, single_device
from simclr_tf.training.gradient_norms import GradientNormMonitor
from simclr_tf.training.image_summaries import EmbeddingSummaries
from simclr_tf.training.interruption import (
    catch_signals,
    is_peer_failure,
    peer_failure_as_user_error,
    synchronized_stop_signal,
)
from simclr_tf.training.online_eval import make_view_grid
from simclr_tf.training.precision import resolve_auto_precision, reuse_run_precision
from simclr_tf.training.profile import ProfileCallback
from simclr_tf.training.schedule import (
    check_same_sharding,
    check_trainable,
    checkpoint_interval,
    config_checksum,
    describe,
    epochs_to_steps,
    make_plan,
)
from simclr_tf.utils.files import check_output_path

_READ_AHEAD = 64  # steps, amply

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What a kind of run is made of, apart from its config.

    Attributes:
        config: what is trained: the config, with what only the data could tell.
        source: the images to learn from.
        evaluators: for the plan, what is measured now and then.
        fill: puts the weights of --checkpoint into a new model.
        plan: adds to the plan what the images to learn from do not tell.
        equip: within the strategy's scope, gives a model what it trains with and does not keep.
        note: of the run directory, once the run is known to be one: writes what should lie in it.
    """

    config: PretrainConfig
    source: ImageSource
    evaluators: Callable[[TrainingPlan], list[ScheduledEvaluator]]
    fill: Callable[[keras.Model], None]
    plan: Callable[[TrainingPlan], TrainingPlan] = lambda plan: plan
    equip: Callable[[keras.Model], None] = lambda model: None
    note: Callable[[RunDir], None] = lambda run: None


def train(
    config: PretrainConfig,
    model_dir: str | Path,
    distribution: DistributionContext | None,
    steps_per_execution: int,
    say: Say,
    prepare: Callable[[PretrainConfig, Say], Prepared],
) -> keras.Model:
    """Trains a run to its end; the model is what the config says.

    Arguments, result and errors are those of `pretrain`; `prepare` opens the data of the resolved
    config.
    """
    distribution = distribution or single_device()
    run = RunDir(Path(model_dir))
    with track_status(run) as begin, peer_failure_as_user_error(distribution):
        return _train(config.resolve(), run, distribution, steps_per_execution, say, prepare, begin)


def _train(
    config: PretrainConfig,
    run: RunDir,
    distribution: DistributionContext,
    steps_per_execution: int,
    say: Say,
    prepare: Callable[[PretrainConfig, Say], Prepared],
    begin: Callable[[int], None],
) -> keras.Model:
    # How a run starts:
    #  1. the directory holds no config.json: a new run, from random weights, or those of KerasCV's
    #     preset;
    #  2. the same, with --checkpoint: a new run, from the weights of another run;
    #  3. config.json without a checkpoint (killed before the first one): as 1 or 2, anew;
    #  4. config.json and a checkpoint: resumed at its step, everything restored. --checkpoint has
    #     no more effect; other settings that change the computation are refused by name.
    check_trainable(config, distribution.num_replicas)
    check_output_path(run.path, "model_dir")
    if distribution.is_chief:
        check_not_running(run)
    resuming = run.latest_checkpoint() is not None
    config = resolve_encoder(config, run.read_config()[0].encoder if resuming else None)
    prepared = prepare(config, say if distribution.is_chief else _silence)
    config, train = prepared.config, prepared.source
    say(distribution.describe(config.optimization.train_batch_size))
    if not distribution.is_chief:
        say = _silence  # the chief says it all
    plan = prepared.plan(make_plan(config, train, distribution))
    if plan.warmup_steps > plan.total_steps:
        say(
            f"note: --warmup_epochs ({plan.warmup_steps} steps) is longer than the run "
            f"({plan.total_steps} steps): the learning rate never reaches its peak"
        )
    if resuming:
        config = reuse_run_precision(config, run, say)
        run.check_resumable(config, plan)
        check_same_sharding(run, plan, train)
    elif run.config_file.exists():
        say(f"note: {run.path} holds no checkpoint yet: its run starts anew")
    evaluators = prepared.evaluators(plan)
    if config.monitoring.pictures_every_epochs:
        every = epochs_to_steps(config, plan, config.monitoring.pictures_every_epochs)
        pictures = EmbeddingSummaries(train, config.augmentation.image_size, run.tensorboard_dir)
        evaluators.append(ScheduledEvaluator(every, pictures))
    # Before the model is built: workers with other shapes could not even exchange its weights.
    distribution.check_workers_agree(
        {
            "the checkpoints in --model_dir (it must be one directory that all share)": (
                run.latest_step()
            ),
            "their settings or their images": config_checksum(config, plan, steps_per_execution),
        }
    )
    config = resolve_auto_precision(config, distribution, say)
    with distribution.strategy.scope():
        model = build_model(config, plan, steps_per_execution)
        prepared.equip(model)
        norms = GradientNormMonitor(model, config.monitoring.log_every, plan.total_steps)
    if resuming:
        restore(model, run)
        say(f"resuming {run.path} at step {int(model.step.numpy())} of {plan.total_steps}")
    elif config.checkpoints.checkpoint:
        prepared.fill(model)
        say(f"starting from the weights of {config.checkpoints.checkpoint}")
    elif config.encoder.preset and config.encoder.preset_weights:
        loaded = load_preset_weights(model.encoder, config.encoder.preset)
        kind = "its weights" if loaded else "random weights, for it has none"
        say(f"starting {config.encoder.encoder} from {kind}")
    start = int(model.step.numpy())
    if distribution.is_chief:
        begin(start)
        run.write_config(config, plan)
        prepared.note(run)
        truncate_metrics(run.metrics_file, start)
    if start >= plan.total_steps:
        say(f"{run.path} is finished: {start} steps")
        return model

    say(describe(config, plan, model, train))
    seed, batch = config.optimization.seed, config.optimization.train_batch_size

    def batches_of(context: tf.distribute.InputContext) -> tf.data.Dataset:
        workers = context.num_input_pipelines
        return train_batches(
            train,
            batch_size=batch,
            seed=seed,
            start_step=start,
            num_workers=workers,
            worker_index=context.input_pipeline_id,
            num_replicas=distribution.num_replicas // workers,
        )

    batches = distribution.strategy.distribute_datasets_from_function(batches_of)
    logging = LoggingCallback(
        run,
        total_steps=plan.total_steps,
        steps_per_epoch=plan.steps_per_epoch,
        global_batch=batch,
        log_every=config.monitoring.log_every,
        evaluators=evaluators,
        picture=make_view_grid(train, seed),
        norms=norms,
        distribution=distribution,
        copy=(
            build_model(config, plan)
            if evaluators and distribution.num_replicas > 1 and distribution.is_chief
            else None
        ),
    )
    profile = ProfileCallback(run.tensorboard_dir, say) if config.monitoring.profile else None
    with catch_signals() as received:
        checkpoints = CheckpointCallback(
            run,
            every=checkpoint_interval(config, plan),
            total_steps=plan.total_steps,
            keep=config.checkpoints.keep_checkpoint_max,
            healthy=lambda: raise_if_diverged(model),
            stop=synchronized_stop_signal(received, distribution),
            distribution=distribution,
        )
        say("compiling the first step …")
        try:
            # One Keras "epoch" for the whole run: epochs need not be whole numbers of steps.
            model.fit(
                batches,
                epochs=1,
                steps_per_epoch=plan.total_steps - start,
                verbose=0,
                callbacks=[logging, *([profile] if profile else []), checkpoints],
            )
        except CheckpointWriteError:
            raise
        except UserError as error:  # of an evaluator; a loss that is not finite is not saved
            saved = _save(checkpoints, model, run, distribution)
            raise UserError(f"{error}. {saved}") from error
        except tf.errors.OpError as error:
            if not isinstance(error, READ_ERRORS) and not is_peer_failure(error):
                raise
            # tf.data reads ahead, and hands on the error as soon as it has it.
            explained = find_undecodable_image(
                train,
                seed=seed,
                position=int(model.step.numpy()) * batch,
                count=_READ_AHEAD * batch,
            )
            if explained is None:
                raise
            raise UserError(
                f"{explained}. {_save(checkpoints, model, run, distribution)} and goes on once the "
                "image is replaced; without it, start another --model_dir with "
                f"--checkpoint={run.path}"
            ) from error
        finally:
            logging.close()
            if profile and profile.tracing:
                profile.close()
        if received:  # in the last step, too late to stop before the end
            raise SystemExit(128 + received[0])
    say(f"done: {plan.total_steps} steps in {run.path}")
    return model


def _save(
    checkpoints: CheckpointCallback,
    model: keras.Model,
    run: RunDir,
    distribution: DistributionContext,
) -> str:
    """Saves, where this process can do it alone; returns the words that say what is saved."""
    if distribution.num_workers == 1:
        checkpoints.save()
        return f"The run is saved at step {int(model.step.numpy())}"
    return f"The run is saved at step {run.latest_step()}"


def _silence(line: str) -> None:
    del line
