"""Suggestions for names that do not exist."""

import difflib
from collections.abc import Collection

# Names in other programs → the options, values or commands here that mean them.
_SYNONYMS = {
    "arch architecture backbone model net network": "encoder resnet_depth",
    "b batch batchsize batch_size bs": "train_batch_size eval_batch_size",
    "accum_iter accum_steps accumulate_grad_batches chunk_size": "microbatch_size",
    "checkpoint_every ckpt_every save_every save_freq save_interval": (
        "checkpoint_epochs checkpoint_steps"
    ),
    "checkpoint_path ckpt ckpt_path init load pretrained weights": "checkpoint model_dir encoder",
    "crop_size image_sz img_size img_sz input_size res resolution size": "image_size",
    "color_jitter jitter jitter_strength s strength": "color_jitter_strength",
    "data data_path data_root dataset_dir dataset_name dataset_path folder image_dir images_dir "
    "imgs input input_dir path root train_data train_dir train_path": "dataset",
    "depth layers": "resnet_depth",
    "device devices gpu gpus n_gpu n_gpus ngpu ngpus num_devices num_gpus": "num_replicas strategy",
    "dim embedding_dim embedding_size feature_dim out_dim proj_dim projection_dim z_dim": (
        "proj_out_dim"
    ),
    "amp bf16 dtype fp16 half mixed mixed_precision use_amp": "precision bfloat16 float16",
    "contrastive info_nce infonce ntxent simclr": "nt_xent",
    "eval_linear lincls linear_eval linear_probe test validate": "evaluate",
    "extract features predict search": "embed",
    "e ep epoch epochs max_epochs n_epochs nepochs num_epochs": "train_epochs linear_epochs",
    "eval_every eval_freq eval_interval val_every": "eval_every_epochs knn_every_epochs",
    "exp exp_dir experiment log_dir logdir logs name o out out_dir outdir output output_dir "
    "output_path results_dir run_dir run_name save save_dir save_path work_dir workdir": (
        "output model_dir"
    ),
    "iters iterations max_iters max_steps n_steps num_iterations num_steps steps": "train_steps",
    "k knn n_neighbors num_neighbors top_k topk": "knn_k neighbours",
    "base_lr blr init_lr lr max_lr": "learning_rate linear_learning_rate",
    "hosts nodes num_nodes nproc nnodes rank world_size": "workers worker_index num_replicas",
    "label_budget labels_fraction percent": "label_fraction labels_per_class",
    "local_rank node_rank process_id task_index": "worker_index",
    "log_freq log_interval log_steps print_freq": "log_every",
    "m mom": "momentum",
    "opt optim": "optimizer",
    "random_seed random_state": "seed",
    "run run_path": "model_dir",
    "nesterov sgd": "momentum",
    "t tau temp": "temperature",
    "teacher_path teacher_checkpoint": "teacher",
    "test_split val val_split": "eval_split",
    "tpu": "use_tpu tpu_name",
    "val_fraction val_ratio valid_fraction": "validation_fraction",
    "warm_up warmup warmup_iters warmup_steps": "warmup_epochs",
    "wd": "weight_decay",
    "width width_factor width_mult": "width_multiplier",
}
_REMARKS = {
    **dict.fromkeys(
        ("j", "jobs", "n_jobs", "n_workers", "num_threads", "num_workers", "threads", "workers"),
        "omit it, because images are read on all processor cores",
    ),
    **dict.fromkeys(
        ("auto_resume", "continue", "resume"),
        "run the same command again, which resumes the run in --model_dir",
    ),
}
_MEANINGS = {name: known.split() for names, known in _SYNONYMS.items() for name in names.split()}


def suggest(name: str, known: Collection[str], prefix: str = "") -> str:
    """Returns `. Fix: did you mean A or B?` for known names that mean or resemble a name, or ""."""
    name = name.lower().replace("-", "_")
    if prefix and name in _REMARKS:
        return f". Fix: {_REMARKS[name]}"
    by_lower = {k.lower(): k for k in known}
    near = [by_lower[n] for n in (name, *_MEANINGS.get(name, ())) if n in by_lower]
    near = near or [by_lower[n] for n in difflib.get_close_matches(name, by_lower, n=3, cutoff=0.6)]
    return f". Fix: did you mean {' or '.join(prefix + n for n in near)}?" if near else ""
