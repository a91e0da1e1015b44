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
from simclr_tf.cli.training_flags import (
    CROP_AND_FLIP,
    NO_EFFECT,
    OF_THE_RUN,
    SECTIONS,
    Section,
    check_architecture,
    check_no_microbatch,
    check_run,
    define_training,
    heading,
    sections_of_run,
    sections_with_a_run,
    seen_at_the_end,
)

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
_OF_PRETRAINING = (
    *("loss", "margin", "temperature", "hidden_norm", "lineareval_while_pretraining"),
    *("knn_every_epochs", "probe_dataset"),
)


def define(values: flags.FlagValues) -> dict[str, list[str]]:
    optimization = {**vars(_OPTIMIZATION), "train_epochs": None}
    sections: list[Section] = [
        (heading(config.FineTuning), config.FineTuning, {}),
        *sections_with_a_run(OF_THE_RUN, "the run's", optimization),
    ]
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
    finetuning = read_section(values, config.FineTuning)
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
        monitoring=read_section(values, config.Monitoring),
        checkpoints=checkpoints,
        finetuning=finetuning,
    )
    devices = read_section(values, config.Distribution)
    check_no_microbatch(finetune_config)
    note_no_effect(values, (*NO_EFFECT, *_OF_PRETRAINING))

    from simclr_tf.evaluation.evaluate import evaluate_classifier
    from simclr_tf.evaluation.splits import check_evaluation
    from simclr_tf.exporter.export_run import export_run
    from simclr_tf.training.distribution import make_distribution
    from simclr_tf.training.tasks import finetune

    if values.mode == "train_then_eval":
        check_evaluation(finetune_config.resolve().data, ())
    if values.mode != "eval":
        replicas = make_distribution(devices)
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
    evaluate_classifier(
        values.model_dir, batch_size=values.eval_batch_size, data=seen_at_the_end(values)
    )
    export_run(values.model_dir)


def _sections_of_the_run(values: flags.FlagValues, checkpoint: str) -> dict[str, Any]:
    """The sections that are the checkpoint's run's where nothing else is said."""
    if not checkpoint:
        bases = {"augmentation": config.Augmentation(**CROP_AND_FLIP)}
        return {n: read_section(values, SECTIONS[n], bases.get(n)) for n in OF_THE_RUN}
    from simclr_tf.runs.run_dir import RunDir

    of_run, _ = RunDir(Path(checkpoint)).read_config()
    sections = sections_of_run(values, of_run, OF_THE_RUN)
    for name in ("encoder", "projection_head"):
        check_architecture(getattr(of_run, name), sections[name], checkpoint, _OF_PRETRAINING)
    return sections
