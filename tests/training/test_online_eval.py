"""Evaluations during training on models that are built, not trained."""

import numpy as np
import pytest

from simclr_tf.data.base import ArraySource
from simclr_tf.errors import UserError
from simclr_tf.models.build import build_model
from simclr_tf.training.online_eval import probe_evaluator
from tests.training.tiny import PLAN, TINY


def test_probes_ignore_images_without_label():
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3)).astype(np.uint8)
    labels = np.random.default_rng(1).integers(0, 2, 40)
    model = build_model(TINY.resolve(), PLAN)
    names = ("a", "b")
    known = ArraySource("known", images[:20], labels[:20], names)
    half = ArraySource("half", images, np.where(np.arange(40) < 20, labels, -1), names)
    assert probe_evaluator(half, half, 16)(model) == probe_evaluator(known, known, 16)(model)
    none = ArraySource("none", images, np.full(40, -1), names)
    with pytest.raises(UserError, match="no image of none has a label"):
        probe_evaluator(known, none, 16)(model)
