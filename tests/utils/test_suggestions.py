"""Suggestions for names of options, values and commands."""

import pytest

from simclr_tf.api import embed, evaluate, pretrain
from simclr_tf.cli.main import COMMANDS
from simclr_tf.option_groups import ContrastiveLoss, Optimization
from simclr_tf.options import option_fields
from simclr_tf.utils import suggestions
from simclr_tf.utils.suggestions import suggest


def names_of(function) -> list[str]:
    return [field.name for s in function.option_sets for field in option_fields(s.group)]


@pytest.mark.parametrize(
    ("function", "name", "expected"),
    [
        (pretrain, "batch_size", "train_batch_size or eval_batch_size"),
        (pretrain, "batch-size", "train_batch_size or eval_batch_size"),
        (pretrain, "epochs", "train_epochs"),
        (pretrain, "num_epochs", "train_epochs"),
        (pretrain, "lr", "learning_rate"),
        (pretrain, "LR", "learning_rate"),
        (pretrain, "wd", "weight_decay"),
        (pretrain, "arch", "encoder or resnet_depth"),
        (pretrain, "gpus", "num_replicas or strategy"),
        (pretrain, "data", "dataset"),
        (pretrain, "output_dir", "model_dir"),
        (pretrain, "model-dir", "model_dir"),
        (pretrain, "fp16", "precision"),
        (pretrain, "temprature", "temperature"),
        (evaluate, "batch_size", "eval_batch_size"),
        (evaluate, "k", "knn_k"),
        (evaluate, "lr", "linear_learning_rate"),
        (embed, "k", "neighbours"),
    ],
)
def test_names_of_other_programs_suggest_the_options_that_mean_them(function, name, expected):
    assert suggest(name, names_of(function)) == f". Fix: did you mean {expected}?"


def test_options_without_a_counterpart_are_explained():
    assert suggest("num_workers", names_of(pretrain), "--").startswith(". Fix: omit it")
    assert suggest("resume", names_of(pretrain), "--").startswith(". Fix: run the same command")


@pytest.mark.parametrize(
    ("group", "option", "value", "expected"),
    [
        (Optimization, "optimizer", "SGD", "momentum"),
        (Optimization, "optimizer", "LARS", "lars"),
        (Optimization, "precision", "fp16", "bfloat16 or float16"),
        (ContrastiveLoss, "loss", "InfoNCE", "nt_xent"),
    ],
)
def test_values_are_suggested_in_any_case(group, option, value, expected):
    (field,) = (field for field in option_fields(group) if field.name == option)
    assert suggest(value, field.metadata["choices"]) == f". Fix: did you mean {expected}?"


def test_every_suggested_name_exists():
    known = {*COMMANDS, "nt_xent", "momentum", "bfloat16", "float16", "output"}
    known |= {name for function in (pretrain, evaluate, embed) for name in names_of(function)}
    meant = {name for names in suggestions._MEANINGS.values() for name in names}
    assert meant <= known | {"teacher", "label_fraction", "labels_per_class"}
