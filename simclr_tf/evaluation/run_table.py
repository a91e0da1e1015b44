"""The table of what several runs hold, laid out for a document."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from simclr_tf.config import DistillConfig, FinetuneConfig, PretrainConfig, TrainingPlan, to_json
from simclr_tf.errors import UserError
from simclr_tf.evaluation.baselines import PCA_DIMS
from simclr_tf.models.resnet import feature_width
from simclr_tf.runs.results_file import markdown_row, read_evaluations, with_defaults
from simclr_tf.runs.run_dir import RunDir, identity_settings

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
    "distill": "its own head",
}
_HEADER = ("classifier", "features", "encoder", "dims", "projection", "epochs", "labels")


@dataclass(frozen=True)
class _Line:
    """One row: what is equal in runs that differ in their seeds alone."""

    table: tuple[str, ...]
    cells: tuple[str, ...]
    settings: frozenset[tuple[str, str]]


def format_run_table(model_dirs: Sequence[Path]) -> str:
    """Return Markdown: the evaluations of pretraining and fine-tuning runs, a line for each kind.

    Figures of runs that differ in their seeds alone stand in one line, as their median, range and
    number; lines that are of other settings and would look alike name those. There is a table for
    every dataset, its splits and metric.

    Raises:
        UserError: one is no run, or none has been evaluated.
    """
    values: dict[_Line, list[tuple[int, float]]] = {}
    for path in model_dirs:
        for line, value in _lines(RunDir(path)).items():
            values.setdefault(line, []).append(value)
    if not values:
        names = ", ".join(str(path) for path in model_dirs)
        raise UserError(f"--table: nothing has been evaluated in {names}; name --protocols too")
    tables = dict.fromkeys(line.table for line in values)
    return "\n\n".join(_format(table, values) for table in tables)


def _lines(run: RunDir) -> dict[_Line, tuple[int, float]]:
    """The seed of a run, and its newest figure of every kind."""
    config, plan = run.read_config()
    pretraining, its_plan, step = _pretraining(config, plan)
    everything = _settings("", config, plan)
    if pretraining is not config and its_plan is not None:
        everything |= _settings("pretrained with ", pretraining, its_plan)
    found = {}
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
            epochs = _epochs(its_plan, record["step"] if step is None else step)
        about = _about(pretraining, epochs, column, record["num_train"])
        table = (record["dataset"], record["train_split"], record["test_split"], record["metric"])
        labels = plan.num_labels if protocol == "distill" else record["num_train"]
        cells = (classifier_label(record), features, *about, labels)
        settings = everything if column not in ("pca", "random") else _of_images(config, column)
        line = _Line(table, tuple(map(str, cells)), frozenset(settings.items()))
        found[line] = (config.optimization.seed, record["value"])
    return found


def _settings(prefix: str, config: PretrainConfig, plan: TrainingPlan) -> dict[str, str]:
    settings = {
        prefix + name.removeprefix("--"): str(value)
        for name, value in identity_settings(config, plan).items()
    }
    del settings[f"{prefix}seed"]
    return settings


def _of_images(config: PretrainConfig, column: str) -> dict[str, str]:
    """What a baseline that has not been trained depends on."""
    encoder = to_json(config.encoder) if column == "random" else {}
    return {"image_size": str(config.augmentation.image_size)} | {
        k: str(v) for k, v in encoder.items()
    }


def _epochs(plan: TrainingPlan | None, steps: int) -> str:
    if plan is None:
        return "?"
    return "–" if plan.is_imported else f"{steps / plan.steps_per_epoch:.4g}"


def _supervised_epochs(run: RunDir, train_split: str) -> str:
    """Over its own labelled images, which may be fewer than those without labels."""
    try:
        _, plan = RunDir(run.supervised_dir(train_split)).read_config()
    except UserError:  # it has been removed, or its figures are of another split
        return "?"
    return _epochs(plan, plan.total_steps)


def _about(config: PretrainConfig, epochs: str, column: str, images: int) -> tuple[object, ...]:
    """(encoder, dims, projection, epochs) of a representation."""
    if column == "pca":
        return ("–", min(PCA_DIMS, images, 3 * config.augmentation.image_size**2), "–", "–")
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


def classifier_label(record: Any) -> str:
    """Return what a protocol is called, with the setting that is not of one seed alone."""
    protocol, setting = record["protocol"].partition("/")[0], record["setting"]
    name = _CLASSIFIERS.get(protocol, protocol)
    if record["protocol"] == "finetune/supervised":
        name = "its own head"
    if protocol == "logistic" and setting.startswith("adam"):
        name, setting = "logistic (Adam)", setting.removeprefix("adam").removeprefix(", ")
    if setting.startswith("L2="):  # another value for every seed
        setting = f"L2 {setting.partition(', ')[2]}"
    return f"{name}, {setting}" if setting else name


def _pretraining(
    config: PretrainConfig, plan: TrainingPlan
) -> tuple[PretrainConfig, TrainingPlan | None, int | None]:
    """What the encoder was pretrained as; of a fine-tuned run its checkpoint's, and up to where.

    Of a checkpoint that has been moved away it is what the fine-tuned run knows, and no plan.
    """
    step = None
    while isinstance(config, FinetuneConfig) and config.checkpoints.checkpoint:
        run = RunDir(Path(config.checkpoints.checkpoint))
        try:
            (config, plan), step = run.read_config(), run.latest_step()
        except UserError:
            return config, None, None
    return config, plan, step


def _format(table: tuple[str, ...], values: dict[_Line, list[tuple[int, float]]]) -> str:
    dataset, train_split, test_split, metric = table
    lines = [
        f"{dataset}: learnt from {train_split}, judged on {test_split}",
        "",
        markdown_row([*_HEADER, metric]),
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    shown = [line for line in values if line.table == table]
    for line in shown:
        classifier, features, *rest = line.cells
        alike = [other.settings for other in shown if other.cells == line.cells]
        own = sorted(line.settings - frozenset.intersection(*alike))
        features = ", ".join([features, *(f"{name} {value}" for name, value in own)])
        lines.append(markdown_row([classifier, features, *rest, _spread(values[line])]))
    return "\n".join(lines)


def _spread(found: list[tuple[int, float]]) -> str:
    seeds, values = {seed for seed, _ in found}, [100 * value for _, value in found]
    text = f"{median(values):.1f}"
    if len(set(values)) > 1:
        what = "seeds" if len(seeds) == len(values) else "runs"
        text += f" ({min(values):.1f}–{max(values):.1f}, {len(values)} {what})"
    return text
