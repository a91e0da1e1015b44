"""Fine-tune a pretrained encoder and a new classifier with labels.

Starts from the encoder of a run (--checkpoint), or from the first layers of its projection head,
and uses all labels or a class-balanced fraction of them. Writes a run directory like pretrain, and
resumes like it. At the end it measures the accuracy on eval_split and exports encoder and
classifier. Omitted data and architecture flags are those of the checkpoint's run; another dataset
comes with its standard splits.

  simclr-tf finetune --checkpoint=runs/a --label_fraction=0.1 --model_dir=runs/a-10percent
"""

from simclr_tf.api.training import finetune
from simclr_tf.cli.flags import IGNORED_REFERENCE_FLAGS, evaluation_next, training_command

define, run = training_command(finetune, evaluation_next, IGNORED_REFERENCE_FLAGS)
