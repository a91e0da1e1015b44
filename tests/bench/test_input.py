"""Benchmark of the input pipeline: its files, its upper bound, its sources."""

import logging
import os

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.bench import input as bench


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jpegs")
    return [os.path.join(folder, name) for name in bench.write_jpegs(folder, 5)]


def test_jpegs_have_different_sizes_and_density_of_photographs(jpegs):
    images = [tf.io.decode_jpeg(tf.io.read_file(path)).numpy() for path in jpegs]
    assert len({image.shape for image in images}) == 5
    for path, image in zip(jpegs, images, strict=True):
        assert all(300 <= side <= 600 for side in image.shape[:2]) and image.shape[2] == 3
        assert 0.2 < os.path.getsize(path) / (image.shape[0] * image.shape[1]) < 0.9
        assert image.std() > 30


def test_decode_only_dataset_repeats_all_files(jpegs):
    first, second = bench.decode_only_dataset(jpegs, 4).take(2).as_numpy_iterator()
    pixels = [tf.io.decode_jpeg(tf.io.read_file(path))[0, 0].numpy() for path in jpegs]
    np.testing.assert_array_equal(np.concatenate([first, second]), (pixels * 2)[:8])


def test_user_dataset_is_measured_first_and_alone(tmp_path, caplog):
    assert list(bench.Options().cases(None)) == ["shapes", "JPEG files"]
    caplog.set_level(logging.INFO)
    bench.write_jpegs(tmp_path, 3)
    options = bench.Options(
        dataset=f"folder:{tmp_path}", image_size=8, train_batch_size=2, repeats=2, seconds=0.01
    )
    assert list(options.cases(None)) == ["dataset", "shapes", "JPEG files"]
    result = bench.measure(options, "dataset")
    assert result["source"] == f"folder:{tmp_path} train" and result["stored_size"] == 12
    assert len(result["input"]["values"]) == 2 and min(result["input"]["values"]) > 0
    assert result["decoding"] is result["ratio"] is None
    assert f"folder:{tmp_path} train, images/s, round 1 of 2: input " in caplog.text


def test_jpeg_files_are_compared_with_decoding():
    options = bench.Options(image_size=8, train_batch_size=2, files=2, repeats=2, seconds=0.01)
    result = bench.measure(options, "JPEG files")
    ratios = np.divide(result["input"]["values"], result["decoding"]["values"])
    np.testing.assert_allclose(result["ratio"]["values"], ratios)
