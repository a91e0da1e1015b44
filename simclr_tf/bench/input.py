"""Input pipeline alone: images per second that reach the device.

Reads as training does, but without training: the built-in images in memory; JPEG files of varying
sizes, written for this benchmark and resized when they are read; with --dataset any other dataset.
The upper bound for the JPEG files is decoding alone, tf.io.decode_jpeg in a parallel map. Each
source runs in a fresh process.

  simclr-tf bench input --dataset=folder:photos --image_size=224
"""

import dataclasses
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simclr_tf.bench import harness
from simclr_tf.config import PretrainConfig
from simclr_tf.option_groups import Augmentation, Data
from simclr_tf.options import OptionGroup, option
from simclr_tf.utils.hardware import HardwareInfo

_SIDES = (300, 600)  # of the JPEG files, in pixels; ImageNet's are about 400 × 350


@dataclasses.dataclass(frozen=True)
class Options(OptionGroup):
    """Measurement"""

    image_size: int = option(224, "Side of the views; images are stored at 1.5 times that.", min=8)
    train_batch_size: int = option(256, "Images in a batch.", min=2)
    files: int = option(256, "JPEG files that are written and read repeatedly.", min=1)
    dataset: str = option("", "Additional source: a TFDS name or folder:PATH.", is_path=True)
    data_dir: str = option(
        "", "Directory of prepared TFDS datasets. Default: TFDS's own.", is_path=True
    )
    train_split: str = option("train", "Split of --dataset; slices such as train[:90%] work.")
    repeats: int = option(5, "Rounds; each measures a source and its upper bound once.", min=1)
    seconds: float = option(3.0, "Duration of one measurement in seconds.", exclusive_min=0)

    def data(self) -> Data:
        """Returns the resolved settings of the additional source, or of `shapes`."""
        data = Data(self.dataset or "shapes", self.data_dir, self.train_split)
        return PretrainConfig(data, Augmentation(image_size=self.image_size)).resolve().data

    def cases(self, hardware: HardwareInfo) -> dict[str, str]:
        # The user's dataset comes first, because its name may be wrong.
        names = ["dataset"] * bool(self.dataset) + ["shapes", "JPEG files"]
        return {name: name for name in names}

    def notes(self, hardware: HardwareInfo) -> list[str]:
        return [
            harness.rounds_footnote(self.repeats),
            f"Batches of {self.train_batch_size} images; JPEG files of {_SIDES[0]} to {_SIDES[1]} "
            "px a side.",
            "A step that makes V views per second needs V / 2 images per second.",
        ]


def measure(options: Options, case: str) -> dict[str, Any]:
    """Measures a source, in images per second; of JPEG files also decoding alone."""
    from simclr_tf.data import train_batches

    size = options.train_batch_size
    with tempfile.TemporaryDirectory() as folder:
        source, decoding = _open(options, case, folder)
        batches = train_batches(source, batch_size=size, seed=0, start_step=0)
        works: dict[str, Any] = {"input": (batches, size)}
        if decoding is not None:
            works["decoding"] = decoding, size
        label = f"{source.name}, images/s"
        samples = harness.compare(works, options, label, "input", "decoding")
    return {
        "source": source.name,
        "stored_size": source.image_shape[0],
        **{name: samples.get(name) for name in ("input", "decoding", "ratio")},
    }


def _open(options, case, folder):
    """Opens a source: (source, dataset of its upper bound or None)."""
    from simclr_tf.data import open_source
    from simclr_tf.data.folder import FolderSource

    data = options.data()
    if case == "shapes":
        return open_source("shapes", "train"), None
    if case == "JPEG files":
        names = write_jpegs(folder, options.files)
        paths = [os.path.join(folder, name) for name in names]
        source = FolderSource(case, folder, names, data.storage_size)
        return source, decode_only_dataset(paths, options.train_batch_size)
    opened = open_source(data.dataset, data.train_split, **data.reading)
    return opened, None


def write_jpegs(folder: str | Path, count: int) -> list[str]:
    """Writes JPEG files of different sides, as dense as photographs, and returns their names."""
    import tensorflow as tf

    rng = np.random.default_rng(0)
    names = [f"{i}.jpg" for i in range(count)]
    for name in names:
        height, width = rng.integers(_SIDES[0], _SIDES[1], size=2, endpoint=True)
        coarse = rng.uniform(0, 255, (height // 16, width // 16, 3))
        image = tf.image.resize(coarse, (height, width), "bicubic")
        image += rng.normal(0, 8, (height, width, 1))
        pixels = tf.cast(tf.clip_by_value(image, 0, 255), tf.uint8)
        Path(folder, name).write_bytes(tf.io.encode_jpeg(pixels, quality=90).numpy())
    return names


def decode_only_dataset(paths: Sequence[str], batch_size: int) -> Any:
    """Returns an infinite dataset that decodes JPEG files and yields the first pixel of each."""
    import tensorflow as tf

    def decode_first_pixel(path):
        return tf.io.decode_jpeg(tf.io.read_file(path), channels=3)[0, 0]

    files = tf.data.Dataset.from_tensor_slices(list(paths)).repeat()
    pixels = files.map(decode_first_pixel, num_parallel_calls=tf.data.AUTOTUNE)
    return pixels.batch(batch_size).prefetch(tf.data.AUTOTUNE)


BENCHMARK = harness.Benchmark(
    Options,
    measure,
    columns={
        "source": "source",
        "stored px": "stored_size",
        "images/s": "input",
        "decoding alone, images/s": "decoding",
        "of decoding, %": lambda result: harness.format_samples(result["ratio"], 0.01),
    },
    memory_flag="train_batch_size",
)
