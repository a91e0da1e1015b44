"""Distill a fine-tuned teacher into an encoder of any size with unlabeled images.

The teacher is a fine-tuned run or an exported SavedModel with a classifier. The student, an encoder
with a linear classifier, is trained on the teacher's predictions, and on labels only with
--distill_alpha below 1. Omitted data and architecture flags are those of the teacher's run, so that
the student has the teacher's architecture by default (self-distillation); --checkpoint initializes
its encoder from a run. Run the same command again to resume. At the end it measures the accuracy,
if eval_split has the teacher's classes, and exports encoder and classifier.

  simclr-tf distill --teacher=runs/a-10percent --width_multiplier=0.5 --model_dir=runs/student
"""

from simclr_tf.api.training import distill
from simclr_tf.cli.flags import evaluation_next, training_command

define, run = training_command(distill, evaluation_next)
