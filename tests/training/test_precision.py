"""--precision=auto: what it chooses, what it says, and what a run remembers of it."""

import dataclasses

import pytest
from processes import TINY, rows

from simclr_tf import config
from simclr_tf.distribution import one_device
from simclr_tf.run import Run
from simclr_tf.training import precision
from simclr_tf.training.precision import resolve_precision, time_precisions

AUTO = config.PretrainConfig(
    data=config.Data(dataset="shapes"),
    views=config.Views(image_size=16),
    encoder=config.Encoder(resnet_depth=18, width_multiplier=1 / 16),
    optimization=config.Optimization(precision="auto", train_batch_size=8),
).resolved()


def resolved(run, settings=AUTO):
    said = []
    return resolve_precision(settings, run, one_device(), said.append), said


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [((1.0, 0.5), "bfloat16"), ((1.0, 0.99), "float32"), ((1.0, 3.0), "float32")],
)
def test_takes_bfloat16_only_where_it_is_clearly_faster(tmp_path, monkeypatch, seconds, chosen):
    monkeypatch.setattr(precision, "time_precisions", lambda settings: seconds)
    settings, said = resolved(Run(tmp_path))
    assert settings.optimization.precision == chosen
    assert said == [
        f"--precision=auto: {chosen} (bfloat16 is {seconds[0] / seconds[1]:.2f} times as fast as "
        "float32 here)"
    ]
    assert dataclasses.replace(settings, optimization=AUTO.optimization) == AUTO


def test_the_trial_times_both():
    in_float32, in_bfloat16 = time_precisions(AUTO)
    assert in_float32 > 0
    assert in_bfloat16 > 0


def test_a_run_keeps_what_was_chosen(tmp_path, monkeypatch):
    run = Run(tmp_path)
    begun = dataclasses.replace(
        AUTO, optimization=dataclasses.replace(AUTO.optimization, precision="bfloat16")
    )
    run.write(begun, config.Plan(64, 10, 10, 0, 8.0, 0.1))
    monkeypatch.delattr(precision, "time_precisions")
    settings, said = resolved(run)
    assert settings == begun
    assert said == [f"--precision=auto: bfloat16 (as {tmp_path} began)"]


def test_a_precision_that_is_named_is_left_alone(tmp_path):
    named = dataclasses.replace(
        AUTO, optimization=dataclasses.replace(AUTO.optimization, precision="float16")
    )
    assert resolved(Run(tmp_path), named) == (named, [])


def test_the_command_says_what_it_chose_and_resumes_with_it(tmp_path, run_cli):
    flags = ["pretrain", *TINY, "--precision=auto", f"--model_dir={tmp_path}"]
    first = run_cli(*flags, "--train_steps=2")
    assert first.returncode == 0, first.stderr
    chosen = Run(tmp_path).read()[0].optimization.precision
    assert f"--precision=auto: {chosen} (bfloat16 is " in first.stdout
    again = run_cli(*flags, "--train_steps=2")
    assert again.returncode == 0, again.stderr
    assert f"--precision=auto: {chosen} (as {tmp_path} began)" in again.stdout
    assert len(rows(tmp_path)) == 1
