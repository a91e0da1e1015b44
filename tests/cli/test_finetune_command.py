"""`simclr-tf finetune`, as users and the reference's README run it."""

import dataclasses
import json

import pytest

from simclr_tf.api.training_options import finetune_config
from simclr_tf.runs.run_dir import RunDir
from tests.commands import error_of, exported_accuracy, output_of
from tests.processes import last_checkpoint


@pytest.mark.slow
def test_finetune_records_accuracy_and_exports_a_classifier(finetuning):
    path, output = finetuning
    assert "using 200 of 300 labels" in output
    assert 'classes = encoder.signatures["classify"](images=tf.constant(images))' in output
    assert len((path / "labelled.csv").read_text("utf-8").splitlines()) == 201
    (record,) = json.loads((path / "evaluations.json").read_text(encoding="utf-8"))
    assert (record["protocol"], record["num_train"], record["step"]) == ("finetune", 200, 4)
    assert record["setting"] == "from layer 1 of the projection head"
    accuracy = exported_accuracy(path / "export" / "4", "test[:100]")
    assert accuracy == pytest.approx(record["top1"])
    _, plan = RunDir(path).read_config()
    assert plan.peak_learning_rate == pytest.approx(0.05 * 40 / 256)


def test_finetune_uses_one_batch_if_labels_are_few(pretrained, tmp_path):
    flags = ["--train_split=train[:40]", "--train_epochs=2", "--mode=train"]
    command = ["finetune", f"--checkpoint={pretrained}", f"--model_dir={tmp_path}", *flags]
    output = output_of(*command)
    assert "--train_batch_size is 40 instead of 256, because there are 40 labeled images" in output
    assert "one device: global batch 40, 40 per replica" in output
    assert "next: run the same command with --mode=eval" in output
    config, plan = RunDir(tmp_path).read_config()
    assert config.optimization.train_batch_size == 40
    assert plan.peak_learning_rate == pytest.approx(0.05 * 40 / 256)
    assert (plan.total_steps, last_checkpoint(tmp_path)) == (2, 2)
    assert "is finished: 2 steps" in output_of(*command)
    error = error_of(*command, "--train_batch_size=256")
    assert "--train_batch_size=256: expected at most 40" in error


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("train[:300]", "test[:100]", 0.25)),
        ({"dataset": "shapes"}, ("train[:300]", "test[:100]", 0.25)),
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
    start = ["finetune", f"--checkpoint={pretrained}", f"--model_dir={tmp_path}", *words.split()]
    small = ["--train_batch_size=64", "--train_steps=2", "--eval_split=test[:50]"]
    output = output_of(*start, *small, "--dataset=shapes")
    assert "--variable_schema has no effect" in output
    assert "finetune (head only): top-1" in output


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--checkpoint=", "--checkpoint is missing"),
        ("--checkpoint=nowhere", "nowhere holds no run"),
        ("--resnet_depth=50", "--resnet_depth=50: expected 18, as the encoder of --checkpoint="),
        ("--microbatch_size=8", "--microbatch_size"),
        ("--label_fraction=0.001", "--label_fraction=0.001 selects none"),
        ("--label_fraction=2", "--label_fraction=2"),
        ("--ft_proj_selector=3", "--ft_proj_selector=3"),
        ("--train_split=train[:1]", "train[:1]"),
        ("--train_mode=pretrain", "--train_mode=pretrain"),
        ("--from_scratch", "exclude each other"),
    ],
)
def test_mistakes_are_one_line_before_any_work(pretrained, tmp_path, flag, message):
    place = tmp_path / "tuned"
    start = ["finetune", f"--checkpoint={pretrained}", f"--model_dir={place}"]
    assert message in error_of(*start, flag)
    assert not (place / "metrics.jsonl").exists()
