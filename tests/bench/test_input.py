"""The bench of the input pipeline: its files, its ceiling, what it says of a source."""

import os

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.bench import input as bench
from simclr_tf.bench.measure import Spread


def silent(line):
    del line


def test_a_source_with_a_ceiling_is_compared_with_it(answered):
    compared = {
        "source": "JPEG files",
        "stored_size": 336,
        "input": Spread((5.0, 10.0)).to_json(),
        "decoding": Spread((50.0, 40.0)).to_json(),
        "ratio": Spread((0.1, 0.25)).to_json(),
    }
    alone = compared | {"source": "shapes train", "decoding": None, "ratio": None}
    asked = answered("input", [alone, compared])
    report = bench.run(bench.Options(), silent)
    assert [opening for (opening,) in asked] == [bench._in_memory, bench._jpeg_files]
    assert report.rows == [
        ["shapes train", "336", "7.5 (5–10)", "–", "–"],
        ["JPEG files", "336", "7.5 (5–10)", "45 (40–50)", "17.5 (10–25)"],
    ]


def test_what_a_user_names_is_read_first(answered):
    result = {"source": "", "stored_size": 1, "input": Spread((1.0,)).to_json()}
    asked = answered("input", [result | {"decoding": None, "ratio": None}] * 3)
    bench.run(bench.Options(dataset="folder:photos"), silent)
    assert asked[0] == (bench._given,) and len(asked) == 3


@pytest.fixture(scope="module")
def jpegs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jpegs")
    return [os.path.join(folder, name) for name in bench.write_jpegs(folder, 5)]


def test_files_differ_in_size_and_are_as_large_as_photographs(jpegs):
    images = [tf.io.decode_jpeg(tf.io.read_file(path)).numpy() for path in jpegs]
    assert len({image.shape for image in images}) == 5
    for path, image in zip(jpegs, images, strict=True):
        assert all(300 <= side <= 600 for side in image.shape[:2]) and image.shape[2] == 3
        assert 0.2 < os.path.getsize(path) / (image.shape[0] * image.shape[1]) < 0.9
        assert image.std() > 30


def test_the_ceiling_decodes_every_file_without_end(jpegs):
    first, second = bench.decoding(jpegs, 4).take(2).as_numpy_iterator()
    pixels = [tf.io.decode_jpeg(tf.io.read_file(path))[0, 0].numpy() for path in jpegs]
    np.testing.assert_array_equal(np.concatenate([first, second]), (pixels * 2)[:8])


def test_a_users_dataset_is_measured_alone(tmp_path):
    bench.write_jpegs(tmp_path, 3)
    options = bench.Options(
        dataset=f"folder:{tmp_path}", image_size=8, train_batch_size=2, repeats=2, seconds=0.01
    )
    said = []
    result = bench._measure(options, bench._given, said.append)
    assert result["source"] == f"folder:{tmp_path} train" and result["stored_size"] == 12
    assert len(result["input"]["values"]) == 2 and min(result["input"]["values"]) > 0
    assert result["decoding"] is result["ratio"] is None
    assert said[0].startswith(f"folder:{tmp_path} train, images/s, round 1 of 2: input ")
