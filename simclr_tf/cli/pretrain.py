"""Train an encoder on images without labels.

Trains SimCLR from random weights and writes a run directory: config.json, metrics.jsonl,
checkpoints/ and tensorboard/. Started again with the same --model_dir, it goes on where it stopped.
The reference implementation's flags keep their names, meaning and defaults.

  simclr-tf pretrain --dataset=folder:photos --image_size=96 --resnet_depth=18 --model_dir=runs/a
"""

from absl import flags

from simclr_tf import config
from simclr_tf.cli.flags import define_section, note_no_effect, read_section
from simclr_tf.errors import UserError

SECTIONS = {
    "data": config.Data,
    "views": config.Views,
    "encoder": config.Encoder,
    "head": config.Head,
    "optimization": config.Optimization,
    "watching": config.Watching,
    "checkpoints": config.Checkpoints,
}
# Of the reference's commands; nothing here depends on them.
NO_EFFECT = ("train_summary_steps", "variable_schema", "eval_name", "master", "eval_steps")
_OF_FINETUNE = ("zero_init_logits_layer", "fine_tune_after_block", "ft_proj_selector")


def define(values: flags.FlagValues) -> dict[str, list[str]]:
    flags.DEFINE_string(
        "model_dir", None, "The run directory; made if it does not exist.", flag_values=values
    )
    flags.DEFINE_enum(
        "mode",
        "train",
        ["train", "eval", "train_then_eval"],
        "train_then_eval also evaluates and exports at the end; eval only does that.",
        flag_values=values,
    )
    groups = {"Run": ["model_dir", "mode"]}
    for section in (*SECTIONS.values(), config.Devices):
        groups[(section.__doc__ or "").strip()] = define_section(values, section)
    flags.DEFINE_enum(
        "train_mode", "pretrain", ["pretrain", "finetune"], "Must be pretrain.", flag_values=values
    )
    flags.DEFINE_integer(
        "eval_batch_size", 256, "Images per call in evaluation.", 1, flag_values=values
    )
    for name in (*NO_EFFECT, *_OF_FINETUNE):
        flags.DEFINE_string(name, None, "Accepted; without effect here.", flag_values=values)
    groups["The reference's other flags"] = [
        *("train_mode", "eval_batch_size", *NO_EFFECT, *_OF_FINETUNE)
    ]
    return groups


def run(values: flags.FlagValues) -> None:
    pretrain_config = config.PretrainConfig(
        **{name: read_section(values, section) for name, section in SECTIONS.items()}
    )
    devices = read_section(values, config.Devices)
    if values.train_mode != "pretrain":
        raise UserError("--train_mode=finetune is another command: simclr-tf finetune")
    if not values.model_dir:
        raise UserError("--model_dir is missing: the directory that the run is written to")
    note_no_effect(values, (*NO_EFFECT, *_OF_FINETUNE))

    from simclr_tf.distribution import open_replicas
    from simclr_tf.evaluation import KNN, Logistic
    from simclr_tf.evaluation.request import Request, check_evaluation
    from simclr_tf.evaluation.runs import evaluate_run
    from simclr_tf.export.runs import export_run
    from simclr_tf.training.pretrain import pretrain

    protocols = KNN(), Logistic()
    if values.mode == "train_then_eval":
        check_evaluation(pretrain_config.resolved().data, protocols)
    if values.mode != "eval":
        replicas = open_replicas(devices)
        pretrain(pretrain_config, values.model_dir, replicas, devices.steps_per_execution)
        if not replicas.is_chief:
            return
    if values.mode == "train":
        print(f"next: simclr-tf evaluate --model_dir={values.model_dir}")
        print(f"      tensorboard --logdir {values.model_dir}/tensorboard")
        return

    def given(name):  # what was not said is the run's
        return values[name].value if values[name].present else ""

    request = Request(
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
