"""`simclr-tf finetune` in its own process, as users and the reference's README run it."""

import dataclasses
import json
import signal

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.api.training_options import finetune_config
from simclr_tf.data import open_source
from simclr_tf.runs.run_dir import RunDir
from tests.processes import TINY, finish, last_checkpoint, pretrain, python, rows, signal_at


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    path = tmp_path_factory.mktemp("finetune") / "run"
    status, _, errors = finish(pretrain(path, *TINY, "--eval_split=test[:100]", "--train_steps=2"))
    assert status == 0, errors
    return path


def _finetune(pretrained, model_dir, *flags):
    start = f"--checkpoint={pretrained}"
    return python("-m", "simclr_tf", "finetune", start, f"--model_dir={model_dir}", *flags)


@pytest.mark.slow
def test_finetune_records_accuracy_and_exports_a_classifier(pretrained, tmp_path):
    flags = ["--labels_per_class=20", "--train_batch_size=40", "--train_epochs=2", "--log_every=2"]
    status, output, errors = finish(
        _finetune(pretrained, tmp_path, *flags, "--ft_proj_selector=1", "--seed=3")
    )
    assert status == 0, errors
    assert "using 200 of 512 labels" in output
    assert len((tmp_path / "labelled.csv").read_text("utf-8").splitlines()) == 201
    (record,) = json.loads((tmp_path / "evaluations.json").read_text(encoding="utf-8"))
    assert (record["protocol"], record["num_train"], record["step"]) == ("finetune", 200, 10)
    assert record["setting"] == "from layer 1 of the projection head"
    loaded = tf.saved_model.load(str(tmp_path / "export" / "10"))
    test = open_source("shapes", "test[:100]")
    from simclr_tf.augment import eval_transform

    images = eval_transform(tf.constant(test.images[test.indices]), 16)
    answer = loaded.signatures["classify"](images=images)
    assert np.mean(answer["label"] == test.labels()) == pytest.approx(record["top1"])
    plan = json.loads((tmp_path / "config.json").read_text("utf-8"))["plan"]
    assert plan["peak_learning_rate"] == pytest.approx(0.05 * 40 / 256)


def test_finetune_uses_one_batch_if_labels_are_few(pretrained, tmp_path, capsys):
    from simclr_tf.cli.main import main

    flags = ["--train_split=train[:40]", "--train_epochs=2", "--mode=train"]
    arguments = ["finetune", f"--checkpoint={pretrained}", f"--model_dir={tmp_path}", *flags]
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert "--train_batch_size is 40 instead of 256, because there are 40 labeled images" in output
    assert "one device: global batch 40, 40 per replica" in output
    config, plan = RunDir(tmp_path).read_config()
    assert config.optimization.train_batch_size == 40
    assert plan.peak_learning_rate == pytest.approx(0.05 * 40 / 256)
    assert (plan.total_steps, last_checkpoint(tmp_path)) == (2, 2)
    assert main(arguments) == 0
    assert "is finished: 2 steps" in capsys.readouterr().out
    assert main([*arguments, "--train_batch_size=256"]) == 2
    assert "--train_batch_size=256: expected at most 40" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("train[:512]", "test[:100]", 0.25)),
        ({"dataset": "shapes"}, ("train[:512]", "test[:100]", 0.25)),
        ({"dataset": "cifar100"}, ("train", "test", 0)),
        ({"dataset": "dtd"}, ("train+validation", "test", 0)),
        ({"dataset": "folder:photos"}, ("train", "test", 0)),
        ({"dataset": "imagenet2012_subset/1pct"}, ("train", "validation", 0)),
        (
            {"dataset": "mnist", "train_split": "train[:9]", "validation_fraction": 0.1},
            ("train[:9]", "test", 0.1),
        ),
    ],
)
def test_other_dataset_uses_its_standard_splits(pretrained, tmp_path, options, expected):
    config, plan = RunDir(pretrained).read_config()
    data = dataclasses.replace(config.data, validation_fraction=0.25)
    RunDir(tmp_path).write_config(dataclasses.replace(config, data=data), plan)
    resolved = finetune_config({"checkpoint": str(tmp_path), **options}).data
    assert (resolved.train_split, resolved.eval_split) == expected[:2]
    assert resolved.validation_fraction == expected[2]
    assert resolved.storage_size == data.storage_size


@pytest.mark.slow
def test_linear_evaluation_command_of_the_reference_runs(pretrained, tmp_path):
    words = """
    --mode=train_then_eval --train_mode=finetune --fine_tune_after_block=4
    --zero_init_logits_layer=True --variable_schema=(?!global_step|(?:.*/|^)Momentum|head)
    --global_bn=False --optimizer=momentum --learning_rate=0.1 --weight_decay=0.0
    --train_epochs=100 --train_batch_size=512 --warmup_epochs=0 --image_size=32 --eval_split=test
    --resnet_depth=18 --use_tpu=False
    """
    small = ["--train_batch_size=64", "--train_steps=2", "--eval_split=test[:50]"]
    status, output, errors = finish(
        _finetune(pretrained, tmp_path, *words.split(), *small, "--dataset=shapes")
    )
    assert status == 0, errors
    assert "--variable_schema has no effect" in output
    assert "finetune (head only): top-1" in output


@pytest.mark.slow
def test_terminated_finetuning_resumes(pretrained, tmp_path):
    flags = ["--train_batch_size=32", "--train_steps=40", "--log_every=5", "--mode=train"]
    process = _finetune(pretrained, tmp_path, *flags)
    signal_at(process, 10, signal.SIGTERM)
    status, _, errors = finish(process)
    assert status == 143, errors
    status, output, errors = finish(_finetune(pretrained, tmp_path, *flags))
    assert status == 0, errors
    assert "resuming" in output
    assert [row["step"] for row in rows(tmp_path)] == [*range(5, 41, 5)]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--checkpoint="], "--checkpoint is missing"),
        (["--checkpoint=nowhere"], "nowhere holds no run"),
        (["--resnet_depth=50"], "--resnet_depth=50: expected 18, as the encoder of --checkpoint="),
        (["--microbatch_size=8"], "--microbatch_size"),
        (["--label_fraction=0.001"], "--label_fraction=0.001 selects none"),
        (["--label_fraction=2"], "--label_fraction=2"),
        (["--ft_proj_selector=3"], "--ft_proj_selector=3"),
        (["--train_split=train[:1]"], "train[:1]"),
        (["--train_mode=pretrain"], "--train_mode=pretrain"),
        (["--from_scratch"], "exclude each other"),
    ],
)
def test_mistakes_are_one_line_before_any_work(pretrained, tmp_path, capsys, flags, message):
    from simclr_tf.cli.main import main

    place = tmp_path / "tuned"
    arguments = ["finetune", f"--checkpoint={pretrained}", f"--model_dir={place}", *flags]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    (line,) = [line for line in error.splitlines() if line.startswith("simclr-tf: error:")]
    assert message in line
    assert not (place / "metrics.jsonl").exists()
