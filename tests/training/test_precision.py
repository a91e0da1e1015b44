"""The choice of --precision=auto, its log line, and resumed runs."""

import numpy as np
import pytest

from simclr_tf.models.build import build_encoder
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training import precision
from simclr_tf.training.distribution import DistributionContext, single_device
from simclr_tf.training.precision import (
    resolve_auto_precision,
    reuse_run_precision,
    time_precisions,
)
from simclr_tf.training.tasks import pretrain
from tests.training.tiny import PLAN, changed

AUTO = changed(optimization={"precision": "auto"}).resolve()


def chosen_for(settings=AUTO, distribution=None):
    return resolve_auto_precision(settings, distribution or single_device())


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [((1.0, 0.5), "bfloat16"), ((1.0, 0.99), "float32"), ((1.0, 3.0), "float32")],
)
def test_auto_takes_bfloat16_only_if_it_is_clearly_faster(monkeypatch, log, seconds, chosen):
    monkeypatch.setattr(precision, "time_precisions", lambda settings, share: seconds)
    settings = chosen_for()
    assert settings.optimization.precision == chosen
    faster = f"{seconds[0] / seconds[1]:.2f}"
    assert log.messages == [
        f"--precision=auto: {chosen} (here bfloat16 is {faster} times as fast as float32)"
    ]
    assert changed(settings, optimization={"precision": "auto"}) == AUTO


def test_auto_uses_the_times_of_all_workers(monkeypatch):
    monkeypatch.setattr(precision, "time_precisions", lambda settings, share: (1.0, 0.5))

    class TwoWorkers(DistributionContext):
        def gather_across_workers(self, values):
            return np.array([values, [1e9, 3e9]])  # the other one is slower in bfloat16

    settings = chosen_for(distribution=TwoWorkers(single_device().strategy))
    assert settings.optimization.precision == "float32"


def test_trial_times_float32_and_bfloat16(monkeypatch):
    tried = []

    def noted(encoder, name):
        tried.append(name)
        built = build_encoder(encoder, name)
        assert built.layers[1].compute_dtype == name
        return built

    monkeypatch.setattr(precision, "build_encoder", noted)
    in_float32, in_bfloat16 = time_precisions(AUTO, 8)
    assert tried == ["float32", "bfloat16"]
    assert in_float32 > 0 and in_bfloat16 > 0


def test_resumed_run_reuses_the_chosen_precision(tmp_path, log):
    run = RunDir(tmp_path)
    begun = changed(AUTO, optimization={"precision": "bfloat16"})
    run.write_config(begun, PLAN)
    assert reuse_run_precision(AUTO, run) == begun
    assert log.messages == [f"--precision=auto: bfloat16 (as {tmp_path} began)"]


def test_explicit_precision_does_not_change(tmp_path):
    named = changed(AUTO, optimization={"precision": "float16"})
    assert chosen_for(named) == named
    assert reuse_run_precision(named, RunDir(tmp_path)) == named


@pytest.mark.slow
def test_run_logs_its_choice_and_resumes_with_it(tmp_path, log):
    settings = changed(AUTO, optimization={"train_steps": 2})
    pretrain(settings, tmp_path)
    chosen = RunDir(tmp_path).read_config()[0].optimization.precision
    choices = [line for line in log.messages if line.startswith(f"--precision=auto: {chosen} (")]
    assert "here bfloat16 is" in choices[0]
    pretrain(settings, tmp_path)
    assert f"--precision=auto: {chosen} (as {tmp_path} began)" in log.messages
