"""`simclr-tf distill`, and SimCLR v2's three steps one after another."""

import json
import signal

import pytest

import simclr_tf
from simclr_tf.runs.run_dir import RunDir
from tests.commands import TINY, error_of, exported_accuracy, output_of
from tests.processes import finish, last_checkpoint, python, signal_at
from tests.training.tiny import assert_equal_variables, reproducible_rows

SHORT = ["--train_batch_size=64", "--train_steps=4", "--warmup_epochs=0", "--log_every=2"]


@pytest.fixture(scope="module")
def teacher(finetuning):
    return finetuning[0]


@pytest.mark.slow
def test_student_defaults_to_architecture_and_data_of_the_teacher(teacher, tmp_path):
    output = output_of("distill", f"--teacher={teacher}", f"--model_dir={tmp_path}", *SHORT)
    assert "no labels used; ResNet-18 × 0.0625 (cifar stem)" in output
    assert "distill (T=1): top-1" in output
    assert f'tf.saved_model.load("{tmp_path}/export/4")' in output
    (before, _), (after, plan) = RunDir(teacher).read_config(), RunDir(tmp_path).read_config()
    assert (after.encoder, after.data) == (before.encoder, before.data)
    assert (after.optimization.optimizer, after.optimization.weight_decay) == ("lars", 1e-4)
    assert plan.peak_learning_rate == pytest.approx(0.1 * 64**0.5)
    assert not (after.augmentation.use_blur or after.augmentation.use_grayscale)


@pytest.mark.slow
def test_export_teaches_another_encoder_on_other_images(teacher, tmp_path):
    (step,) = (teacher / "export").iterdir()
    flags = [f"--teacher={step}", "--dataset=shapes", "--train_split=train[512:700]"]
    flags += ["--image_size=16", "--resnet_depth=18", "--width_multiplier=0.125", *SHORT]
    flags += [f"--model_dir={tmp_path}"]
    output = output_of("distill", *flags, "--mode=train")
    assert "188 images of shapes train[512:700], no labels used; ResNet-18 × 0.125" in output
    assert "next: run the same command with --mode=eval" in output
    assert not (tmp_path / "export").exists()
    output = output_of("distill", *flags, "--mode=eval", "--teacher=gone")
    # Only pretraining has `validation` for a default, which shapes has not.
    assert "note: the student's accuracy will not be measured: " in output
    assert not (tmp_path / "evaluations.json").exists()
    assert (tmp_path / "export" / "4" / "saved_model.pb").exists()
    flags += ["--mode=eval", "--teacher=gone", "--eval_split=test[:50]"]
    assert "distill (T=1): top-1" in output_of("distill", *flags)


@pytest.mark.slow
def test_terminated_command_resumes_and_ends_as_an_unbroken_one(teacher, tmp_path):
    flags = [f"--teacher={teacher}", "--train_steps=40", "--train_batch_size=32", "--log_every=5"]

    def start(name):
        path = f"--model_dir={tmp_path / name}"
        return python("-m", "simclr_tf", "distill", path, *flags, "--mode=train")

    whole, broken = start("whole"), start("broken")
    signal_at(broken, 10, signal.SIGTERM)
    assert finish(broken)[0] == 143
    assert 10 <= last_checkpoint(tmp_path / "broken") < 40
    status, output, errors = finish(start("broken"))
    assert status == 0, errors
    assert "resuming" in output and "next: run the same command with --mode=eval" in output
    assert finish(whole)[0] == 0
    assert_equal_variables(*(simclr_tf.load(tmp_path / name) for name in ("broken", "whole")))
    assert reproducible_rows(tmp_path / "broken") == reproducible_rows(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--teacher=", "--teacher is missing"),
        ("--teacher=nowhere", "--dataset is missing"),
        ("--teacher=nowhere --dataset=shapes", "--teacher=nowhere: expected a run or a Saved"),
        ("--image_size=24", "--image_size=24: expected 16, the image size of the teacher"),
        ("--microbatch_size=8", "--microbatch_size"),
        ("--label_fraction=0.5", "--distill_alpha=1: expected a value below 1"),
        ("--distill_temperature=0", "--distill_temperature=0.0: expected a number above 0"),
        ("--checkpoint=nowhere", "nowhere holds no run"),
        ("--eval_split=dev", "no split 'dev'"),
        ("--train_mode=finetune", "--train_mode=finetune: expected distill"),
        (
            "--encoder=keras_cv:x --resnet_depth=34",
            "--resnet_depth=34: expected --encoder=resnet",
        ),
    ],
)
def test_mistakes_are_one_line_before_any_work(teacher, tmp_path, flags, message):
    place = tmp_path / "student"
    start = ["distill", f"--teacher={teacher}", f"--model_dir={place}", *SHORT]
    assert message in error_of(*start, *flags.split())
    assert not (place / "metrics.jsonl").exists()


@pytest.mark.slow
def test_flags_that_have_no_effect_or_contradict_the_checkpoint_are_errors(teacher, tmp_path):
    start = ["distill", f"--teacher={teacher}", f"--model_dir={tmp_path}", *SHORT]
    assert "proj_out_dim" in error_of(*start, "--proj_out_dim=8")
    error = error_of(*start, f"--checkpoint={teacher}", "--width_multiplier=0.125")
    assert "--width_multiplier=0.125: expected 0.0625, as the encoder of --checkpoint=" in error


@pytest.mark.slow
def test_simclr_v2_pretrains_finetunes_and_distills(tmp_path):
    """SK and a head of three layers; its first layer fine-tuned; a narrower student; its export."""
    big, few, small = (tmp_path / name for name in ("big", "few", "small"))
    flags = ["--resnet_depth=50", "--sk_ratio=0.0625", "--num_proj_layers=3", "--train_steps=2"]
    output_of("pretrain", *TINY, *flags, f"--model_dir={big}")
    flags = ["--labels_per_class=4", "--train_steps=2", "--ft_proj_selector=1"]
    output = output_of("finetune", f"--checkpoint={big}", f"--model_dir={few}", *flags)
    assert "finetune (from layer 1 of the projection head): top-1" in output
    flags = ["--resnet_depth=18", "--width_multiplier=0.0625", "--sk_ratio=0", *SHORT]
    output = output_of("distill", f"--teacher={few}", f"--model_dir={small}", *flags)
    assert last_checkpoint(small) == 4
    assert "300 images of shapes train[:300], no labels used" in output
    (record,) = json.loads((small / "evaluations.json").read_text(encoding="utf-8"))
    accuracy = exported_accuracy(small / "export" / "4", "test[:100]")
    assert accuracy == pytest.approx(record["top1"])
