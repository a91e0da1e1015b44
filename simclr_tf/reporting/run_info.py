"""Settings, state, versions, hardware and duration of a run."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from simclr_tf import __version__
from simclr_tf.config import PretrainConfig, TrainingPlan
from simclr_tf.errors import UserError
from simclr_tf.option_groups import Data
from simclr_tf.options import option_fields
from simclr_tf.reporting.html import Table
from simclr_tf.runs.metrics_log import Row, read_metrics
from simclr_tf.runs.results_file import Record, read_evaluations
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.runs.status import get_status
from simclr_tf.utils.hardware import HardwareInfo, detect_hardware
from simclr_tf.utils.paths import shell_join


@dataclass(frozen=True)
class RunInfo:
    """Contents of a run's files, without its model and images.

    `step` is that of the newest checkpoint, None without one; `notes` are about missing parts.
    """

    run: RunDir
    config: PretrainConfig
    plan: TrainingPlan
    rows: Sequence[Row]
    records: Sequence[Record]
    step: int | None
    notes: tuple[str, ...]

    @property
    def state(self) -> str:
        """The state and progress of the run, in words."""
        if self.plan.is_imported:
            return "imported weights"
        total, saved = self.plan.total_steps, self.step or 0
        step = max(saved, self.rows[-1]["step"] if self.rows else 0)
        state = get_status(self.run, total, saved)
        where = f"at step {step:,} of {total:,}, epoch {step / self.plan.steps_per_epoch:.4g}"
        why = f" ({state.reason})" if state.reason and state.name != "running" else ""
        return f"{state.name} {where}{why}"

    @property
    def labeled_data(self) -> Data:
        """The data on which the run is evaluated by default."""
        return self.config.labeled_data(self.plan.num_classes is not None)

    @property
    def probed(self) -> str:
        """Dataset and test split of the probes during training."""
        return f"{self.config.probe_data.dataset} {self.config.probe_data.eval_split}"

    @property
    def command(self) -> str:
        """The command that started the run; "" for runs that did not record it."""
        return shell_join(self.run.read_command())


def load_run_info(run: RunDir) -> RunInfo:
    """Reads the files of a run; raises UserError if it is not a run, or a file is damaged."""
    config, plan = run.read_config()
    rows, records = read_metrics(run.metrics_file), read_evaluations(run.evaluations_file)
    notes = []
    try:
        step = run.latest_step() if run.latest_checkpoint() else None
    except UserError as error:
        step = None
        notes.append(str(error))
    if step is None:
        notes.append(
            "No checkpoint yet: sections that need the encoder are omitted. Run the command again "
            "after the first checkpoint."
        )
    if not rows and not plan.is_imported:
        every = config.monitoring.log_every
        notes.append(f"No metrics have been logged yet (--log_every={every}).")
    return RunInfo(run, config, plan, rows, records, step, tuple(notes))


def settings_tables(config: PretrainConfig) -> list[tuple[str, Table]]:
    """Returns (heading, table of options with values and defaults) of every option group."""
    tables = []
    for name, group in vars(config).items():
        rows = [
            (f"--{option.name}", _format(getattr(group, option.name)), _format(option.default))
            for option in option_fields(group)
        ]
        heading = (type(group).__doc__ or name).strip().splitlines()[0]
        tables.append((heading, Table(("option", "value", "default"), rows)))
    return tables


def _format(value: Any) -> str:
    return "–" if value == "" else str(value)


def summary_rows(info: RunInfo) -> list[tuple[str, str]]:
    """Returns (name, value) pairs that describe the run."""
    config, plan = info.config, info.plan
    document = json.loads(info.run.config_file.read_text(encoding="utf-8"))
    workers = f", of {plan.num_workers} workers" if plan.num_workers > 1 else ""
    unknown = "not recorded by the version that wrote this run"
    return [
        ("directory", str(info.run.path)),
        ("command", config.task),
        ("state", info.state),
        ("encoder", config.encoder.describe()),
        ("data", config.data.dataset),
        (
            "training images",
            f"{plan.num_examples:,} of {config.data.train_split}" if plan.num_examples else "?",
        ),
        ("replicas", f"{plan.num_replicas}{workers}"),
        ("precision", config.optimization.precision),
        ("newest checkpoint", "none" if info.step is None else f"step {info.step:,}"),
        ("time in training steps", _duration(training_seconds(info))),
        ("time in evaluations", _duration(sum(record["seconds"] for record in info.records))),
        ("written by", f"simclr_tf {document['simclr_tf']}"),
        (
            "started or resumed on",
            str(HardwareInfo(**document["machine"])) if "machine" in document else unknown,
        ),
        ("this report", f"simclr_tf {__version__} on {detect_hardware()}"),
    ]


def training_seconds(info: RunInfo) -> float:
    """Returns the time in training steps, without compilation, evaluations and checkpoints."""
    views = getattr(getattr(info.config, "finetuning", None), "views_per_image", None)
    if views is None:
        is_distill = info.config.task == "distill"
        views = 1 if is_distill else info.config.contrastive_loss.views_per_image
    batch = info.config.optimization.train_batch_size
    seconds, before = 0.0, 0.0
    for row in info.rows:
        if row.get("views_per_second"):
            seconds += views * batch * (row["step"] - before) / row["views_per_second"]
        before = row["step"]
    return seconds


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"
