"""Train an encoder of any size to answer as a teacher does, on images without labels.

The teacher is a fine-tuned run or an exported SavedModel with a classifier; the student, an encoder
under a linear classifier, learns from its answers, and from labels only with --distill_alpha below
1. What is not said about data and architecture is the teacher's run's, so that a student without
flags of its own has the teacher's architecture (self-distillation); --checkpoint starts its encoder
from a run's weights. It goes on where it stopped, and at the end measures the accuracy, where
eval_split has the teacher's classes, and exports encoder and classifier.

  simclr-tf distill --teacher=runs/a-10percent --width_multiplier=0.5 --model_dir=runs/student
"""

import dataclasses
from pathlib import Path
from typing import Any

from absl import flags

from simclr_tf import config
from simclr_tf.cli.flags import note_no_effect, read_section
from simclr_tf.cli.training_flags import (
    CROP_AND_FLIP,
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
from simclr_tf.errors import UserError

# SimCLR v2 distils as it pretrains [v2 §3]: LARS, 0.1·√B, warm-up over a twentieth of the run.
_OPTIMIZATION = config.Optimization(
    learning_rate=0.1,
    learning_rate_scaling="sqrt",
    warmup_epochs=20,
    weight_decay=1e-4,
    train_epochs=400,
)
_OF_THE_TEACHER = ("data", "augmentation", "encoder")
_WITHOUT = (config.ProjectionHead, config.ContrastiveLoss)
_OF_PRETRAINING = ("knn_every_epochs", "probe_dataset")


def define(values: flags.FlagValues) -> dict[str, list[str]]:
    of_a_run = sections_with_a_run(_OF_THE_TEACHER, "the teacher's run's", vars(_OPTIMIZATION))
    sections: list[Section] = [
        (heading(config.Distillation), config.Distillation, {}),
        *(section for section in of_a_run if section[1] not in _WITHOUT),
    ]
    return define_training(values, "distill", "train_then_eval", sections, ())


def run(values: flags.FlagValues) -> None:
    check_run(values, "distill")
    distillation = read_section(values, config.Distillation)
    checkpoints = read_section(values, config.Checkpoints)
    distill_config = config.DistillConfig(
        **_sections(values, distillation.teacher, checkpoints.checkpoint),
        projection_head=config.ProjectionHead(proj_head_mode="none"),
        optimization=read_section(values, config.Optimization, _OPTIMIZATION),
        monitoring=read_section(values, config.Monitoring),
        checkpoints=checkpoints,
        distillation=distillation,
    )
    check_no_microbatch(distill_config)
    devices = read_section(values, config.Distribution)
    note_no_effect(values, _OF_PRETRAINING)

    from simclr_tf.evaluation.evaluate import evaluate_classifier
    from simclr_tf.exporter.export_run import export_run
    from simclr_tf.training.distribution import make_distribution
    from simclr_tf.training.tasks import distill

    if values.mode != "eval":
        replicas = make_distribution(devices)
    measured = values.mode != "train" and _is_measured(values, distill_config)
    if values.mode != "eval":
        distill(distill_config, values.model_dir, replicas, devices.steps_per_execution)
        if not replicas.is_chief:
            return
    if values.mode == "train":
        print(f"next: the same command with --mode=eval measures and exports {values.model_dir}")
        return
    if measured:
        evaluate_classifier(
            values.model_dir, batch_size=values.eval_batch_size, data=seen_at_the_end(values)
        )
    export_run(values.model_dir)


def _sections(values: flags.FlagValues, teacher: str, checkpoint: str) -> dict[str, Any]:
    """Data and views of the teacher's run, and the encoder of the checkpoint's, else of its own."""
    from simclr_tf.runs.run_dir import RunDir

    of_teacher = RunDir(Path(teacher))
    if of_teacher.config_file.exists():
        before, _ = of_teacher.read_config()
    else:  # an exported model does not tell
        before = config.PretrainConfig(
            read_section(values, config.Data), config.Augmentation(**CROP_AND_FLIP)
        )
    sections = sections_of_run(values, before, ("data", "augmentation"))
    encoder = before.encoder
    if checkpoint:
        of_checkpoint, _ = RunDir(Path(checkpoint)).read_config()
        encoder = of_checkpoint.encoder
    elif values.encoder not in (None, encoder.encoder):  # whose size says nothing of this kind
        encoder = config.Encoder()
    else:  # its architecture, not what it started from
        encoder = dataclasses.replace(encoder, preset_weights=not encoder.preset)
    sections["encoder"] = read_section(values, SECTIONS["encoder"], encoder)
    if checkpoint:
        check_architecture(encoder, sections["encoder"], checkpoint)
    return sections


def _is_measured(values: flags.FlagValues, run: config.DistillConfig) -> bool:
    """Whether eval_split can judge the student; where one was asked for, it must."""
    from simclr_tf.evaluation.evaluate import open_test_split
    from simclr_tf.evaluation.splits import Splits
    from simclr_tf.models.teacher import load_teacher
    from simclr_tf.runs.run_dir import RunDir

    if values.mode == "eval":  # its teacher may be gone
        names = RunDir(Path(values.model_dir)).read_config()[1].class_names
    else:
        names = load_teacher(run.distillation.teacher).class_names
    try:
        open_test_split(Splits.from_config(run.resolve().data), names, with_labels=False)
    except UserError as error:
        if values["eval_split"].present:
            raise
        print(f"note: the student's accuracy will not be measured: {error}")
        return False
    return True
