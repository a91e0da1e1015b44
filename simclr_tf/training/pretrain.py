"""Pretraining, from the config to the last checkpoint."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import tensorflow as tf

from simclr_tf.build import build_model
from simclr_tf.config import Plan, PretrainConfig
from simclr_tf.data import (
    READ_ERRORS,
    Source,
    explain_decode_error,
    open_source,
    train_batches,
)
from simclr_tf.distribution import Replicas, one_device
from simclr_tf.durations import resolve_steps
from simclr_tf.errors import UserError
from simclr_tf.evaluation.runs import Splits
from simclr_tf.models import SimCLR
from simclr_tf.run import Run, load, restore
from simclr_tf.training.checkpoints import CannotSaveError, CheckpointCallback
from simclr_tf.training.evaluators import Evaluator, probe, validation, view_pairs
from simclr_tf.training.logging import Every, LoggingCallback, check_finite, truncate_metrics
from simclr_tf.training.plan import (
    check_microbatch,
    check_shards,
    checkpoint_every,
    describe,
    fingerprint,
    make_plan,
)
from simclr_tf.training.stopping import agreed_signal, is_aborted, losing_workers, signals

_READ_AHEAD = 64  # steps, amply


def pretrain(
    config: PretrainConfig,
    model_dir: str | Path,
    replicas: Replicas | None = None,
    steps_per_execution: int = 1,
    say: Callable[[str], None] = print,
) -> SimCLR:
    """Trains a run to its end, or from where it was left.

    Args:
        config: what to train.
        model_dir: the run directory; the same for all workers, on a file system that they share.
        replicas: what `simclr_tf.distribution` made to train on; None: one device.
        steps_per_execution: steps per call from the host.
        say: takes the lines that tell the user what is going on.

    Returns:
        The trained model.

    Raises:
        UserError: for whatever the user can mend, before training where it can be known then.
        SystemExit: 143 after SIGTERM, 130 after SIGINT, with a checkpoint of the last step.
    """
    replicas = replicas or one_device()
    with losing_workers(replicas):
        return _pretrain(config.resolved(), Path(model_dir), replicas, steps_per_execution, say)


def _pretrain(
    config: PretrainConfig,
    model_dir: Path,
    replicas: Replicas,
    steps_per_execution: int,
    say: Callable[[str], None],
) -> SimCLR:
    # How a run starts:
    #  1. the directory holds no config.json: a new run, from random weights;
    #  2. the same, with --checkpoint: a new run, from the encoder and head of another run;
    #  3. config.json without a checkpoint (killed before the first one): as 1 or 2, anew;
    #  4. config.json and a checkpoint: resumed at its step, everything restored. --checkpoint has
    #     no more effect; other settings that change the computation are refused by name.
    say(replicas.describe(config.optimization.train_batch_size))
    check_microbatch(config, replicas)
    if not replicas.is_chief:
        say = _silence  # the chief says it all
    run = Run(model_dir)
    run.check_place()
    train, held_out = _open_train(config)
    plan = make_plan(config, train, replicas)
    if plan.warmup_steps > plan.total_steps:
        say(
            f"note: --warmup_epochs ({plan.warmup_steps} steps) is longer than the run "
            f"({plan.total_steps} steps): the learning rate never reaches its peak"
        )
    resuming = run.latest_checkpoint() is not None
    if resuming:
        run.check_same(config, plan)
        check_shards(run, plan, train)
    elif run.config_file.exists():
        say(f"note: {run.path} holds no checkpoint yet: its run starts anew")
    evaluators = _evaluators(config, plan, held_out)
    # Before the model is built: workers with other shapes could not even exchange its weights.
    replicas.check_agreement(
        {
            "the checkpoints in --model_dir (it must be one directory that all share)": (
                run.latest_step()
            ),
            "their settings or their images": fingerprint(config, plan, steps_per_execution),
        }
    )
    with replicas.strategy.scope():
        model = build_model(config, plan, steps_per_execution)
    if resuming:
        restore(model, run)
        say(f"resuming {run.path} at step {int(model.step.numpy())} of {plan.total_steps}")
    elif config.checkpoints.checkpoint:
        _start_from(model, config)
        say(f"starting from the weights of {config.checkpoints.checkpoint}")
    start = int(model.step.numpy())
    if replicas.is_chief:
        run.write(config, plan)
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
            num_replicas=replicas.count // workers,
        )

    batches = replicas.strategy.distribute_datasets_from_function(batches_of)
    logging = LoggingCallback(
        run,
        total_steps=plan.total_steps,
        steps_per_epoch=plan.steps_per_epoch,
        global_batch=batch,
        log_every=config.watching.log_every,
        evaluators=evaluators,
        picture=view_pairs(train, seed),
        replicas=replicas,
        copy=(
            build_model(config, plan)
            if evaluators and replicas.count > 1 and replicas.is_chief
            else None
        ),
    )
    with signals() as received:
        checkpoints = CheckpointCallback(
            run,
            every=checkpoint_every(config, plan),
            total_steps=plan.total_steps,
            keep=config.checkpoints.keep_checkpoint_max,
            healthy=lambda: check_finite(model),
            stop=agreed_signal(received, replicas),
            replicas=replicas,
        )
        say("compiling the first step …")
        try:
            # One Keras "epoch" for the whole run: epochs need not be whole numbers of steps.
            model.fit(
                batches,
                epochs=1,
                steps_per_epoch=plan.total_steps - start,
                verbose=0,
                callbacks=[logging, checkpoints],
            )
        except CannotSaveError:
            raise
        except UserError as error:  # of an evaluator; a loss that is not finite is not saved
            saved = _save(checkpoints, model, run, replicas)
            raise UserError(f"{error}. {saved}") from error
        except tf.errors.OpError as error:
            if not isinstance(error, READ_ERRORS) and not is_aborted(error):
                raise
            # tf.data reads ahead, and hands on the error as soon as it has it.
            explained = explain_decode_error(
                train,
                seed=seed,
                position=int(model.step.numpy()) * batch,
                count=_READ_AHEAD * batch,
            )
            if explained is None:
                raise
            raise UserError(
                f"{explained}. {_save(checkpoints, model, run, replicas)} and goes on once the "
                "image is replaced; without it, start another --model_dir with "
                f"--checkpoint={run.path}"
            ) from error
        finally:
            logging.close()
        if received:  # in the last step, too late to stop before the end
            raise SystemExit(128 + received[0])
    say(f"done: {plan.total_steps} steps in {run.path}")
    return model


def _save(checkpoints: CheckpointCallback, model: SimCLR, run: Run, replicas: Replicas) -> str:
    """Saves, where this process can do it alone; returns the words that say what is saved."""
    if replicas.num_workers == 1:
        checkpoints.save()
        return f"The run is saved at step {int(model.step.numpy())}"
    return f"The run is saved at step {run.latest_step()}"


def _silence(line: str) -> None:
    del line


def _open_train(config: PretrainConfig) -> tuple[Source, Source | None]:
    data = config.data
    source = open_source(
        data.dataset,
        data.train_split,
        data_dir=data.data_dir or None,
        storage_size=data.storage_size,
        skip_unreadable=data.skip_unreadable,
        cache=data.cache_dataset,
    )
    if not data.validation_fraction:
        return source, None
    return source.holdout(data.validation_fraction, config.optimization.seed)


def _evaluators(config: PretrainConfig, plan: Plan, held_out: Source | None) -> list[Every]:
    watching, settings = config.watching, config.optimization

    def every(epochs):
        return max(1, resolve_steps(plan.num_examples, settings.train_batch_size, epochs=epochs))

    evaluators = []
    if watching.knn_every_epochs:
        evaluators.append(Every(every(watching.knn_every_epochs), _probe(config)))
    if held_out is not None:
        evaluator = validation(held_out, settings.train_batch_size, settings.seed)
        evaluators.append(Every(every(watching.eval_every_epochs), evaluator))
    return evaluators


def _probe(config: PretrainConfig) -> Evaluator:
    data = config.data
    splits = Splits.of(data)
    if config.watching.probe_dataset:
        splits = dataclasses.replace(
            splits, dataset=config.watching.probe_dataset, train_split="train"
        )
    train, test = splits.open()
    for source in (train, test):
        if not source.class_names:
            raise UserError(
                f"--knn_every_epochs: {source.name} has no labels to probe with; name a labelled "
                "--probe_dataset or set --knn_every_epochs=0"
            )
    return probe(train, test, config.views.image_size)


def _start_from(model: SimCLR, config: PretrainConfig) -> None:
    """Copies encoder and projection head of another run, or says why they do not fit."""
    source = config.checkpoints.checkpoint
    other = load(source)
    for part in ("encoder", "projection_head"):
        ours, theirs = getattr(model, part), getattr(other, part)
        shapes = [[tuple(v.shape) for v in m.variables] for m in (ours, theirs)]
        if shapes[0] != shapes[1]:
            raise UserError(
                f"--checkpoint={source}: its {part.replace('_', ' ')} has other shapes; use the "
                "architecture flags that its config.json shows"
            )
        ours.set_weights(theirs.get_weights())
