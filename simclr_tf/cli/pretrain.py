"""Pretrain an encoder on images without labels.

Trains SimCLR from random weights and writes a run directory: config.json, metrics.jsonl,
checkpoints/ and tensorboard/. Run the same command again to resume. The flags of the reference
implementation keep their names, meaning and defaults.

  simclr-tf pretrain --dataset=folder:photos --image_size=96 --resnet_depth=18 --model_dir=runs/a
"""

from pathlib import Path

from simclr_tf.api.training import pretrain
from simclr_tf.cli.flags import IGNORED_REFERENCE_FLAGS, training_command
from simclr_tf.utils.paths import shell_join

_FINETUNE_ONLY_FLAGS = ("zero_init_logits_layer", "fine_tune_after_block", "ft_proj_selector")


def _next_steps(path: Path) -> str:
    evaluate = shell_join(["simclr-tf", "evaluate", f"--model_dir={path}"])
    return (
        f"next: {evaluate}\n      {shell_join(['tensorboard', '--logdir', path / 'tensorboard'])}"
    )


define, run = training_command(
    pretrain, _next_steps, (*IGNORED_REFERENCE_FLAGS, *_FINETUNE_ONLY_FLAGS)
)
