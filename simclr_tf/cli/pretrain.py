"""Train an encoder on images without labels.

Trains SimCLR from random weights and writes a run directory: config.json, metrics.jsonl,
checkpoints/ and tensorboard/. Started again with the same --model_dir, it goes on where it stopped.
The reference implementation's flags keep their names, meaning and defaults.

  simclr-tf pretrain --dataset=folder:photos --image_size=96 --resnet_depth=18 --model_dir=runs/a
"""

from absl import flags

from simclr_tf import config
from simclr_tf.cli.flags import note_no_effect, read_section
from simclr_tf.cli.training_flags import (
    NO_EFFECT,
    SECTIONS,
    Section,
    check_run,
    define_training,
    heading,
)

_OF_FINETUNE = ("zero_init_logits_layer", "fine_tune_after_block", "ft_proj_selector")


def define(values: flags.FlagValues) -> dict[str, list[str]]:
    sections: list[Section] = [(heading(section), section, {}) for section in SECTIONS.values()]
    return define_training(values, "pretrain", "train", sections, (*NO_EFFECT, *_OF_FINETUNE))


def run(values: flags.FlagValues) -> None:
    pretrain_config = config.PretrainConfig(
        **{name: read_section(values, section) for name, section in SECTIONS.items()}
    )
    devices = read_section(values, config.Distribution)
    check_run(values, "pretrain")
    note_no_effect(values, (*NO_EFFECT, *_OF_FINETUNE))

    from simclr_tf.evaluation import KNN, Logistic
    from simclr_tf.evaluation.evaluate import evaluate_run
    from simclr_tf.evaluation.options import EvalOptions
    from simclr_tf.evaluation.splits import check_evaluation
    from simclr_tf.exporter.export_run import export_run
    from simclr_tf.training.distribution import make_distribution
    from simclr_tf.training.tasks import pretrain

    protocols = KNN(), Logistic()
    if values.mode == "train_then_eval":
        check_evaluation(pretrain_config.resolve().data, protocols)
    if values.mode != "eval":
        replicas = make_distribution(devices)
        pretrain(pretrain_config, values.model_dir, replicas, devices.steps_per_execution)
        if not replicas.is_chief:
            return
    if values.mode == "train":
        print(f"next: simclr-tf evaluate --model_dir={values.model_dir}")
        print(f"      tensorboard --logdir {values.model_dir}/tensorboard")
        return

    def given(name):  # what was not said is the run's
        return values[name].value if values[name].present else ""

    request = EvalOptions(
        protocols,
        datasets=[given("dataset")] if given("dataset") else (),
        train_split=given("train_split"),
        test_split=given("eval_split"),
        data_dir=given("data_dir"),
        skip_unreadable=bool(given("skip_unreadable")),
        batch_size=values.eval_batch_size,
    )
    evaluate_run(values.model_dir, request)
    export_run(values.model_dir)
