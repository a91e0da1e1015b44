"""The bench of augmentation: what it sets against what. The baseline: test_host_pipeline."""

import numpy as np

from simclr_tf.augment import SimCLRAugment, view_seed
from simclr_tf.bench import augment
from simclr_tf.bench.measure import Spread
from simclr_tf.bench.setting import noise


def silent(line):
    del line


def test_each_size_has_its_recipe_and_the_ratio_of_its_rounds(answered):
    taken = {
        "ours": Spread((40.0, 90.0, 60.0)),
        "vectorized": Spread((7.0, 8.0, 9.0)),
        "host": Spread((20.0, 10.0, 30.0)),
    }
    asked = answered("augment", [taken, taken])
    report = augment.run(augment.Options(image_sizes="224,32"), silent)
    figures = ["60 (40–90)", "8 (7–9)", "20 (10–30)", "2 (2–9)"]
    assert report.rows == [
        ["224", "256", "1", "yes", "64", *figures],
        ["32", "32", "0.5", "no", "512", *figures],
    ]
    assert [case["image_size"] for (case,) in asked] == [224, 32]
    assert report.results[0]["ratio"] == Spread((2.0, 9.0, 2.0)).to_json()
    assert "median (min–max) of 5 rounds" in report.notes[0]


def test_views_are_those_of_a_training_step():
    images = noise(3, 10)
    views = augment.device_views(images, 8)
    made = views(), views()
    alone = SimCLRAugment(8, color_jitter_strength=0.5, use_blur=False)
    for step, both in enumerate(made, start=1):
        assert both.shape == (6, 8, 8, 3)
        expected = np.concatenate([alone(images, view_seed(0, step, view)) for view in (0, 1)])
        np.testing.assert_array_equal(both, expected)
