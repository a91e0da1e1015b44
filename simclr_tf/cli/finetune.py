"""Train an encoder and a new classifier on top of it with labels.

Starts from the encoder of a run (--checkpoint), or from the first layers of its projection head;
takes all labels or a class-balanced share of them. Writes a run directory like pretraining's, goes
on where it stopped, and at the end measures the accuracy on eval_split and exports encoder and
classifier. What is not said about data and architecture is the checkpoint's run's; another dataset
comes with its usual splits.

  simclr-tf finetune --checkpoint=runs/a --label_fraction=0.1 --model_dir=runs/a-10percent
"""

import dataclasses
from pathlib import Path
from typing import Any

from absl import flags

from simclr_tf import config
from simclr_tf.cli.flags import note_no_effect, read_section
from simclr_tf.cli.training import (
    NO_EFFECT,
    SECTIONS,
    Section,
    check_run,
    define_training,
    heading,
)
from simclr_tf.errors import UserError

# The paper's protocol [v1 B.5]: Nesterov 0.9, 0.05·B/256, no warm-up, no decay, crop and flip.
_OPTIMIZATION = config.Optimization(
    optimizer="momentum",
    learning_rate=0.05,
    warmup_epochs=0.0,
    weight_decay=0.0,
    train_batch_size=256,
    train_epochs=30,
)
_FEW_LABELS_EPOCHS = 60  # where there are 1 % of the labels or less
_ONE_PERCENT_OF_IMAGENET = "imagenet2012_subset/1pct"
_VIEWS: dict[str, Any] = {
    "color_jitter_strength": 0.0,
    "use_blur": False,
    "use_grayscale": False,
    "policy": "simclr",
    "transformations": "",
}
_OF_THE_RUN = ("data", "views", "encoder", "head")
# What changes how a given architecture is trained, not what it is.
_MAY_DIFFER = ("global_bn", "batch_norm_decay")
# Of the data, what --mode=eval may name anew.
_SEEN_AT_THE_END = ("dataset", "data_dir", "eval_split", "skip_unreadable")
_OF_PRETRAINING = (
    *("loss", "margin", "temperature", "hidden_norm", "lineareval_while_pretraining"),
    *("knn_every_epochs", "probe_dataset"),
)


def define(values: flags.FlagValues) -> dict[str, list[str]]:
    sections: list[Section] = [(heading(config.Finetuning), config.Finetuning, {})]
    for name, section in SECTIONS.items():
        title, defaults = heading(section), {}
        if name in _OF_THE_RUN:
            title += " (the run's unless given)"
            defaults = dict.fromkeys((f.name for f in dataclasses.fields(section)), None)
            defaults |= _VIEWS if name == "views" else {}
        elif name == "optimization":
            defaults = {**vars(_OPTIMIZATION), "train_epochs": None}
        sections.append((title, section, defaults))
    groups = define_training(values, "finetune", "train_then_eval", sections, NO_EFFECT)
    values["train_epochs"].help = (
        "Passes over the labelled images; unless given 30, or 60 with labels_per_class or at most "
        "1 % of the labels."
    )
    values[
        "train_batch_size"
    ].help = (
        "Global batch, in images; unless given 256, or all labelled images where they are fewer."
    )
    return groups


def run(values: flags.FlagValues) -> None:
    check_run(values, "finetune")
    finetuning = read_section(values, config.Finetuning)
    checkpoints = read_section(values, config.Checkpoints)
    finetuning.check_start(checkpoints.checkpoint)
    of_the_run = _sections_of_the_run(values, checkpoints.checkpoint)
    few = finetuning.labels_per_class or finetuning.label_fraction <= 0.01
    few = few or of_the_run["data"].dataset.startswith(_ONE_PERCENT_OF_IMAGENET)
    base = dataclasses.replace(
        _OPTIMIZATION, train_epochs=_FEW_LABELS_EPOCHS if few else _OPTIMIZATION.train_epochs
    )
    finetune_config = config.FinetuneConfig(
        **of_the_run,
        optimization=read_section(values, config.Optimization, base),
        watching=read_section(values, config.Watching),
        checkpoints=checkpoints,
        finetuning=finetuning,
    )
    devices = read_section(values, config.Devices)
    if finetune_config.optimization.microbatch_size:
        raise UserError(
            "--microbatch_size is of the contrastive loss, where the batch matters; here, lower "
            "--train_batch_size"
        )
    note_no_effect(values, (*NO_EFFECT, *_OF_PRETRAINING))

    from simclr_tf.distribution import open_replicas
    from simclr_tf.evaluation.request import check_evaluation
    from simclr_tf.evaluation.runs import evaluate_classifier
    from simclr_tf.export.runs import export_run
    from simclr_tf.training.finetune import finetune

    if values.mode == "train_then_eval":
        check_evaluation(finetune_config.resolved().data, ())
    if values.mode != "eval":
        replicas = open_replicas(devices)
        finetune(
            finetune_config,
            values.model_dir,
            replicas,
            devices.steps_per_execution,
            fit_batch=not values["train_batch_size"].present,
        )
        if not replicas.is_chief:
            return
    if values.mode == "train":
        print(f"next: the same command with --mode=eval measures and exports {values.model_dir}")
        return
    changes = {name: values[name].value for name in _SEEN_AT_THE_END if values[name].present}
    evaluate_classifier(values.model_dir, batch_size=values.eval_batch_size, data=changes)
    export_run(values.model_dir)


def _sections_of_the_run(values: flags.FlagValues, checkpoint: str) -> dict[str, Any]:
    """The sections that are the checkpoint's run's where nothing else is said."""
    if not checkpoint:
        bases = {"views": config.Views(**_VIEWS)}
        return {n: read_section(values, SECTIONS[n], bases.get(n)) for n in _OF_THE_RUN}
    from simclr_tf.evaluation.transfer import transfer_set
    from simclr_tf.run import Run

    of_run, _ = Run(Path(checkpoint)).read()
    before = {name: getattr(of_run, name) for name in _OF_THE_RUN}
    dataset = values.dataset
    if dataset and dataset != before["data"].dataset:  # the run's splits say nothing of it
        usual = transfer_set(dataset)
        before["data"] = dataclasses.replace(
            before["data"],
            train_split=usual.train_split or "train",
            eval_split=usual.test_split or "test",
            validation_fraction=0.0,
        )
    before["views"] = dataclasses.replace(before["views"], **_VIEWS)
    size = values.image_size
    if size and size != before["views"].image_size:  # stored as this size needs it
        before["data"] = dataclasses.replace(before["data"], storage_size=0)
    sections = {name: read_section(values, SECTIONS[name], before[name]) for name in _OF_THE_RUN}
    for name in ("encoder", "head"):
        old, new = vars(before[name]), vars(sections[name])
        for flag in old:
            free = flag in (*_MAY_DIFFER, *_OF_PRETRAINING) or new[flag] == "auto"
            if old[flag] != new[flag] and not free:
                raise UserError(
                    f"--{flag}={new[flag]}: the encoder of --checkpoint={checkpoint} has "
                    f"{old[flag]}; leave the flag out"
                )
    return sections
