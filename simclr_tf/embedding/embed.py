"""Embedding of a dataset: features as arrays, files and nearest neighbors."""

import dataclasses
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path

import numpy as np

from simclr_tf.data import ImageSource
from simclr_tf.data.base import content_hash
from simclr_tf.data.folder import FOLDER_PREFIX
from simclr_tf.embedding.embedded_dataset import EmbeddedDataset
from simclr_tf.embedding.nearest import (
    Neighbor,
    nearest_neighbors,
    plot_neighbors,
    resolve_query,
)
from simclr_tf.embedding.options import EmbedOptions
from simclr_tf.embedding.projector import write_projector
from simclr_tf.embedding.writers import write_ids, write_npy, write_parquet
from simclr_tf.errors import UserError
from simclr_tf.evaluation.features import Encoder, FeatureExtractor, FeatureStore
from simclr_tf.evaluation.load_encoder import (
    FrozenEncoder,
    encoder_from_run,
    encoder_from_saved_model,
)
from simclr_tf.evaluation.splits import Splits
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.utils.files import atomic_write, check_output_path, slugify
from simclr_tf.utils.paths import shell_join, user_path

logger = logging.getLogger(__name__)

_MANIFEST = "embedding.json"
_OUTPUT_NAMES = ("features.npy", "ids.csv", "features.parquet", "projector")


@dataclasses.dataclass(frozen=True)
class EmbedResult:
    """Features of a dataset. Unpacks as `features, ids, labels = result`.

    >>> import numpy as np
    >>> import simclr_tf as st
    >>> from simclr_tf.embedding import EmbedResult
    >>> from simclr_tf.embedding.embedded_dataset import EmbeddedDataset
    >>> source = st.data.open_source("shapes", "test[:2]")
    >>> dataset = EmbeddedDataset(source, np.zeros((2, 8), np.float32), source.labels())
    >>> features, ids, labels = EmbedResult(dataset)
    >>> features.shape, len(ids), labels.shape
    ((2, 8), 2, (2,))

    Attributes:
        dataset: features, images, IDs and labels, for access in blocks.
        output: the directory of the written files; None if none were written.
        files: the written files, and those that an earlier call had written.
        query: name of the query image; "" without a search.
        neighbors: rows nearest to the query, best first.
    """

    dataset: EmbeddedDataset
    output: Path | None = None
    files: tuple[Path, ...] = ()
    query: str = ""
    neighbors: tuple[Neighbor, ...] = ()

    @property
    def features(self) -> np.ndarray:
        """The features float32 [N, D], memory-mapped from a file."""
        return self.dataset.features

    @cached_property
    def ids(self) -> list[str]:
        """The N image IDs."""
        return self.dataset.image_ids(np.arange(len(self.dataset)))

    @property
    def labels(self) -> np.ndarray | None:
        """The labels int64 [N], -1 where missing, or 0/1 [N, C]; None for an unlabeled dataset."""
        return self.dataset.labels if self.dataset.source.class_names else None

    def __iter__(self) -> Iterator[object]:
        """Yields features, ids and labels."""
        return iter((self.features, self.ids, self.labels))


def embed_run(
    model_dir: str | Path,
    options: EmbedOptions | None = None,
    output: str | Path | None = None,
    source: ImageSource | None = None,
) -> EmbedResult:
    """Embeds a dataset with the newest checkpoint of a run.

    Features are cached in the run directory, where `simclr-tf evaluate` finds them, too. Memory
    use does not grow with the dataset.

    Args:
        model_dir: the run directory.
        options: defaults to `EmbedOptions()`.
        output: directory to write, such as `default_output_dir(...)`; None writes no files.
        source: images to embed instead of those that `options` names.

    Raises:
        UserError: the run, the data, the output or the query are invalid.

    Example:
    >>> from simclr_tf.embedding import embed_run
    >>> features, ids, labels = embed_run("runs/first")  # doctest: +SKIP
    """
    run = RunDir(model_dir)
    config, _ = run.read_config()
    if output is not None:
        output = user_path(output)
        check_output_path(output, "output")
    splits = Splits.from_config(config.data)
    encoder = encoder_from_run(model_dir)
    return _embed(encoder, options or EmbedOptions(), splits, output, run.features_dir, source)


