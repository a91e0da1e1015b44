"""Pretrain an encoder on images without labels.

Trains SimCLR from random weights and writes a run directory: config.json, metrics.jsonl,
checkpoints/ and tensorboard/. Run the same command again to resume. The flags of the reference
implementation keep their names, meaning and defaults.

  simclr-tf pretrain --dataset=folder:photos --image_size=96 --resnet_depth=18 --model_dir=runs/a
"""

from simclr_tf.api.training import pretrain
from simclr_tf.cli.flags import IGNORED_REFERENCE_FLAGS, training_command

_NEXT_STEPS = """next: simclr-tf evaluate --model_dir={path}
      tensorboard --logdir {path}/tensorboard"""
_FINETUNE_ONLY_FLAGS = ("zero_init_logits_layer", "fine_tune_after_block", "ft_proj_selector")

define, run = training_command(
    pretrain, _NEXT_STEPS, (*IGNORED_REFERENCE_FLAGS, *_FINETUNE_ONLY_FLAGS)
)
