"""`simclr-tf distill` in its own process, and SimCLR v2's three steps one after another."""

import json
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.augment import eval_transform
from simclr_tf.data import open_source
from simclr_tf.runs.run_dir import RunDir
from tests.processes import TINY, finish, last_checkpoint, pretrain, python, rows, signal_at


def _command(name, *flags):
    return finish(python("-m", "simclr_tf", name, *flags))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    place = tmp_path_factory.mktemp("distill")
    settings = [*TINY, "--eval_split=test[:100]", "--train_steps=3", "--from_scratch"]
    status, _, errors = _command("finetune", f"--model_dir={place / 'teacher'}", *settings)
    assert status == 0, errors
    return place / "teacher"


SHORT = ["--train_batch_size=64", "--train_steps=4", "--warmup_epochs=0", "--log_every=2"]


@pytest.mark.slow
def test_student_defaults_to_architecture_and_data_of_the_teacher(teacher, tmp_path):
    status, output, errors = _command(
        "distill", f"--teacher={teacher}", f"--model_dir={tmp_path}", *SHORT
    )
    assert status == 0, errors
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
    status, output, errors = _command("distill", *flags, f"--model_dir={tmp_path}")
    assert status == 0, errors
    # Only pretraining has `validation` for a default, which shapes has not.
    assert "note: the student's accuracy will not be measured: " in output
    assert "188 images of shapes train[512:700], no labels used; ResNet-18 × 0.125" in output
    assert not (tmp_path / "evaluations.json").exists()
    assert (tmp_path / "export" / "4" / "saved_model.pb").exists()
    shutil.rmtree(tmp_path / "export")
    flags += [f"--model_dir={tmp_path}", "--mode=eval", "--teacher=gone"]
    status, output, errors = _command("distill", *flags)
    assert status == 0, errors
    assert "note: the student's accuracy will not be measured: " in output
    assert (tmp_path / "export" / "4" / "saved_model.pb").exists()
    status, output, errors = _command("distill", *flags, "--eval_split=test[:50]")
    assert status == 0, errors
    assert "distill (T=1): top-1" in output


@pytest.mark.slow
def test_terminated_distillation_resumes(teacher, tmp_path):
    flags = ["--train_steps=40", "--train_batch_size=32", "--log_every=5", "--mode=train"]
    command = ["-m", "simclr_tf", "distill", f"--teacher={teacher}", f"--model_dir={tmp_path}"]
    process = python(*command, *flags)
    signal_at(process, 10, signal.SIGTERM)
    status, _, errors = finish(process)
    assert status == 143, errors
    status, output, errors = finish(python(*command, *flags))
    assert status == 0, errors
    assert "resuming" in output and "next: run the same command with --mode=eval" in output
    assert [row["step"] for row in rows(tmp_path)] == [*range(5, 41, 5)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--teacher="], "--teacher is missing"),
        (["--teacher=nowhere"], "--dataset is missing"),
        (["--teacher=nowhere", "--dataset=shapes"], "--teacher=nowhere: expected a run or a Saved"),
        (["--image_size=24"], "--image_size=24: expected 16, the image size of the teacher"),
        (["--microbatch_size=8"], "--microbatch_size"),
        (["--label_fraction=0.5"], "--distill_alpha=1: expected a value below 1"),
        (["--distill_temperature=0"], "--distill_temperature=0.0: expected a number above 0"),
        (["--checkpoint=nowhere"], "nowhere holds no run"),
        (["--eval_split=dev"], "no split 'dev'"),
        (["--train_mode=finetune"], "--train_mode=finetune: expected distill"),
        (["--proj_out_dim=8"], "proj_out_dim"),
        (
            ["--encoder=keras_cv:x", "--resnet_depth=34"],
            "--resnet_depth=34: expected --encoder=resnet",
        ),
    ],
)
def test_mistakes_are_one_line_before_any_work(teacher, tmp_path, capsys, flags, message):
    from simclr_tf.cli.main import main

    place = tmp_path / "student"
    arguments = ["distill", f"--teacher={teacher}", f"--model_dir={place}", *SHORT, *flags]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    (line,) = [line for line in error.splitlines() if line.startswith("simclr-tf: error:")]
    assert message in line
    assert not (place / "metrics.jsonl").exists()


@pytest.mark.slow
def test_flag_that_contradicts_the_checkpoint_is_an_error(teacher, tmp_path, capsys):
    from simclr_tf.cli.main import main

    arguments = ["distill", f"--teacher={teacher}", f"--checkpoint={teacher}", *SHORT]
    assert main([*arguments, f"--model_dir={tmp_path}", "--width_multiplier=0.125"]) == 2
    assert (
        "--width_multiplier=0.125: expected 0.0625, as the encoder of --checkpoint="
        in capsys.readouterr().err
    )


@pytest.mark.slow
def test_simclr_v2_pretrains_finetunes_and_distills(tmp_path):
    """SK and a head of three layers; its first layer fine-tuned; a narrower student; its export."""
    big = ["--resnet_depth=50", "--width_multiplier=0.0625", "--sk_ratio=0.0625"]
    flags = [*TINY, *big, "--num_proj_layers=3", "--eval_split=test[:100]", "--train_steps=4"]
    status, output, errors = finish(pretrain(tmp_path / "big", *flags))
    assert status == 0, errors
    few = ["--labels_per_class=4", "--train_steps=4", "--ft_proj_selector=1"]
    status, output, errors = _command(
        "finetune", f"--checkpoint={tmp_path / 'big'}", f"--model_dir={tmp_path / 'few'}", *few
    )
    assert status == 0, errors
    assert "finetune (from layer 1 of the projection head): top-1" in output
    small = ["--resnet_depth=18", "--width_multiplier=0.0625", "--sk_ratio=0", *SHORT]
    place = tmp_path / "small"
    status, output, errors = _command(
        "distill", f"--teacher={tmp_path / 'few'}", f"--model_dir={place}", *small
    )
    assert status == 0, errors
    assert last_checkpoint(place) == 4
    assert "512 images of shapes train[:512], no labels used" in output
    (record,) = json.loads((place / "evaluations.json").read_text(encoding="utf-8"))
    loaded = tf.saved_model.load(str(place / "export" / "4"))
    test = open_source("shapes", "test[:100]")
    images = eval_transform(tf.constant(test.images[test.indices]), 16)
    answer = loaded.signatures["classify"](images=images)
    assert np.mean(answer["label"] == test.labels()) == pytest.approx(record["top1"])
    names = [name.decode() for name in loaded.class_names().numpy()]
    assert [names[i] for i in answer["label"]] == [n.decode() for n in answer["class_name"].numpy()]
