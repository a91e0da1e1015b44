#!/usr/bin/env bash
# Reproduces the tables and pictures of docs/study.md: docs/study.sh DATA_DIR [OUTPUT]
# Takes about 80 minutes on 2 cores. Run it again to resume after an interruption.
set -euo pipefail
DATA_DIR="${1:?usage: docs/study.sh DATA_DIR [OUTPUT]}"
OUTPUT="${2:-runs/study}"

study() { # DATASET NAME FLAGS…
  echo "== $2 on $1"
  simclr-tf study "$2" --flagfile="flags/study_$1.flags" --output="$OUTPUT/$2-$1" \
    --data_dir="$DATA_DIR" --precision=bfloat16 --seeds=0,1,2 --processes=2 "${@:3}"
}
study cifar10 temperature
study cifar10 losses
study cifar10 head --subset=small
# Single transformations and pairs that learn enough to count.
study cifar10 augmentations --cells=crop-crop,crop-color,color-crop,crop-cutout,cutout-crop,\
crop-rotation,rotation-crop,cutout-cutout,cutout-rotation,rotation-cutout
# B = 128 and E = 2; at B both rules give the same rate.
study cifar10 batch_epochs --train_batch_size=128 --train_epochs=2 --learning_rate=1.4 \
  --cells=B_4-E-linear,B_4-E-sqrt,B-E-linear,2B-E-linear,2B-E-sqrt,\
B_4-2E-linear,B_4-2E-sqrt,B-2E-linear,2B-2E-linear,2B-2E-sqrt
study shapes augmentations --cells=color-color,crop-color,color-crop
# The margin losses fail to train with some seeds.
study shapes losses --cells=nt_logistic,nt_logistic_semi_hard,nt_xent,dcl,supcon
