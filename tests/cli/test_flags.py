"""Flags: help, defaults of the reference, flagfiles, and one line for each mistake."""

import importlib

import pytest
from absl import flags as absl_flags

from simclr_tf.cli import bench, pretrain
from simclr_tf.cli import main as cli
from simclr_tf.study.experiments import STUDIES
from tests.commands import error_of, output_of, run_command

# The defaults of the reference implementation's commands.
REFERENCE = """
--learning_rate=0.3 --learning_rate_scaling=linear --warmup_epochs=10 --weight_decay=1e-6
--batch_norm_decay=0.9 --train_batch_size=512 --train_split=train --train_epochs=100
--train_steps=0 --eval_batch_size=256 --checkpoint_epochs=1 --checkpoint_steps=0
--eval_split=validation --cache_dataset=False --mode=train --train_mode=pretrain
--lineareval_while_pretraining=True --use_tpu=False --optimizer=lars --momentum=0.9
--keep_checkpoint_max=5 --keep_hub_module_max=1 --temperature=0.1 --hidden_norm=True
--proj_head_mode=nonlinear --proj_out_dim=128 --num_proj_layers=3 --global_bn=True
--width_multiplier=1 --resnet_depth=50 --sk_ratio=0 --se_ratio=0 --image_size=224
--color_jitter_strength=1 --use_blur=True
"""
SUBCOMMANDS = [
    *((name,) for name in cli.COMMANDS),
    *(("bench", name) for name in bench.BENCHES),
    *(("study", name) for name in STUDIES),
]


def test_flags_of_the_reference_have_its_defaults():
    values = absl_flags.FlagValues()
    pretrain.define(values)
    defaults = {name: values[name].default for name in values}
    values(["pretrain", *REFERENCE.split()])
    assert {name: values[name].value for name in values} == defaults


def test_overviews_list_the_commands_benchmarks_and_studies():
    out = output_of("--help")
    assert all(f"  {name} " in out for name in cli.COMMANDS)
    for command, names in (("bench", bench.BENCHES), ("study", STUDIES)):
        out = output_of(command, "--help")
        assert all(f"  simclr-tf {command} {name} " in out for name in names)


