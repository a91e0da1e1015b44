"""A study from what was asked to its table: checked, run, and written as far as it has come."""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from simclr_tf import __version__
from simclr_tf.config import PretrainConfig, to_json
from simclr_tf.errors import UserError
from simclr_tf.evaluation.splits import check_evaluation
from simclr_tf.models.build import resolve_encoder
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.study.grid import Cell, Study
from simclr_tf.study.plot import draw
from simclr_tf.study.results import Report, Result
from simclr_tf.study.runner import run_trials, slots_for
from simclr_tf.study.trial import Judging, Trial, trials_of
from simclr_tf.training.base_task import open_training_data
from simclr_tf.training.distribution import single_device
from simclr_tf.training.schedule import check_trainable, make_plan
from simclr_tf.utils.files import atomic_write, check_output_path, directory_lock

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked of a study.

    Attributes:
        study: which one it is.
        cells: of its grid.
        base: what they are laid over.
        seeds: of each cell's runs.
        output: the directory for runs/, study.json, results.json, results.csv, table.md and the
            picture, NAME.png.
        processes: at a time; 0: one for each GPU, or one.
        num_replicas: of every run; 0: one device.
        knn_k: neighbours that vote.
        batch_size: images per call in evaluation.
        command: for the record.
    """

    study: Study
    cells: Sequence[Cell]
    base: PretrainConfig
    seeds: Sequence[int]
    output: Path
    processes: int = 0
    num_replicas: int = 0
    knn_k: int = 200
    batch_size: int = 256
    command: str = ""

    @property
    def judging(self) -> Judging:
        features = self.output / "features"
        return Judging(self.study.columns, self.knn_k, self.batch_size, features)

    @property
    def trials(self) -> list[Trial]:
        return trials_of(self.cells, self.base, self.seeds, self.output / "runs")


def conduct(request: Request, say: Say = print) -> Report:
    """Runs what is not finished of a study, and writes what came of it after every run.

    Returns:
        The whole of it, failed runs included.

    Raises:
        UserError: before any run, what was asked is not possible.
        SystemExit: 143 after SIGTERM, 130 after SIGINT; the same call goes on.
    """
    # Runs have processes of their own, and the GPUs are theirs.
    gpus = len(tf.config.list_physical_devices("GPU"))
    tf.config.set_visible_devices([], "GPU")
    check_output_path(request.output, "output")
    trials = request.trials
    slots = slots_for(request.processes, request.num_replicas, gpus)
    _check_settings(request, trials)
    _check_data(request, trials)

    waiting = f"another study is at {request.output}: waiting for it"
    with directory_lock(request.output / "runs", lambda: say(waiting)):
        _check_output(request, trials)
        _write_request(request)
        judging = request.judging
        results = {trial.name: Result(trial, judging.figures(trial)) for trial in trials}
        left = [result.trial for result in results.values() if result.figures is None]

        def report() -> Report:
            return Report(request.study, request.base, request.command, list(results.values()))

        many = f"{len(request.cells)} cells × {len(request.seeds)} seeds"
        done = len(trials) - len(left)
        say(
            f"study {request.study.name}: {many} = {len(trials)} runs, {done} of them finished "
            f"already; {len(slots)} at a time, in {request.output}/runs"
        )
        # Closed, so that no process outlives a fault of this one.
        with contextlib.closing(run_trials(left, slots, judging, say, done)) as outcomes:
            for outcome in outcomes:
                trial, failure = outcome.trial, outcome.failure
                figures = None if failure else judging.figures(trial)
                if figures is None:
                    failure = failure or "not all of its figures are in its evaluations.json"
                results[trial.name] = Result(trial, figures, failure)
                if figures:
                    say("  " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))
                _write(report(), request.output)
        _write(report(), request.output)
    return report()


def _write(report: Report, output: Path) -> None:
    report.write(output)
    draw(report, output / f"{report.study.name}.png")


def _check_settings(request: Request, trials: Sequence[Trial]) -> None:
    """Raises UserError where the study does not go with the base, whatever the data."""
    study, settings = request.study, request.base.optimization
    if settings.precision == "auto":
        raise UserError(
            "--precision=auto: every run of a study would find out its own; name one, bfloat16 or "
            "float32"
        )
    resolve_encoder(request.base)
    varied = {name for cell in request.cells for name in cell.overrides}
    if settings.train_steps and varied & {"train_epochs", "train_batch_size"}:
        raise UserError(
            f"--train_steps={settings.train_steps} fixes what {study.name} varies: give "
            "--train_epochs"
        )
    if study.needs_replicas and request.num_replicas < 2:
        raise UserError(
            f"{study.name} compares replicas: give --num_replicas=2 or more (GPUs, or CPU devices)"
        )
    for trial in trials:
        batch = trial.config.optimization.train_batch_size
        if request.num_replicas and batch % request.num_replicas:
            raise UserError(
                f"--num_replicas={request.num_replicas} does not divide the batch of {batch} "
                f"images of {trial.cell.name}"
            )
        check_trainable(trial.config, request.num_replicas or 1)


def _check_output(request: Request, trials: Sequence[Trial]) -> None:
    """Raises UserError if the directory holds another study, or runs with other settings."""
    file = request.output / "study.json"
    if file.exists():
        try:
            name = json.loads(file.read_text(encoding="utf-8"))["study"]
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file} is damaged ({error}): name another --output") from None
        if name != request.study.name:
            raise UserError(
                f"--output={request.output} holds the study {name}: name another directory"
            )
    for trial in trials:
        run = RunDir(trial.path)
        if run.config_file.exists():
            _, plan = run.read_config()
            plan = dataclasses.replace(plan, num_replicas=request.num_replicas or 1)
            if differing := run.diff_settings(trial.config.resolve(), plan):
                raise UserError(
                    f"{run.path} holds a run with other settings: {', '.join(differing)}; restore "
                    "them, or name another --output"
                )


def _check_data(request: Request, trials: Sequence[Trial]) -> None:
    """Raises UserError if the images cannot be learnt from or judged on."""
    data = request.base.resolve().data
    check_evaluation(data, request.judging.protocols)
    train, _ = open_training_data(request.base.resolve())
    for trial in trials:
        try:
            make_plan(trial.config, train, single_device())
        except UserError as error:
            raise UserError(f"{trial.cell.name}: {error}") from None


def _write_request(request: Request) -> None:
    document: dict[str, Any] = {
        "study": request.study.name,
        "simclr_tf": __version__,
        "command": request.command,
        "base": to_json(request.base),
        "cells": [cell.name for cell in request.cells],
        "seeds": list(request.seeds),
        "knn_k": request.knn_k,
        "num_replicas": request.num_replicas,
    }
    atomic_write(request.output / "study.json", json.dumps(document, indent=1) + "\n")
