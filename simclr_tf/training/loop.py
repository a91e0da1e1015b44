"""The training loop that all tasks share: start or resume a run, train it, save it."""

import contextlib
import logging
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.data import READ_ERRORS, find_undecodable_image, train_batches
from simclr_tf.data.image_list import save_image_list
from simclr_tf.errors import RunStopped, UserError
from simclr_tf.models.build import build_model
from simclr_tf.runs.load import restore
from simclr_tf.runs.metrics_log import truncate_metrics
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.runs.status import check_not_running, track_status
from simclr_tf.training.base_task import TrainingTask
from simclr_tf.training.callbacks import (
    CheckpointCallback,
    CheckpointWriteError,
    LoggingCallback,
    ProfileCallback,
    ScheduledEvaluator,
    untimed,
)
from simclr_tf.training.distribution import DistributionContext, single_device
from simclr_tf.training.gradient_norms import GradientNormMonitor
from simclr_tf.training.image_summaries import EmbeddingSummaries
from simclr_tf.training.interruption import (
    InputWait,
    input_options,
    is_peer_failure,
    log_resumption,
    peer_failure_as_user_error,
    stop_on_signals,
    synchronized_stop_signal,
)
from simclr_tf.training.online_eval import make_view_grid
from simclr_tf.training.precision import resolve_auto_precision, reuse_run_precision
from simclr_tf.training.schedule import (
    check_same_sharding,
    check_trainable,
    config_checksum,
    describe_run,
    make_plan,
    steps_between,
)
from simclr_tf.utils.files import check_output_path

logger = logging.getLogger(__name__)

_MAX_PREFETCHED_STEPS = 64  # more than tf.data reads ahead


