"""Benchmarks as a user runs them, at sizes that take seconds."""

import json

import numpy as np
import pytest
import tensorflow as tf

from simclr_tf.cli.main import main
from tests.commands import error_of, output_of

_MIB = 2**20


def test_benchmark_prints_a_table_and_writes_json(capfd, tmp_path):
    file = tmp_path / "new" / "loss.json"
    flags = ["--batch_sizes=64", "--forms=blocks", "--dim=8", "--repeats=1", f"--output={file}"]
    assert main(["bench", "loss", *flags]) == 0
    output, errors = capfd.readouterr()
    assert "oneDNN" not in errors  # TensorFlow's startup lines, of every process
    assert "round 1 of 1, N = 64, blocks: " in output
    assert f"TensorFlow {tf.__version__}" in output and f"written: {file}" in output
    document = json.loads(file.read_text(encoding="utf-8"))
    assert document["bench"] == "loss" and document["options"]["dim"] == 8
    assert document["machine"]["tensorflow"] == tf.__version__
    (result,) = document["results"]
    assert result["block_rows"] == 128 and result["seconds"]["median"] > 0
    (row,) = [line.split() for line in output.splitlines() if line.split()[1:2] == ["blocks"]]
    assert row[:3] == ["64", "blocks", "128"]


@pytest.mark.slow
def test_loss_measures_memory_that_blocks_save(tmp_path):
    file = tmp_path / "new" / "loss.json"
    flags = ["--batch_sizes=2048", "--dim=32", "--repeats=1", f"--output={file}"]
    printed = output_of("bench", "loss", *flags)
    document = json.loads(file.read_text(encoding="utf-8"))
    dense, blocks = document["results"]
    assert (dense["form"], dense["block_rows"]) == ("dense", 0)
    assert (blocks["form"], blocks["block_rows"]) == ("blocks", 1024)
    # Dense: at least its logits, [4096, 4096] of 4 bytes, and their gradient.
    assert dense["extra_bytes"]["median"] > 2 * 64 * _MIB
    # Blocks: at least one of them, and no more than a few.
    assert 16 * _MIB < blocks["extra_bytes"]["median"] < 0.5 * dense["extra_bytes"]["median"]
    ratio = blocks["extra_bytes"]["median"] / dense["extra_bytes"]["median"]
    assert blocks["extra_bytes_ratio"] == ratio
    (row,) = [line.split() for line in printed.splitlines() if line.split()[1:2] == ["blocks"]]
    assert row[:3] == ["2048", "blocks", "1024"] and row[-2:] == [f"{ratio:.2f}", "×"]


@pytest.mark.slow
def test_scaling_measures_a_step_of_several_replicas(tmp_path):
    file = tmp_path / "scaling.json"
    sizes = ["--replicas=2", "--train_batch_size=8", "--width_multiplier=0.0625", "--image_size=8"]
    printed = output_of("bench", "scaling", *sizes, "--repeats=1", "--steps=1", f"--output={file}")
    assert "round 1 of 1, 2 replicas: " in printed
    (two,) = json.loads(file.read_text(encoding="utf-8"))["results"]
    assert (two["replicas"], two["replica_batch_size"]) == (2, 4)
    assert two["views_per_second"] == pytest.approx(2 * 8 / two["step_seconds"]["median"])
    # Both ways: 2 views of 8 images, 128 wide, in float32.
    assert two["exchanged_bytes"]["projections"] == 2 * (2 * 8 * 128) * 4
    if not tf.config.list_physical_devices("GPU"):
        assert "share the same cores" in printed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "flags", "pairs"),
    [
        ("augment", ["--image_sizes=8", "--batch_size=2"], [("simclr_tf", "tf_image")]),
        (
            "step",
            ["--train_batch_size=4", "--image_size=8", "--width_multipliers=0.0625"],
            [("step", "encoder_only"), ("step", "encoder_only")],
        ),
        (
            "input",
            ["--train_batch_size=4", "--image_size=8", "--files=3"],
            [("input", None), ("input", "decoding")],
        ),
        (
            "embed",
            ["--batch_size=4", "--images=6", "--image_size=8", "--width_multipliers=0.0625"],
            [("extraction", "encoder_only")],
        ),
    ],
)
def test_benchmark_measures_every_quantity_in_every_round(tmp_path, name, flags, pairs):
    file = tmp_path / "results.json"
    printed = output_of("bench", name, *flags, "--repeats=2", "--seconds=0.01", f"--output={file}")
    assert "median (min–max) of 2 interleaved rounds" in printed
    results = json.loads(file.read_text(encoding="utf-8"))["results"]
    for result, (numerator, denominator) in zip(results, pairs, strict=True):
        values = result[numerator]["values"]
        assert len(values) == 2 and min(values) > 0
        if denominator:
            ratios = np.divide(values, result[denominator]["values"])
            np.testing.assert_allclose(result["ratio"]["values"], ratios)
            np.testing.assert_allclose(result["ratio"]["median"], ratios.mean())


@pytest.mark.slow
def test_dataset_that_cannot_be_read_is_a_user_error(tmp_path):
    error = error_of("bench", "input", f"--dataset=folder:{tmp_path}")
    assert f"error: --dataset=folder:{tmp_path} contains no images" in error