def embed_saved_model(
    encoder: str | Path,
    options: EmbedOptions,
    output: str | Path | None = None,
    source: ImageSource | None = None,
) -> EmbedResult:
    """Embeds a dataset with an exported encoder.

    Features are cached in the directory `features` of the output.

    Args:
        encoder: a SavedModel.
        options: they must name a dataset, unless there is a `source`.
        output: directory to write; None writes no files.
        source: images to embed instead of those that `options` names.

    Raises:
        UserError: the encoder, the data, the output or the query are invalid.

    Example:
    >>> from simclr_tf.embedding import EmbedOptions, embed_saved_model
    >>> options = EmbedOptions(dataset="folder:new", split="train")
    >>> result = embed_saved_model("runs/first/export/780", options)  # doctest: +SKIP
    """
    if source is None and not options.dataset:
        raise UserError(
            "--dataset is missing: expected the images to embed, because an export contains none. "
            "Fix: set it"
        )
    if output is not None:
        output = user_path(output)
        check_output_path(output, "output")
    loaded = encoder_from_saved_model(encoder)
    size = round(1.5 * loaded.image_size)  # as a run at that image size stores images
    splits = Splits(options.dataset or "array", "train", "test", storage_size=size)
    if output is not None:
        return _embed(loaded, options, splits, output, Path(output) / "features", source)
    # The mapped features remain readable after their file is removed.
    with tempfile.TemporaryDirectory(prefix="simclr_tf-embed-") as cache:
        return _embed(loaded, options, splits, None, Path(cache), source)


def default_output_dir(model_dir: str | Path, options: EmbedOptions) -> Path:
    """Returns RUN/embeddings/DATASET-SPLIT-step-STEP."""
    run = RunDir(model_dir)
    data = run.read_config()[0].data
    splits = Splits.from_config(data).with_data(options, train_split=options.split)
    dataset = splits.dataset
    if dataset.startswith(FOLDER_PREFIX):
        dataset = Path(dataset.removeprefix(FOLDER_PREFIX)).expanduser().resolve().name
    name = f"{slugify(dataset)}-{slugify(splits.train_split)}-step-{run.latest_step()}"
    suffix = "" if options.representation == "h" else f"-{options.representation}"
    return run.path / "embeddings" / (name + suffix)


def usage_hint(result: EmbedResult) -> str:
    """Returns lines that show how to read the written files."""
    assert result.output is not None
    shape = f"[{len(result.dataset)}, {result.features.shape[1]}]"
    lines = [f"written to {result.output}; next:"]
    for path in result.files:
        name = json.dumps(str(path))
        if path.name == "features.npy":
            load = f"features = numpy.load({name}, mmap_mode='r')"
            lines.append(f"  {load}  # {shape}, rows as in ids.csv")
        elif path.name == "features.parquet":
            load = f"table = pyarrow.parquet.read_table({name})"
            lines.append(f"  {load}  # id, label, features {shape}")
        elif path.name == "projector":
            lines.append(f"  {shell_join(['tensorboard', '--logdir', path])}")
    return "\n".join(lines)