def fit(
    task: TrainingTask,
    model_dir: str | Path,
    distribution: DistributionContext | None = None,
    steps_per_execution: int = 1,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Any:
    """Trains a task to its end, or resumes the run in `model_dir`; see `tasks.pretrain`.

    All workers need the same `model_dir`, on a shared file system. `callbacks` are called after the
    run's own; the run is one Keras epoch.
    """
    distribution = distribution or single_device()
    run = RunDir(model_dir)
    with (
        track_status(run) as mark_started,
        peer_failure_as_user_error(distribution),
        contextlib.ExitStack() as stack,
    ):
        # 1. Open the data.
        check_trainable(task.config, distribution.num_replicas)
        check_output_path(run.path, "model_dir", has_checkpoints=True)
        if distribution.is_chief:
            check_not_running(run)
        is_resuming = run.latest_checkpoint() is not None
        task.resolve_encoder(run if is_resuming else None)
        task.open_data(run if is_resuming else None)
        logger.info(distribution.describe(task.config.optimization.train_batch_size))
        if not distribution.is_chief:
            package_logger = logging.getLogger("simclr_tf")
            stack.callback(package_logger.setLevel, package_logger.level)
            package_logger.setLevel(logging.WARNING)

        # 2. Plan steps and learning rate.
        plan = task.complete_plan(make_plan(task.config, task.train, distribution))
        if plan.warmup_steps > plan.total_steps:
            logger.warning(
                f"note: --warmup_epochs ({plan.warmup_steps} steps) is longer than the run "
                f"({plan.total_steps} steps): the learning rate never reaches its peak"
            )

        # 3. Resume or start. A run starts in one of four ways:
        #     1. without config.json: a new run, from random weights or those of a preset;
        #     2. the same, with --checkpoint: a new run, from the weights of another run;
        #     3. config.json without a checkpoint (killed before the first one): as 1 or 2;
        #     4. config.json and a checkpoint: resumed at its step, everything restored.
        #        --checkpoint has no effect; other settings that change the computation are errors.
        if is_resuming:
            task.config = reuse_run_precision(task.config, run)
            run.check_resumable(task.config, plan)
            check_same_sharding(run, plan, task.train)
        elif run.config_file.exists():
            logger.warning(f"note: {run.path} has no checkpoint yet: training restarts from step 0")
        evaluators = task.evaluators(plan, run)
        if epochs := task.config.monitoring.pictures_every_epochs:
            images = EmbeddingSummaries(
                task.train, task.config.augmentation.evaluation_size, run.tensorboard_dir
            )
            steps = steps_between(task.config, plan, epochs)
            evaluators.append(ScheduledEvaluator(steps, images))
        # Before the model is built: workers with other shapes cannot even exchange its weights.
        distribution.check_workers_agree(
            {
                "the checkpoints in --model_dir (it must be one directory that all share)": (
                    run.latest_step()
                ),
                "their settings or their images": config_checksum(
                    task.config, plan, steps_per_execution
                ),
                "the files of their images": (
                    zlib.crc32(task.folder.content.tobytes()) if task.folder is not None else 0
                ),
                "the weights of their encoder": task.encoder_checksum(),
            }
        )

        # 4. Build the model, with its weights.
        task.config = config = resolve_auto_precision(task.config, distribution)
        with distribution.strategy.scope():
            model = task.build_model(plan, steps_per_execution)
            norms = GradientNormMonitor(model, config.monitoring.log_every, plan.total_steps)
        if is_resuming:
            restore(model, run)
            step = int(model.step.numpy())
            logger.info(f"resuming {run.path} at step {step} of {plan.total_steps}")
        else:
            task.load_initial_weights(model)
        start = int(model.step.numpy())
        if distribution.is_chief:
            mark_started(start)
            run.write_config(config, plan)
            task.write_extra_files(run)
            if task.folder is not None and not (is_resuming and run.image_list_file.exists()):
                save_image_list(run.image_list_file, task.folder)
            truncate_metrics(run.metrics_file, start)
        if start >= plan.total_steps:
            logger.info(f"{run.path} is finished: {start} steps")
            return model
        logger.info(describe_run(config, plan, model, task.train))

        # 5. Callbacks: metrics, profile, checkpoints, and then the user's.
        seed, batch_size = config.optimization.seed, config.optimization.train_batch_size
        # Evaluators run in the chief alone: with several replicas on a copy of the model outside
        # the strategy, with averages on a copy that has them as its weights.
        is_evaluated_as_copy = distribution.num_replicas > 1 or config.optimization.ema_decay
        needs_copy = evaluators and is_evaluated_as_copy and distribution.is_chief
        metrics = LoggingCallback(
            run,
            config,
            plan,
            evaluators=evaluators,
            make_view_grid=make_view_grid(task.train, seed),
            norms=norms,
            distribution=distribution,
            eval_model=build_model(config, plan) if needs_copy else None,
        )
        profile = [ProfileCallback(run.tensorboard_dir)] if config.monitoring.profile else []
        model.input_wait = input_wait = InputWait()
        with stop_on_signals(input_wait) as received:
            stop_signal = synchronized_stop_signal(received, distribution)
            checkpoints = CheckpointCallback(run, config, plan, stop_signal, distribution)

            # 6. Train.
            def input_fn(context: tf.distribute.InputContext) -> tf.data.Dataset:
                batches = train_batches(
                    task.train,
                    batch_size=batch_size,
                    seed=seed,
                    start_step=start,
                    num_workers=context.num_input_pipelines,
                    worker_index=context.input_pipeline_id,
                    num_replicas=distribution.num_replicas // context.num_input_pipelines,
                )
                return batches.with_options(input_options())

            def save_and_describe() -> str:
                """Saves the run, if this process can do so alone; names the newest checkpoint."""
                if distribution.num_workers == 1:
                    checkpoints.save()
                return f"The run is saved at step {run.latest_step()}"

            logger.info("compiling the first step …")
            steps = plan.total_steps - start
            try:
                # One Keras epoch per run: epochs need not be whole numbers of steps.
                model.fit(
                    distribution.strategy.distribute_datasets_from_function(input_fn),
                    epochs=1,
                    steps_per_epoch=steps,
                    verbose=0,
                    callbacks=untimed([metrics, *profile, checkpoints, *callbacks], model, steps),
                )
            except CheckpointWriteError:
                raise
            except RunStopped:
                checkpoints.close()
                log_resumption(run, plan.total_steps)
                raise
            except UserError as error:  # of an evaluator; a diverged model is not saved
                raise UserError(f"{error}. {save_and_describe()}") from error
            except tf.errors.OpError as error:
                if input_wait.was_ended:
                    logger.warning("note: the images of the next step did not arrive in time")
                    if distribution.num_workers == 1 and int(model.step.numpy()) > start:
                        checkpoints.save()
                    checkpoints.close()
                    log_resumption(run, plan.total_steps)
                    raise RunStopped(128 + received[0]) from error
                if not isinstance(error, READ_ERRORS) and not is_peer_failure(error):
                    raise
                # tf.data reads ahead, and raises an error as soon as it has it.
                explained = find_undecodable_image(
                    task.train,
                    seed=seed,
                    position=int(model.step.numpy()) * batch_size,
                    count=_MAX_PREFETCHED_STEPS * batch_size,
                )
                if explained is None:
                    raise
                raise UserError(
                    f"{explained} {save_and_describe()}. Run the same command again with it to "
                    "continue without the image"
                ) from error
            except Exception:  # of a user's callback, between two steps
                if int(model.step.numpy()) > start:
                    try:
                        logger.warning(save_and_describe())
                    except UserError as error:  # the callback's error is the one to raise
                        logger.warning(f"The run is not saved: {error}")
                raise
            finally:
                for callback in (metrics, *profile):
                    callback.close()
            if received:  # in the last step, too late to stop before the end
                log_resumption(run, plan.total_steps)
                raise RunStopped(128 + received[0])
            step = int(model.step.numpy())
            if step < plan.total_steps:  # a callback has set `stop_training`
                checkpoints.save()
                logger.info(f"stopped by a callback at step {step} of {plan.total_steps}")
            else:
                logger.info(f"done: {plan.total_steps} steps in {run.path}")
        return model
