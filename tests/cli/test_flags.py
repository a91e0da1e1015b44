"""Flags: help, defaults of the reference, flagfiles, and one line for each mistake."""

import importlib
import os
from pathlib import Path

import pytest
from absl import flags as absl_flags

from simclr_tf.api.flagfile import read_flagfiles, read_options
from simclr_tf.api.signature import takes_options
from simclr_tf.api.training_options import PRETRAIN_OPTIONS
from simclr_tf.cli import bench, pretrain
from simclr_tf.cli import main as cli
from simclr_tf.cli.flags import explicit_options
from simclr_tf.errors import UserError
from simclr_tf.option_groups import Augmentation, ContrastiveLoss
from simclr_tf.options import OptionGroup, OptionSet, convert, option_fields, option_type
from simclr_tf.study.experiments import STUDIES
from tests.commands import error_of, output_of, run_command

RECIPES = sorted((Path(__file__).parents[2] / "flags").glob("*.flags"))

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
        ("pretain", "expected one of the commands pretrain, finetune"),
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
        (
            "pretrain --dataset=shapes --model_dir=x --num_views=3 --loss=margin",
            "--num_views=3: expected two views per image with --loss=margin, got 3. Fix: omit",
        ),
        (
            "pretrain --dataset=shapes --model_dir=x --num_small_views=4 --loss=nt_logistic",
            "--num_small_views=4: expected two views per image with --loss=nt_logistic, got 6.",
        ),
        ("pretrain --dataset=shapes --num_views=1", "--num_views=1: expected an integer of at"),
        (
            "pretrain --dataset=shapes --model_dir=x --num_views=20 --num_small_views=20",
            "--num_small_views=20: expected at most 32 views per image with --num_views, got 40",
        ),
        (
            "pretrain --dataset=shapes --model_dir=x --num_views=3 --transformations=color",
            "--transformations=color: expected two views per image with it",
        ),
        (
            "pretrain --dataset=shapes --model_dir=x --image_size=32 --num_small_views=2 "
            "--small_view_size=40",
            "--small_view_size=40: expected 8 to 32, the --image_size, got 40",
        ),
        (
            "pretrain --dataset=shapes --model_dir=x --image_size=15 --num_small_views=2",
            "--small_view_size=7: expected 8 to 15, the --image_size, got 7",
        ),
        (
            "pretrain --dataset=shapes --small_crop_min_area=0.5",
            "--small_crop_min_area=0.5: expected at most --small_crop_max_area=0.4",
        ),
        ("pretrain --dataset=shapes --resnet_depth=19", "--resnet_depth=19: expected one of"),
        ("pretrain --dataset=shapes --optimizer=sgd", "momentum, adam, adamw, lars"),
        ("pretrain --dataset=shapes --ema_decay=1", "--ema_decay=1.0: expected a number below 1"),
        ("pretrain --dataset=shapes --ema_decay=-0.1", "--ema_decay=-0.1: expected a number of at"),
        ("pretrain --dataset=shapes --train_mode=finetune", "--train_mode=finetune"),
        (
            "pretrain --dataset=shapes --crop_min_area=0.9 --crop_max_area=0.5",
            "--crop_min_area=0.9: expected at most --crop_max_area=0.5",
        ),
        ("pretrain --dataset=shapes --batch_norm_decay=1", "expected a number below 1"),
        ("pretrain --batch_size=8", "Fix: did you mean --train_batch_size or --eval_batch_size?"),
        ("pretrain --dataset=shapes --optimizer=SGD", "Fix: did you mean momentum?"),
        (
            f"pretrain --dataset={os.path.dirname(__file__)} --model_dir=x",
            f"folder:{os.path.dirname(__file__)}?",
        ),
        (
            f"pretrain --dataset=Folder:{os.path.dirname(__file__)} --model_dir=x",
            "Fix: did you mean folder:",
        ),
        (f"pretrain --dataset={__file__} --model_dir=x", "got a file. Fix: use its folder"),
        ("pretrain --dataset=shapes --model_dir=x --workers=4", "or omit --workers"),
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
            "--batch_sizes=64,many: expected integers from 2 to",
        ),
        ("bench loss --batch_sizes=1", "--batch_sizes=1: expected integers from 2 to"),
        ("bench loss --forms=sparse", "--forms=sparse: expected any of dense, blocks"),
        ("bench loss --forms=", "--forms=: expected any of dense, blocks"),
        (f"bench loss --output={__file__}/x.json", "--output="),
        ("bench scaling --replicas=0", "--replicas=0: expected integers from 1 to"),
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


LINES = "--dataset=folder:Bücher\n# a comment\n\n  --temperature=0\n"


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "BOM + utf-16-be"]
)
def test_flagfile_is_read_in_every_encoding_of_windows(tmp_path, encoding, newline):
    bom, _, encoding = encoding.rpartition(" + ")
    data = (("\ufeff" if bom else "") + LINES.replace("\n", newline)).encode(encoding)
    path = tmp_path / "my.flags"
    path.write_bytes(data)
    assert read_flagfiles([f"--flagfile={path}"]) == ["--dataset=folder:Bücher", "--temperature=0"]
    assert "--temperature=0.0: expected" in error_of("pretrain", f"--flagfile={path}")


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda r: r.stem)
def test_recipe_has_the_same_values_in_python_and_on_the_command_line(recipe):
    options = {f.name: f for s in PRETRAIN_OPTIONS for f in option_fields(s.group)}
    values = absl_flags.FlagValues()
    pretrain.define(values)
    values(["pretrain", *read_flagfiles([f"--flagfile={recipe}"])])
    assert read_options(str(recipe), options) == explicit_options(values, PRETRAIN_OPTIONS)


