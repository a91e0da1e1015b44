"""Table of the results of several runs, with seeds merged."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from simclr_tf.config import DistillConfig, FinetuneConfig, PretrainConfig, TrainingPlan, to_json
from simclr_tf.errors import UserError
from simclr_tf.evaluation.baselines import PCA_DIMS
from simclr_tf.models.resnet import feature_width
from simclr_tf.runs.results_file import Record, read_evaluations, with_defaults
from simclr_tf.runs.run_dir import RunDir, identity_settings
from simclr_tf.utils.tables import format_table

_FEATURES = {
    "": "SimCLR",
    "pca": "PCA of pixels",
    "random": "untrained encoder",
    "supervised": "supervised encoder",
    "projection": "SimCLR, g(h)",
}
_CLASSIFIERS = {
    "knn": "k-NN",
    "logistic": "logistic (L-BFGS)",
    "finetune": "fine-tuned",
    "distill": "own classifier",
}
_HEADERS = ("classifier", "features", "encoder", "dims", "projection", "epochs", "labels")


class _TableRow(NamedTuple):
    """A row, equal for runs that differ only in their seeds."""

    table: tuple[str, ...]
    cells: tuple[str, ...]
    settings: frozenset[tuple[str, str]]


def format_run_table(model_dirs: Sequence[str | Path]) -> str:
    """Formats the evaluations of several runs as Markdown, one table per dataset and metric.

    Results of runs that differ only in their seeds share a row with their median, range and number.
    Rows that differ only in settings without a column name these settings.
    """
    values: dict[_TableRow, list[tuple[int, float]]] = {}
    for path in model_dirs:
        for row, value in _read_rows(RunDir(path)).items():
            values.setdefault(row, []).append(value)
    if not values:
        names = ", ".join(str(path) for path in model_dirs)
        raise UserError(f"--table: {names} has no results. Fix: set --protocols, too")
    tables = dict.fromkeys(row.table for row in values)
    return "\n\n".join(_format(table, values) for table in tables)


def _read_rows(run: RunDir) -> dict[_TableRow, tuple[int, float]]:
    """Returns the seed of a run and its newest value for every row."""
    config, plan = run.read_config()
    pretrain_config, pretrain_plan, step = _find_pretraining(config, plan)
    all_settings = _settings("", config, plan)
    if pretrain_config is not config and pretrain_plan is not None:
        all_settings |= _settings("pretrained with ", pretrain_config, pretrain_plan)
    rows = {}
    for record in map(with_defaults, read_evaluations(run.evaluations_file)):
        protocol, _, column = record["protocol"].partition("/")
        features = _FEATURES.get(column, column)
        if isinstance(config, FinetuneConfig) and not column and protocol != "finetune":
            features = "fine-tuned encoder"
        if isinstance(config, DistillConfig) and not column:
            features = "distilled encoder"
        if column == "supervised":
            epochs = _supervised_epochs(run, record["train_split"])
        else:
            epochs = _epochs(pretrain_plan, record["step"] if step is None else step)
        encoder = _encoder_columns(pretrain_config, epochs, column, record["num_train"])
        table = (record["dataset"], record["train_split"], record["test_split"], record["metric"])
        labels = plan.num_labels if protocol == "distill" else record["num_train"]
        cells = (classifier_label(record), features, *encoder, labels)
        settings = all_settings
        if column in ("pca", "random"):  # they depend on nothing that is trained
            encoder_settings = to_json(config.encoder) if column == "random" else {}
            settings = {"image_size": config.augmentation.evaluation_size, **encoder_settings}
        settings_as_text = frozenset((name, str(value)) for name, value in settings.items())
        row = _TableRow(table, tuple(map(str, cells)), settings_as_text)
        rows[row] = (config.optimization.seed, record["value"])
    return rows


def _settings(prefix: str, config: PretrainConfig, plan: TrainingPlan) -> dict[str, Any]:
    settings = identity_settings(config, plan).items()
    named = {prefix + name.removeprefix("--"): value for name, value in settings}
    return {name: value for name, value in named.items() if name != f"{prefix}seed"}


def _epochs(plan: TrainingPlan | None, steps: int) -> str:
    if plan is None:
        return "?"
    return "–" if plan.is_imported else f"{steps / plan.steps_per_epoch:.4g}"


def _supervised_epochs(run: RunDir, train_split: str) -> str:
    """Returns epochs over its labeled images, which may be fewer than all images."""
    try:
        _, plan = RunDir(run.supervised_dir(train_split)).read_config()
    except UserError:  # it was removed, or the result is of another split
        return "?"
    return _epochs(plan, plan.total_steps)


def _encoder_columns(
    config: PretrainConfig, epochs: str, column: str, num_images: int
) -> tuple[object, ...]:
    """Returns (encoder, dims, projection, epochs)."""
    if column == "pca":
        return (
            "–",
            min(PCA_DIMS, num_images, 3 * config.augmentation.evaluation_size**2),
            "–",
            "–",
        )
    encoder, head = config.encoder, config.projection_head
    if encoder.backbone:
        name, dims = encoder.backbone["class_name"], encoder.backbone["features"]
    else:
        name = f"R{encoder.resnet_depth}"
        if encoder.width_multiplier != 1:
            name += f" × {encoder.width_multiplier:g}"
        dims = feature_width(encoder.resnet_depth, encoder.width_multiplier)
    has_head = head.proj_head_mode != "none" and not isinstance(config, DistillConfig)
    projection = head.proj_out_dim if has_head and column not in ("random", "supervised") else "–"
    if column == "projection" and has_head:
        dims = head.proj_out_dim
    return (name, dims, projection, "–" if column == "random" else epochs)


def classifier_label(record: Record) -> str:
    """Returns the display name of a record's protocol with its setting, without its chosen L2."""
    protocol, setting = record["protocol"].partition("/")[0], record["setting"]
    name = _CLASSIFIERS.get(protocol, protocol)
    if record["protocol"] == "finetune/supervised":
        name = "own classifier"
    if protocol == "logistic" and setting.startswith("adam"):
        name, setting = "logistic (Adam)", setting.removeprefix("adam").removeprefix(", ")
    if setting.startswith("L2="):  # differs between seeds
        setting = f"L2 {setting.partition(', ')[2]}"
    return f"{name}, {setting}" if setting else name


