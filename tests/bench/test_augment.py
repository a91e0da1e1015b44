"""Benchmark of augmentation. Its baseline: test_tf_image_baseline."""

import numpy as np
import pytest

from simclr_tf.augment import SimCLRAugment, view_seed
from simclr_tf.bench import augment
from simclr_tf.bench.workload import random_images


@pytest.mark.slow
def test_views_are_those_of_a_training_step():
    images = random_images(3, 10)
    views = augment.device_views(images, 8)
    made = views(), views()
    alone = SimCLRAugment(8, color_jitter_strength=0.5, use_blur=False)
    for step, both in enumerate(made, start=1):
        assert both.shape == (6, 8, 8, 3)
        expected = np.concatenate([alone(images, view_seed(0, step, view)) for view in (0, 1)])
        np.testing.assert_array_equal(both, expected)
