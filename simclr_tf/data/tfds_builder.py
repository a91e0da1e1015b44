"""Finding a TFDS data set by name, and preparing it only if it is not there."""

from __future__ import annotations

import difflib
import os
import sys

import tensorflow as tf
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError
from tensorflow_datasets.core.download.util import DownloadError
from tensorflow_datasets.core.utils.version import list_all_versions

from simclr_tf.errors import UserError


def load_builder(dataset: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
    """The builder of a data set that is there; downloaded and prepared only if it is not.

    Raises:
      UserError: TFDS does not know the data set, or cannot prepare it.
    """
    if data_dir is not None:
        data_dir = os.path.expanduser(data_dir)
        if not tf.io.gfile.isdir(data_dir):
            raise UserError(
                f"--data_dir={data_dir} is not a directory: name the one that holds TFDS's data "
                "sets, or create it to have them prepared there"
            )
    try:
        builder = tfds.builder(dataset, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise UserError(_unknown(dataset, data_dir)) from error
    except (ValueError, AssertionError, ImportError) as error:
        raise UserError(f"--dataset={dataset} cannot be opened: {_one_line(error)}") from error
    if builder.is_prepared():
        return builder
    versions = list_all_versions(builder.data_path.parent)
    if versions and ":" not in dataset:
        path = builder.data_path.parent / str(versions[-1])
        _say(f"--dataset={dataset}: reading {path}; this TFDS would prepare {builder.version}")
        return tfds.builder_from_directory(path)
    _say(f"--dataset={dataset} is not in {builder.data_path}: downloading and preparing it")
    try:
        builder.download_and_prepare()
    except (OSError, AssertionError, ImportError, DownloadError, NonMatchingChecksumError) as error:
        # OSError: no network, no space, no right to write. AssertionError: a manual download.
        raise UserError(
            f"--dataset={dataset} cannot be prepared in {builder.data_path}: {_one_line(error)}; "
            "prepare it with a network, or copy a prepared one there"
        ) from error
    return builder


def _unknown(dataset: str, data_dir: str | None) -> str:
    """What to choose instead of a name that TFDS does not know."""
    known = tfds.list_builders(with_community_datasets=False)
    near = difflib.get_close_matches(dataset.lower(), known, cutoff=0.5)
    there = sorted(entry.rstrip("/") for entry in tf.io.gfile.listdir(data_dir)) if data_dir else []
    there = [entry for entry in there if not entry.startswith(".") and entry != "downloads"]
    message = f"--dataset={dataset} is not `shapes`, `folder:PATH` or a name that TFDS knows"
    if near:
        message += f"; near it are {', '.join(near)}"
    if there:
        message += f"; {data_dir} holds {', '.join(there)}"
    return message


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
