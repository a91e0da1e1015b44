#!/usr/bin/env bash
# Reproduces the table of docs/results.md: make results DATA_DIR=…
# Takes about three hours on 2 cores. Run it again to resume after an interruption.
set -euo pipefail
DATA_DIR="${1:?usage: docs/results.sh DATA_DIR [RUNS]}"
RUNS="${2:-runs}"
data=(--data_dir="$DATA_DIR")
seeds=(0 1 2)
runs=("${seeds[@]/#/$RUNS/cifar10_small-}")
all=$(IFS=,; echo "${runs[*]}")

for seed in "${seeds[@]}"; do
  simclr-tf pretrain --flagfile=flags/cifar10_small.flags --seed="$seed" \
    --model_dir="$RUNS/cifar10_small-$seed" "${data[@]}"
done

tuned=()
finetune() { # SEED NAME FLAGS…
  local run="$RUNS/cifar10_small-$1"
  tuned+=("$run-$2")
  simclr-tf finetune --checkpoint="$run" --seed="$1" --precision=bfloat16 \
    --model_dir="$run-$2" "${data[@]}" "${@:3}"
}
for seed in "${seeds[@]}"; do
  finetune "$seed" 1percent --label_fraction=0.01
  finetune "$seed" 10percent --label_fraction=0.1
done
simclr-tf evaluate --model_dir="$all" --protocols=knn,logistic,linear --knn_k=20,200 \
  --linear_features=cached --baselines=pca,random "${data[@]}"
simclr-tf evaluate --model_dir="$all" --protocols=logistic,probes --l2_sweep "${data[@]}"

# The long ones, of seed 0 alone.
finetune 0 100percent --train_epochs=10
simclr-tf evaluate --model_dir="${runs[0]}" --protocols=knn,logistic,linear --knn_k=20,200 \
  --linear_features=cached --baselines=supervised "${data[@]}"
simclr-tf evaluate --model_dir="${runs[0]}" --protocols=linear --linear_epochs=20 "${data[@]}"

simclr-tf evaluate --model_dir="$all,$(IFS=,; echo "${tuned[*]}")" --protocols= --table
