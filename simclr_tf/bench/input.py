"""The input pipeline by itself: how many images a second reach the device.

Reads as training does, without training: the built-in images in memory; JPEG files of varying
sizes, written for it, which are resized as they are read; and with --dataset whatever else. For the
JPEG files the ceiling is decoding alone, tf.io.decode_jpeg in a parallel map. Each source in a
fresh process.

  simclr-tf bench input --dataset=folder:photos --image_size=224
"""

import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from simclr_tf import config
from simclr_tf.bench.measure import in_fresh_process, memory_for, spread_text, this_machine
from simclr_tf.bench.report import Report, rounds_note
from simclr_tf.options import OptionGroup, option

_COLUMNS = ("source", "stored px", "images/s", "decoding alone, images/s", "of decoding, %")
_SIDES = (300, 600)  # of the JPEG files, in pixels; ImageNet's are about 400 × 350


@dataclasses.dataclass(frozen=True)
class Options(OptionGroup):
    """What is measured"""

    image_size: int = option(224, "Side of the views; images are stored at 1.5 times that.", min=8)
    train_batch_size: int = option(256, "Images of a batch.", min=2)
    files: int = option(256, "JPEG files that are written and read again and again.", min=1)
    dataset: str = option("", "One more source: a TFDS name or folder:PATH.")
    data_dir: str = option("", "Where TFDS datasets are prepared; TFDS's own default if empty.")
    train_split: str = option("train", "Of --dataset; slices such as train[:90%] work.")
    repeats: int = option(5, "Rounds; each measures a source and its ceiling once.", min=1)
    seconds: float = option(3.0, "That one measurement takes.", exclusive_min=0)

    def data(self) -> config.Data:
        """Returns what is read besides that which the bench makes itself, resolved."""
        data = config.Data(self.dataset or "shapes", self.data_dir, self.train_split)
        return (
            config.PretrainConfig(data, config.Augmentation(image_size=self.image_size))
            .resolve()
            .data
        )


def run(options: Options, say: Callable[[str], None]) -> Report:
    """Measures what the options ask for; `say`, which processes are handed, takes progress.

    Raises:
        UserError: if --dataset cannot be read, or the memory does not suffice.
    """
    machine = this_machine()
    say(str(machine))
    # What may be wrong comes first.
    opened = ([_given] if options.dataset else []) + [_in_memory, _jpeg_files]
    results = []
    for opening in opened:
        with memory_for("a source", f"train_batch_size={options.train_batch_size}"):
            results.append(in_fresh_process(_measure, options, opening, say))
    notes = [
        rounds_note(options.repeats),
        f"Batches of {options.train_batch_size} images; JPEG files of {_SIDES[0]} to {_SIDES[1]} "
        "px a side.",
        "A step that makes V views a second needs V / 2 images a second.",
    ]
    return Report(machine, _COLUMNS, [_row(result) for result in results], notes, results)


def _measure(options, opening, say):
    """In a process of its own: the result of one source."""
    from simclr_tf.bench.rates import by_turns, delivery_rate
    from simclr_tf.data import train_batches

    size = options.train_batch_size
    with tempfile.TemporaryDirectory() as folder:
        source, ceiling = opening(options, folder)
        batches = {"input": train_batches(source, batch_size=size, seed=0, start_step=0)}
        if ceiling is not None:
            batches["decoding"] = ceiling
        rates = {
            name: functools.partial(delivery_rate, dataset, size, options.seconds)
            for name, dataset in batches.items()
        }
        taken = by_turns(rates, options.repeats, say, f"{source.name}, images/s")
    compared = "decoding" in taken
    return {
        "source": source.name,
        "stored_size": source.image_shape[0],
        "input": taken["input"].to_json(),
        "decoding": taken["decoding"].to_json() if compared else None,
        "ratio": taken["input"].over(taken["decoding"]).to_json() if compared else None,
    }


# Each opens a source: (source, a dataset that delivers as many at best, or None).


def _given(options, folder):
    from simclr_tf.data import open_source

    del folder
    data = options.data()
    return open_source(
        data.dataset,
        data.train_split,
        data_dir=data.data_dir or None,
        storage_size=data.storage_size,
    ), None


def _in_memory(options, folder):
    from simclr_tf.data import open_source

    del options, folder
    return open_source("shapes", "train"), None


def _jpeg_files(options, folder):
    from simclr_tf.data.folder import FolderSource

    names = write_jpegs(folder, options.files)
    source = FolderSource("JPEG files", folder, names, options.data().storage_size)
    paths = [os.path.join(folder, name) for name in names]
    return source, decoding(paths, options.train_batch_size)


def write_jpegs(folder: str | Path, count: int) -> list[str]:
    """Writes JPEG files whose sides and contents differ; returns their names.

    Smooth colours with some grain, so that they take about as many bytes a pixel as photographs.
    """
    import tensorflow as tf

    draw = np.random.default_rng(0)
    names = [f"{i}.jpg" for i in range(count)]
    for name in names:
        height, width = draw.integers(_SIDES[0], _SIDES[1], size=2, endpoint=True)
        coarse = draw.uniform(0, 255, (height // 16, width // 16, 3))
        image = tf.image.resize(coarse, (height, width), "bicubic")
        image += draw.normal(0, 8, (height, width, 1))
        pixels = tf.cast(tf.clip_by_value(image, 0, 255), tf.uint8)
        Path(folder, name).write_bytes(tf.io.encode_jpeg(pixels, quality=90).numpy())
    return names


def decoding(paths: Sequence[str], batch_size: int) -> Any:
    """Returns the ceiling: a dataset that decodes JPEG files without end and keeps a pixel each."""
    import tensorflow as tf

    def corner(path):
        return tf.io.decode_jpeg(tf.io.read_file(path), channels=3)[0, 0]

    files = tf.data.Dataset.from_tensor_slices(list(paths)).repeat()
    pixels = files.map(corner, num_parallel_calls=tf.data.AUTOTUNE)
    return pixels.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def _row(result):
    return [
        result["source"],
        str(result["stored_size"]),
        spread_text(result["input"]),
        spread_text(result["decoding"]) if result["decoding"] else "–",
        spread_text(result["ratio"], 0.01) if result["ratio"] else "–",
    ]