@pytest.mark.parametrize("words", SUBCOMMANDS, ids=" ".join)
def test_help_describes_the_command_and_lists_every_flag_by_group(words):
    out = output_of(*words, "--help")
    name, *subcommand = words
    module = {"import": "import_weights"}.get(name, name)
    command = importlib.import_module(f"simclr_tf.cli.{module}")
    if subcommand:
        command = command.get_subcommand(*subcommand)
    values = absl_flags.FlagValues()
    groups = command.define(values)
    assert out.startswith(f"simclr-tf {' '.join(words)}\n\n{command.__doc__.strip()}\n")
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("  --")]
    assert sorted(listed) == sorted(f"--{flag}" for flag in [*values, "flagfile=FILE", "verbose"])
    assert all(f"{heading}:\n" in out for heading in groups)
    if name == "study" and subcommand:
        assert STUDIES[words[1]].source in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("pretain", "pretain: no such command, expected one of pretrain, finetune"),
        ("pretrain --model_dir=x", "flags/quickstart.flags"),
        ("pretrain --dataset=shapes", "--model_dir is missing"),
        ("pretrain --datset=shapes", "datset"),
        ("pretrain --dataset=shapes stray", "stray: not a flag. Fix: write"),
        ("pretrain --knn_evry_epochs=1", "Fix: did you mean --knn_every_epochs"),
        ("pretrain --dataset=shapes --temperature=0", "=0.0: expected a number above 0"),
        ("pretrain --dataset=shapes --temperature=nan", "--temperature=nan"),
        ("pretrain --dataset=shapes --learning_rate=fast", "learning_rate"),
        ("pretrain --dataset=shapes --loss=triplet", "=triplet: expected one of nt_x"),
        ("pretrain --dataset=shapes --margin=-1", "--margin=-1.0: expected a number"),
        (
            "pretrain --dataset=shapes --loss=margin_semi_hard --margin=0",
            "--margin=0: expected a number above 0 for --loss=margin_semi_hard",
        ),
        ("pretrain --dataset=shapes --resnet_depth=19", "--resnet_depth=19: expected one of"),
        ("pretrain --dataset=shapes --optimizer=sgd", "momentum, adam, adamw, lars"),
        ("pretrain --dataset=shapes --train_mode=finetune", "--train_mode=finetune"),
        (
            "pretrain --dataset=shapes --crop_min_area=0.9 --crop_max_area=0.5",
            "--crop_min_area=0.9: expected at most --crop_max_area=0.5",
        ),
        ("pretrain --dataset=shapes --batch_norm_decay=1", "expected a number below 1"),
        ("pretrain --flagfile=nowhere.flags", "expected an existing file or one of cifar10.flags"),
        (
            "pretrain --flagfile=~/nowhere/cifar10.flags",
            "nowhere/cifar10.flags: expected an existing",
        ),
        ("pretrain --dataset=shapes --model_dir=x --mode=train_then_eval", "no split 'validation'"),
        (f"pretrain --dataset=shapes --model_dir={__file__}/run", "Not a directory. Fix: "),
        ("evaluate", "--model_dir=RUN or --encoder=SAVEDMODEL"),
        ("evaluate --encoder=x", "--output=DIR"),
        ("evaluate --model_dir=x --protocols=svm", "=svm: expected any of knn, logistic"),
        ("evaluate --model_dir=x --baselines=pac", "Fix: did you mean pca?"),
        ("evaluate --model_dir=x --knn_k=0", "knn_k"),
        (f"evaluate --model_dir={__file__}", "holds no run"),
        ("export", "--model_dir is missing"),
        ("bench", "simclr-tf bench: expected one of augment, step, input, loss"),
        ("bench speed", "scaling, embed, got speed"),
        ("bench --repeats=2 loss", "got --repeats=2"),
        ("bench loss stray", "stray: not a flag"),
        ("bench loss --replicas=2", "replicas"),
        ("bench loss --repeats=0", "--repeats=0: expected an integer of at least 1"),
        (
            "bench loss --batch_sizes=64,many",
            "--batch_sizes=64,many: expected integers of at least 2",
        ),
        ("bench loss --batch_sizes=1", "--batch_sizes=1: expected integers of at least 2"),
        ("bench loss --forms=sparse", "--forms=sparse: expected some of dense, blocks"),
        ("bench loss --forms=", "--forms=: expected some of dense, blocks"),
        (f"bench loss --output={__file__}/x.json", "--output="),
        ("bench scaling --replicas=0", "--replicas=0: expected integers of at least 1"),
        ("bench scaling --replicas=1,3", "expected a multiple of the 3 replicas"),
        ("bench scaling --resnet_depth=19", "--resnet_depth=19: expected one of"),
    ],
)
def test_mistake_is_one_line_and_exit_2(words, message):
    done = run_command(*words.split())
    assert done.returncode == 2
    assert done.stderr.startswith("simclr-tf: error: ") and done.stderr.count("\n") == 1
    assert message in done.stderr


@pytest.mark.parametrize("flag", ["microbatch_size", "num_replicas", "train_steps", "seed"])
def test_number_beyond_every_limit_is_refused(flag):
    number = f"--{flag}={10**20 - 1}"
    error = error_of("pretrain", "--dataset=shapes", "--model_dir=x", number)
    assert error.startswith(f"simclr-tf: error: {number}: expected an integer")


def test_shipped_flagfile_is_found_from_any_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = error_of("pretrain", "--flagfile=flags/quickstart.flags", "--temperature=0")
    assert "--temperature=0.0" in error  # the dataset is set, and the later flag won
