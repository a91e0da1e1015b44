"""Execution of a study: checks before the first run, results after every run."""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from simclr_tf import __version__
from simclr_tf.config import PretrainConfig, to_json
from simclr_tf.errors import UserError
from simclr_tf.study.grid import Cell, Study, StudyOptions
from simclr_tf.study.plot import plot_study
from simclr_tf.study.results import StudyResults, TrialResult
from simclr_tf.study.trial import Trial, TrialEvaluation, make_trials
from simclr_tf.study.workers import allocate_workers, run_trials
from simclr_tf.utils.files import atomic_write, check_output_path, directory_lock
from simclr_tf.utils.log import show_progress

logger = logging.getLogger(__name__)


def run_study(
    study: Study,
    base: PretrainConfig,
    options: StudyOptions,
    *,
    cells: Sequence[Cell] | None = None,
    command: str = "",
) -> StudyResults:
    """Executes the unfinished runs of a study and writes its results after every run.

    `options.output` receives runs/, study.json, results.json, results.csv, table.md and NAME.png.
    Worker processes import the calling program, which therefore needs
    `if __name__ == "__main__":`.

    >>> from simclr_tf.config import PretrainConfig
    >>> from simclr_tf.option_groups import Data
    >>> from simclr_tf.study.experiments import STUDIES
    >>> from simclr_tf.study.grid import StudyOptions
    >>> from simclr_tf.study.runner import run_study
    >>> base, options = PretrainConfig(Data("shapes")), StudyOptions("runs/losses", seeds="0,1")
    >>> print(run_study(STUDIES["losses"], base, options).table())  # doctest: +SKIP

    Args:
        study: one of `simclr_tf.study.experiments.STUDIES`, or another one.
        base: settings that the cells override.
        options: seeds, cells, output directory and resources.
        cells: overrides the selection of `options`.
        command: the command line, for the record.

    Returns:
        The results of all selected cells and seeds, including failed runs.

    Raises:
        UserError: before any run, if the study is not possible.
        SystemExit: 143 after SIGTERM, 130 after SIGINT; the same call resumes the study.
    """
    import tensorflow as tf

    show_progress()
    if not options.output:
        raise UserError("--output is missing: expected the directory of the study. Fix: set it")
    # The GPUs are for the worker processes.
    gpus = len(tf.config.list_physical_devices("GPU"))
    tf.config.set_visible_devices([], "GPU")
    output = Path(options.output)
    check_output_path(output, "output", has_checkpoints=True)
    cells = options.select_cells(study) if cells is None else cells
    trials = make_trials(cells, base, options.seed_list, output / "runs")
    evaluation = TrialEvaluation(
        study.columns, options.knn_k, options.eval_batch_size, output / "features"
    )
    workers = allocate_workers(options.processes, options.num_replicas, gpus)
    _check_settings(study, base, options, trials)
    evaluation = _check_data(base, evaluation, trials)
    options = dataclasses.replace(options, knn_k=evaluation.knn_k)

    note = f"waiting for another study that uses {output}"
    with directory_lock(output / "runs", lambda: logger.info(note)):
        _check_output(output, study, options, trials)
        _write_settings(output, study, base, options, cells, command)
        results = {
            trial.name: TrialResult(trial, evaluation.read_results(trial)) for trial in trials
        }
        pending = [result.trial for result in results.values() if result.values is None]
        num_finished = len(trials) - len(pending)
        logger.info(
            f"study {study.name}: {len(cells)} cells × {len(options.seed_list)} seeds = "
            f"{len(trials)} runs, {num_finished} already finished; {len(workers)} at a time, in "
            f"{output}/runs"
        )

        def write() -> StudyResults:
            study_results = StudyResults(study, base, command, list(results.values()))
            study_results.write(output)
            plot_study(study_results, output / f"{study.name}.png")
            return study_results

        # Closed, so that no worker process survives an exception.
        with contextlib.closing(run_trials(pending, workers, evaluation, num_finished)) as outcomes:
            for trial, failure in outcomes:
                values = None if failure else evaluation.read_results(trial)
                if values is None:
                    failure = failure or "evaluations.json does not contain all results"
                else:
                    shown = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
                    logger.info(f"  {shown}")
                results[trial.name] = TrialResult(trial, values, failure)
                write()
        return write()


