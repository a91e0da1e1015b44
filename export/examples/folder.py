"""Shared code of the examples: images of a folder as input of an encoder, and the flags."""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps


def parse_args(description, *extra):
    """Parses `EXPORT FOLDER --image_size=S [--features=OUT.npy]`, and further flags."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("export", help="what simclr-tf export wrote")
    parser.add_argument("folder", help="images, in one subfolder for each class")
    parser.add_argument("--image_size", type=int, default=32, help="of the encoder")
    parser.add_argument("--features", help="a .npy file for the features")
    for flag, default, text in extra:
        parser.add_argument(flag, type=type(default), default=default, help=text)
    return parser.parse_args()


def read_folder(folder, size):
    """Returns images float32 [N, S, S, 3] in [0, 1], labels int64 [N] and the classes' names."""
    files = sorted(file for file in Path(folder).glob("*/*") if file.is_file())
    names = sorted({file.parent.name for file in files})
    images = np.stack([_read(file, size) for file in files])
    return images, np.array([names.index(file.parent.name) for file in files]), names


def _read(file, size):
    with Image.open(file) as image:
        # Of images larger than 32 pixels the central 87.5 %, as in the encoder's evaluation.
        border = 0.0625 if max(image.size) > 32 else 0
        square = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BICUBIC, border)
        return np.asarray(square, np.float32) / 255


def print_and_save(options, features):
    """Says what came out, and writes it where --features asks for it."""
    features = np.asarray(features)
    print(f"features: {features.dtype} {list(features.shape)}")
    if options.features:
        np.save(options.features, features)