def _find_pretraining(
    config: PretrainConfig, plan: TrainingPlan
) -> tuple[PretrainConfig, TrainingPlan | None, int | None]:
    """Returns config, plan and step of the pretraining that a fine-tuned run started from.

    If its checkpoint has been moved, the config is the fine-tuned run's and the plan None.
    """
    step = None
    while isinstance(config, FinetuneConfig) and config.checkpoints.checkpoint:
        run = RunDir(config.checkpoints.checkpoint)
        try:
            (config, plan), step = run.read_config(), run.latest_step()
        except UserError:
            return config, None, None
    return config, plan, step


def _format(table: tuple[str, ...], values: Mapping[_TableRow, Sequence[tuple[int, float]]]) -> str:
    dataset, train_split, test_split, metric = table
    rows = [row for row in values if row.table == table]
    lines = []
    for row in rows:
        classifier, features, *rest = row.cells
        ambiguous = [other.settings for other in rows if other.cells == row.cells]
        own = sorted(row.settings - frozenset.intersection(*ambiguous))
        features = ", ".join([features, *(f"{name} {value}" for name, value in own)])
        lines.append([classifier, features, *rest, _format_median(values[row])])
    markdown = format_table(lines, [*_HEADERS, metric], markdown=True, align="lllrrrrr")
    return f"{dataset}: trained on {train_split}, tested on {test_split}\n\n{markdown}"


def _format_median(results: Sequence[tuple[int, float]]) -> str:
    seeds, percents = {seed for seed, _ in results}, [100 * value for _, value in results]
    text = f"{median(percents):.1f}"
    if len(set(percents)) > 1:
        unit = "seeds" if len(seeds) == len(percents) else "runs"
        text += f" ({min(percents):.1f}–{max(percents):.1f}, {len(percents)} {unit})"
    return text