def _embed(
    encoder: FrozenEncoder,
    options: EmbedOptions,
    default_splits: Splits,
    output: str | Path | None,
    cache_dir: Path,
    source: ImageSource | None,
) -> EmbedResult:
    output_fn, identity = _select_representation(encoder, options.representation)
    splits = default_splits.with_data(options, train_split=options.split)
    if source is None:
        source = splits.open_split(splits.train_split)
    query = None
    if options.nearest:
        size = splits.storage_size or encoder.image_size
        query = resolve_query(options.nearest, source, size, splits.max_pixels)
        if options.neighbours > source.num_examples:
            raise UserError(
                f"--neighbours={options.neighbours}: expected at most {source.num_examples:,}, the "
                f"number of images in {source.name}. Fix: lower it"
            )
    extract = FeatureExtractor(
        output_fn, encoder.image_size, options.eval_batch_size, cache_dir, identity
    )
    try:
        cache_path = extract.cache_path(source)
        assert cache_path is not None
        if output is not None:
            boundary_ids = source.image_ids(np.array([0, source.num_examples - 1]))
            manifest = {
                "dataset": splits.dataset,
                "split": splits.train_split,
                "images": source.num_examples,
                "representation": options.representation,
                "image_size": encoder.image_size,
                "step": encoder.step,
                "key": content_hash(cache_path.name, boundary_ids, source.class_names)[:16],
            }
            _claim_output_dir(Path(output), manifest)
        target = "" if output is None else f" to {output}"
        logger.info(
            f"embedding {source.num_examples:,} images of {source.name} at {encoder.image_size} "
            f"px{target}"
        )
        if FeatureStore(cache_path, source.num_examples).is_complete:
            logger.info(f"features are already cached in {cache_path}")
        features = extract(source)
        dataset = EmbeddedDataset(source, features.features, features.labels)
        result = EmbedResult(dataset)
        if output is not None:
            result = EmbedResult(dataset, Path(output), _write(dataset, options, Path(output)))
        if query is not None:
            extract_one = FeatureExtractor(output_fn, encoder.image_size, 1)
            neighbors = nearest_neighbors(dataset, query, extract_one, options.neighbours)
            files = result.files
            if output is not None:
                files = (*files, Path(output) / "nearest.png")
                plot_neighbors(dataset, query, neighbors, files[-1])
                logger.info(f"plot of the nearest images: {files[-1]}")
            result = EmbedResult(dataset, result.output, files, query.name, tuple(neighbors))
    except OSError as error:
        raise UserError(
            f"{error.filename or output}: {error.strerror or error}. Fix: free disk space or "
            "choose another --output; run the command again to resume"
        ) from error
    return result


def _select_representation(encoder: FrozenEncoder, name: str) -> tuple[Encoder, str]:
    """Returns the function of images for a representation, and the hash of its weights."""
    if name == "h":
        return encoder.encoder, encoder.fingerprint
    outputs_fn = encoder.outputs_fn
    if outputs_fn is None:
        raise UserError(
            f"--representation={name}: this encoder has no projection head. Fix: use "
            "--representation=h"
        )

    def project(images, training):
        del training
        return outputs_fn(images)[name]

    return project, f"{name} {encoder.fingerprint} {encoder.head_fingerprint}"


def _claim_output_dir(output: Path, manifest: Mapping[str, object]) -> None:
    """Writes the manifest, or raises UserError if the directory holds other features."""
    path = output / _MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError:
        found = {"key": "damaged"}
    existing = [name for name in _OUTPUT_NAMES if (output / name).exists()]
    if found.get("key", "") != manifest["key"] and (found or existing):
        contents = f"{found.get('dataset')} {found.get('split')}, step {found.get('step')}"
        raise UserError(
            f"--output={output} holds features of other weights, images or settings "
            f"({contents if found else existing[0]}). Fix: choose another directory, or remove "
            "that one"
        )
    if not found:
        atomic_write(path, json.dumps(manifest, indent=1) + "\n")


def _write(dataset: EmbeddedDataset, options: EmbedOptions, output: Path) -> tuple[Path, ...]:
    """Writes missing files, and the projector, whose options may differ, always."""
    writers = {
        "npy": {"features.npy": write_npy, "ids.csv": write_ids},
        "parquet": {"features.parquet": write_parquet},
    }
    files = []
    for name in options.formats:
        for file, write in writers.get(name, {}).items():
            files.append(output / file)
            if files[-1].exists():
                logger.info(f"{file} exists already")
            else:
                write(dataset, files[-1])
    if "projector" in options.formats:
        files.append(output / "projector")
        write_projector(dataset, files[-1], options.projector_images)
    return tuple(files)
