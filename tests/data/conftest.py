import logging

import numpy as np
import pytest
import tensorflow_datasets as tfds

IMAGE = tfds.features.Image(shape=(8, 8, 3), encoding_format="png")


@pytest.fixture
def log(caplog):
    """`log.text`: the lines that the package logs."""
    caplog.set_level(logging.INFO, "simclr_tf")
    return caplog


def store(data_dir, name, splits, files=1, **features):
    """Prepares a dataset as TFDS does, without shuffling its examples."""
    tfds.dataset_builders.store_as_tfds_dataset(
        name=name,
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets={split: list(enumerate(examples)) for split, examples in splits.items()},
        data_dir=data_dir,
        download_config=tfds.download.DownloadConfig(num_shards=files),
        disable_shuffling=True,
    )


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory):
    """`numbered`: 120 and 30 labeled 8x8 PNGs in four files a split; `one_file` in one.

    The first pixel of an image encodes its number.
    """
    images = np.full((150, 8, 8, 3), 200, np.uint8)
    images[:, 0, 0] = [(*divmod(number, 250), 0) for number in range(150)]
    examples = [{"image": image, "label": number % 3} for number, image in enumerate(images)]
    path = tmp_path_factory.mktemp("tfds")
    features = {"image": IMAGE, "label": tfds.features.ClassLabel(names=["a", "b", "c"])}
    splits = {"train": examples[:120], "test": examples[120:]}
    store(path, "numbered", splits, files=4, **features)
    store(path, "one_file", {"train": examples[:120]}, **features)
    return path
