"""Pretrain an encoder on images without labels.

Trains SimCLR from random weights and writes a run directory: config.json, metrics.jsonl,
checkpoints/ and tensorboard/. Run the same command again to resume. The flags of the reference
implementation keep their names, meaning and defaults.

  simclr-tf pretrain --dataset=folder:photos --image_size=96 --resnet_depth=18 --model_dir=runs/a
"""

from absl import flags

from simclr_tf.api.training import pretrain
from simclr_tf.cli.flags import (
    IGNORED_REFERENCE_FLAGS,
    Groups,
    define_training,
    run_training,
)

_FINETUNE_ONLY_FLAGS = ("zero_init_logits_layer", "fine_tune_after_block", "ft_proj_selector")
_IGNORED = (*IGNORED_REFERENCE_FLAGS, *_FINETUNE_ONLY_FLAGS)


def define(values: flags.FlagValues) -> Groups:
    return define_training(values, pretrain, _IGNORED)


def run(values: flags.FlagValues) -> None:
    run = run_training(values, pretrain, _IGNORED)
    if values.mode == "train" and run.is_chief:
        print(f"next: simclr-tf evaluate --model_dir={run.path}")
        print(f"      tensorboard --logdir {run.path}/tensorboard")