def test_functions_take_a_flagfile_that_their_arguments_override(tmp_path):
    file = tmp_path / "my.flags"
    file.write_text("--model_dir=other\n--temperature=0.3\n--nouse_blur\n--use_flip\n--loss=dcl\n")

    @takes_options(OptionSet.of(ContrastiveLoss), OptionSet.of(Augmentation))
    def function(model_dir="", **options):
        """Returns its options.

        Returns:
            The options.
        """
        return model_dir, options

    read = {"temperature": 0.3, "use_blur": False, "use_flip": True}
    assert function("run", flagfile=file, loss="supcon") == ("run", read | {"loss": "supcon"})
    assert function(flagfile=file) == ("other", read | {"loss": "dcl"})
    for line, problem in (
        ("--temperature=warm", "--temperature=warm: expected a number, got 'warm'"),
        ("--use_blur=2", "--use_blur=2: expected True or False, got '2'"),
        ("--tempreature=1", "did you mean --temperature"),
    ):
        file.write_text(line)
        with pytest.raises(UserError, match=problem):
            function(flagfile=file)


def test_flagfile_may_name_files_that_are_not_utf_8(tmp_path):
    (tmp_path / "my.flags").write_bytes(b"--dataset=folder:caf\xe9\n")
    (flag,) = read_flagfiles(["--flagfile", f"{tmp_path}/my.flags"])
    assert os.fsencode(flag) == b"--dataset=folder:caf\xe9"


def test_flagfiles_include_others_and_later_flags_win(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "outer.flags").write_text("--seed=1\n--flagfile=~/inner.flags\n--seed=3\n")
    (tmp_path / "inner.flags").write_text("--seed=2\n//--seed=4\n")
    arguments = ["--a", "--flagfile=~/outer.flags", "--b", "--", "--flagfile=x"]
    expected = ["--a", "--seed=1", "--seed=2", "--seed=3", "--b", "--", "--flagfile=x"]
    assert read_flagfiles(arguments) == expected


def test_unusable_flagfile_is_named(tmp_path):
    (tmp_path / "a.flags").write_text(f"--flagfile={tmp_path}/b.flags\n")
    (tmp_path / "b.flags").write_text(f"--flagfile={tmp_path}/a.flags\n")
    (tmp_path / "zip.flags").write_bytes(b"PK\3\4\0\0\0")
    (tmp_path / "odd.flags").write_bytes("--dataset=shapes".encode("utf-16")[:-1])
    for name, problem in (
        ("a.flags", "a.flags: includes itself. Fix: remove the line in"),
        ("zip.flags", "zip.flags: expected a text file with a --name=value in each line, got"),
        ("odd.flags", "odd.flags: expected a text file"),
        ("", ": expected a text file with a --name=value in each line, got: Is a directory. Fix:"),
    ):
        assert problem in error_of("pretrain", f"--flagfile={tmp_path / name}")
    assert "--flagfile=: expected an existing file" in error_of("pretrain", "--flagfile")


# Options that are neither a path nor a value that may contain one, such as folder:PATH.
NOT_PATHS = """
baselines cells format gcp_project knn_k knn_temperature probe_transformations protocols replicas
seeds split subset tpu_name tpu_zone train_split eval_split transformations width_multipliers
workers batch_sizes forms precisions image_sizes probe_eval_split probe_train_split
view_size_schedule
"""


def _subgroups(group: type) -> list[type]:
    return [group, *(g for child in group.__subclasses__() for g in _subgroups(child))]


def test_every_option_that_is_a_path_expands_the_home_directory(monkeypatch):
    for words in SUBCOMMANDS:
        output_of(*words, "--help")  # imports the options
    monkeypatch.setenv("HOME", "/home/someone")
    fields = [field for group in _subgroups(OptionGroup) for field in option_fields(group)]
    texts = [f for f in fields if option_type(f) is str and not f.metadata["choices"]]
    paths = [f for f in texts if convert(f, "~/a") == "/home/someone/a"]
    assert all(convert(f, Path("~/a")) == "/home/someone/a" for f in paths)
    assert {f.name for f in texts} - {f.name for f in paths} <= set(NOT_PATHS.split())
    assert not {f.name for f in paths} & set(NOT_PATHS.split())


def test_flags_of_inputs_and_outputs_expand_the_home_directory(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    for words, names in (
        (["embed"], ["model_dir", "encoder", "output"]),
        (["report"], ["model_dir", "output"]),
        (["export"], ["model_dir"]),
        (["import"], ["checkpoint", "model_dir"]),
        (["bench", "loss"], ["output"]),
    ):
        command = cli._load(words[0])
        command = command.get_subcommand(*words[1:]) if words[1:] else command
        values = absl_flags.FlagValues()
        command.define(values)
        values(["", *(f"--{name}=~/a" for name in names)])
        assert [values[name].value for name in names] == ["/home/someone/a"] * len(names)
