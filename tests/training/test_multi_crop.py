"""Pretraining runs on large and small views of each image."""

import numpy as np
import pytest

import simclr_tf
from simclr_tf.data import open_source
from simclr_tf.errors import UserError
from simclr_tf.models.build import build_model
from simclr_tf.models.custom_encoder import describe_encoder
from simclr_tf.training.online_eval import make_view_grid, validation_loss_evaluator
from simclr_tf.training.tasks import pretrain
from tests.commands import eager_functions
from tests.processes import rows
from tests.training.tiny import (
    PLAN,
    AtStep,
    CallbackError,
    assert_equal_variables,
    changed,
    keras_encoder,
    raise_error,
    reproducible_rows,
)

LOSS = {"num_views": 3, "num_small_views": 2, "small_view_size": 12, "small_crop_max_area": 0.3}
ENCODER = {"backbone": describe_encoder(keras_encoder(8, side=None), 16)}
MULTI_CROP = changed(
    contrastive_loss=LOSS,
    encoder=ENCODER,
    data={"validation_fraction": 0.25},
    optimization={"microbatch_size": 16},
)


def test_policies_of_large_and_small_views():
    large, second, third, small, last = build_model(MULTI_CROP.resolve(), PLAN).policies
    assert large is second is third and small is last
    assert (large.image_size, large.crop_area) == (16, (0.08, 1.0))
    assert (small.image_size, small.crop_area) == (12, (0.05, 0.3))
    assert small.color_jitter_strength == large.color_jitter_strength
    assert not small.grayscale and not small.use_blur  # as the large ones
    default = changed(MULTI_CROP, contrastive_loss={"small_view_size": 0})
    assert build_model(default.resolve(), PLAN).policies[-1].image_size == 8


def test_supervised_baseline_trains_on_as_many_large_views():
    assert MULTI_CROP.to_supervised_baseline().finetuning.views_per_image == 3


def test_encoder_that_takes_one_size_is_refused():
    settings = changed(contrastive_loss=LOSS).resolve()
    with pytest.raises(UserError, match=r"--small_view_size=12: the encoder .* cannot take images"):
        build_model(settings, PLAN)


def test_view_grid_shows_all_views_of_an_image():
    model = build_model(MULTI_CROP.resolve(), PLAN)
    with eager_functions():
        grid = make_view_grid(open_source("shapes", "train[:16]"), 0)(model)
    assert grid.shape == (10 * 16, 2 * (3 * 16 + 2 * 12), 3)  # 16 images in 10 rows
    large, small = grid[:16, :48], grid[:16, 48:72]  # of the first image
    assert large.any(axis=2).mean() > 0.95 and small[:12].any(axis=2).mean() > 0.95
    assert not small[12:].any()


@pytest.mark.slow
def test_interrupted_run_equals_an_unbroken_one_and_is_reported(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    model = pretrain(MULTI_CROP, whole)
    with pytest.raises(CallbackError):
        pretrain(MULTI_CROP, broken, callbacks=[AtStep(7, raise_error)])
    assert_equal_variables(pretrain(MULTI_CROP, broken), model)
    assert reproducible_rows(broken) == reproducible_rows(whole)

    loaded = simclr_tf.load(whole)
    assert loaded.views_per_image == 5
    last = rows(whole)[-1]
    _, held_out = open_source("shapes", "train[:256]").holdout(0.25, 0)
    measured = validation_loss_evaluator(held_out, 32)(loaded)
    assert last["validation_loss"] == pytest.approx(measured["validation_loss"], rel=1e-5)
    assert last["loss"] >= np.log(4)
    with pytest.raises(UserError, match=r"--num_small_views \(was 2, now 4\)"):
        pretrain(changed(MULTI_CROP, contrastive_loss={"num_small_views": 4}), broken)

    simclr_tf.report(whole)
    page = (whole / "report.html").read_text(encoding="utf-8")
    assert "the 5 views of an image side by side" in page and "positives-section" in page