def _check_settings(
    study: Study, base: PretrainConfig, options: StudyOptions, trials: Sequence[Trial]
) -> None:
    """Raises UserError if the study is not possible with this base, whatever the data."""
    from simclr_tf.models.build import resolve_encoder
    from simclr_tf.training.schedule import check_trainable

    settings, num_replicas = base.optimization, options.num_replicas
    if settings.precision == "auto":
        raise UserError(
            "--precision=auto: not supported in studies, because each run could choose "
            "differently. Fix: --precision=bfloat16 or float32"
        )
    resolve_encoder(base)
    varied = {name for trial in trials for name in trial.cell.overrides}
    if settings.train_steps and varied & {"train_epochs", "train_batch_size"}:
        raise UserError(
            f"--train_steps={settings.train_steps}: fixes a setting that {study.name} varies. Fix: "
            "use --train_epochs"
        )
    if study.needs_replicas and num_replicas < 2:
        raise UserError(
            f"--num_replicas={num_replicas}: expected at least 2 (GPUs, or CPU devices), because "
            f"{study.name} compares replicas. Fix: --num_replicas=2"
        )
    for trial in trials:
        batch = trial.config.optimization.train_batch_size
        if num_replicas and batch % num_replicas:
            raise UserError(
                f"--num_replicas={num_replicas}: expected a divisor of the batch size of "
                f"{trial.cell.name}, {batch}. Fix: change one of them"
            )
        check_trainable(trial.config, num_replicas or 1)


def _check_data(
    base: PretrainConfig, evaluation: TrialEvaluation, trials: Sequence[Trial]
) -> TrialEvaluation:
    """Returns the evaluation with a k; UserError if the images cannot be used."""
    from simclr_tf.evaluation.knn import default_k
    from simclr_tf.evaluation.splits import Splits, check_evaluation
    from simclr_tf.training.base_task import open_training_data
    from simclr_tf.training.distribution import single_device
    from simclr_tf.training.schedule import make_plan

    config = base.resolve()
    labels = check_evaluation(Splits.from_config(config.data), evaluation.protocols).labels()
    _, train, _ = open_training_data(config)
    for trial in trials:
        try:
            make_plan(trial.config, train, single_device())
        except UserError as error:
            raise UserError(f"{trial.cell.name}: {error}") from None
    k = evaluation.knn_k or default_k(labels)
    logger.info(f"k-NN with k={k}")
    return dataclasses.replace(evaluation, knn_k=k)


def _check_output(
    output: Path, study: Study, options: StudyOptions, trials: Sequence[Trial]
) -> None:
    """Raises UserError if the directory contains another study, or runs with other settings."""
    file = output / "study.json"
    if file.exists():
        try:
            name = json.loads(file.read_text(encoding="utf-8"))["study"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file} is damaged ({error}). Fix: choose another --output") from None
        if name != study.name:
            raise UserError(
                f"--output={output}: contains the study {name}. Fix: choose another directory"
            )
    for trial in trials:
        if not trial.run_dir.config_file.exists():
            continue
        _, plan = trial.run_dir.read_config()
        plan = dataclasses.replace(plan, num_replicas=options.num_replicas or 1)
        if different := trial.run_dir.diff_settings(trial.config.resolve(), plan):
            raise UserError(
                f"{trial.path} contains a run with other settings: {', '.join(different)}. Fix: "
                "restore the settings, or choose another --output"
            )


def _write_settings(output, study, base, options, cells, command):
    document: dict[str, Any] = {
        "study": study.name,
        "simclr_tf": __version__,
        "command": command,
        "base": to_json(base),
        "cells": [cell.name for cell in cells],
        "seeds": options.seed_list,
        "knn_k": options.knn_k,
        "num_replicas": options.num_replicas,
    }
    atomic_write(output / "study.json", json.dumps(document, indent=1) + "\n")
