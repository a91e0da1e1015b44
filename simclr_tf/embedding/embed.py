"""From an encoder and a set of images to the files that were asked for."""

import dataclasses
import functools
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from simclr_tf.data import open_source
from simclr_tf.data.base import content_hash
from simclr_tf.data.folder import FOLDER_PREFIX
from simclr_tf.embedding.embedded_dataset import EmbeddedDataset
from simclr_tf.embedding.nearest import format_neighbors, nearest_neighbors, plot_neighbors
from simclr_tf.embedding.projector import write_projector
from simclr_tf.embedding.query import Query, resolve_query
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
from simclr_tf.utils.files import atomic_write, slugify

FORMATS = ("npy", "parquet", "projector")

_MANIFEST = "embedding.json"
_OURS = ("features.npy", "ids.csv", "features.parquet", "projector")

_say = functools.partial(print, flush=True)


@dataclasses.dataclass(frozen=True)
class EmbedOptions:
    """What is to be embedded, and as what.

    Attributes:
        dataset: "": the run's own.
        split: "": the run's train split, of another dataset `train`.
        data_dir: where TFDS datasets are prepared; "": the run's.
        skip_unreadable: leave out files that are not images.
        representation: "h", the encoder's output, or "projection", g(h).
        formats: any of FORMATS.
        projector_images: the most that the projector shows.
        nearest: an image file, or an id or number of the set; "": none.
        neighbours: how many are looked for.
        batch_size: images per call of the encoder.
    """

    dataset: str = ""
    split: str = ""
    data_dir: str = ""
    skip_unreadable: bool = False
    representation: str = "h"
    formats: Sequence[str] = ("npy",)
    projector_images: int = 10_000
    nearest: str = ""
    neighbours: int = 10
    batch_size: int = 256

    def __post_init__(self) -> None:
        """Raise UserError for a format that there is not."""
        for name in self.formats:
            if name not in FORMATS:
                raise UserError(f"--format: {name!r} is none of {', '.join(FORMATS)}")

    def splits(self, own: Splits) -> Splits:
        """Return the data of a run, `own`, with what was asked for in its place."""
        usual = own.train_split if self.dataset in ("", own.dataset) else "train"
        return dataclasses.replace(
            own,
            dataset=self.dataset or own.dataset,
            train_split=self.split or usual or "train",
            data_dir=self.data_dir or own.data_dir,
            skip_unreadable=self.skip_unreadable or own.skip_unreadable,
        )


def embed_run(model_dir: str | Path, request: EmbedOptions, output: str | Path | None) -> Path:
    """Embeds with a run's newest checkpoint; returns the directory.

    Features are kept in the run's `features`, where `simclr-tf evaluate` finds them too.

    Args:
        model_dir: the run directory.
        request: what is embedded.
        output: None: RUN/embeddings/DATASET-SPLIT-step-STEP.

    Raises:
        UserError: the run, the data, the output or the query do not allow it.
    """
    run = RunDir(Path(model_dir))
    config, _ = run.read_config()
    splits = request.splits(Splits.from_config(config.data))
    encoder = encoder_from_run(model_dir)
    dataset = splits.dataset
    if dataset.startswith(FOLDER_PREFIX):
        dataset = Path(dataset.removeprefix(FOLDER_PREFIX)).expanduser().resolve().name
    name = f"{slugify(dataset)}-{slugify(splits.train_split)}-step-{encoder.step}"
    if request.representation != "h":
        name += f"-{request.representation}"
    output = Path(output or run.path / "embeddings" / name)
    _embed(encoder, request, splits, output, run.features_dir)
    return output


def embed_saved_model(encoder: str | Path, request: EmbedOptions, output: str | Path) -> Path:
    """Embeds with an exported encoder; returns the directory, in whose `features` they are kept.

    Raises:
        UserError: the encoder, the data, the output or the query do not allow it.
    """
    loaded = encoder_from_saved_model(encoder)
    splits = request.splits(Splits.for_exported_model(loaded.image_size))
    _embed(loaded, request, splits, Path(output), Path(output) / "features")
    return Path(output)


def _embed(
    encoder: FrozenEncoder, request: EmbedOptions, splits: Splits, output: Path, cache: Path
) -> None:
    function, identity = _representation(encoder, request.representation)
    source = open_source(
        splits.dataset,
        splits.train_split,
        data_dir=splits.data_dir or None,
        storage_size=splits.storage_size,
        skip_unreadable=splits.skip_unreadable,
    )
    count = source.num_examples
    query = None
    if request.nearest:
        query = resolve_query(request.nearest, source, splits.storage_size or encoder.image_size)
        if request.neighbours > count:
            raise UserError(
                f"--neighbours={request.neighbours}: {source.name} has {count:,} images; lower it"
            )
    extract = FeatureExtractor(
        function, encoder.image_size, request.batch_size, cache, identity, _say
    )
    place = extract.cache_path(source)
    assert place is not None
    ends = source.image_ids(np.array([0, count - 1]))
    about = {
        "dataset": splits.dataset,
        "split": splits.train_split,
        "images": count,
        "representation": request.representation,
        "image_size": encoder.image_size,
        "step": encoder.step,
        "key": content_hash(place.name, ends, source.class_names)[:16],
    }
    try:
        _claim(output, about)
        _say(f"embedding {count:,} images of {source.name} at {encoder.image_size} px in {output}")
        if FeatureStore(place, count).is_complete:
            _say(f"their features are in {place} already")
        features = extract(source)
        rows = EmbeddedDataset(source, features.features, features.labels)
        _write(rows, request, output)
        if query is not None:
            one = FeatureExtractor(function, encoder.image_size, 1)
            _search(rows, query, one, request.neighbours, output)
    except OSError as error:
        raise UserError(
            f"{error.filename or output}: {error.strerror or error}; make that place free, or name "
            "another --output; the same command goes on where it was"
        ) from error
    _say(_next(rows, request, output))


def _representation(encoder: FrozenEncoder, name: str) -> tuple[Encoder, str]:
    if name == "h":
        return encoder.encoder, encoder.fingerprint
    represent = encoder.outputs_fn
    if represent is None:
        raise UserError(
            f"--representation={name}: this encoder has no projection head; take --representation=h"
        )

    def project(images, training):
        del training
        return represent(images)[name]

    return project, f"{name} {encoder.fingerprint} {encoder.head_fingerprint}"


def _claim(output: Path, about: Mapping[str, object]) -> None:
    """Marks the directory as that of these features, or refuses one that is of others."""
    if output.exists() and not output.is_dir():
        raise UserError(f"--output={output} is a file: name a directory")
    manifest = output / _MANIFEST
    try:
        found = json.loads(manifest.read_text(encoding="utf-8")) if manifest.exists() else {}
    except ValueError:
        found = {"key": "damaged"}
    there = [name for name in _OURS if (output / name).exists()]
    if found.get("key", "") != about["key"] and (found or there):
        what = f"{found.get('dataset')} {found.get('split')}, step {found.get('step')}"
        raise UserError(
            f"--output={output} holds features of other weights, images or settings "
            f"({what if found else there[0]}): name another directory, or remove that one"
        )
    if not found:
        atomic_write(manifest, json.dumps(about, indent=1) + "\n")


def _write(rows: EmbeddedDataset, request: EmbedOptions, output: Path) -> None:
    """Writes what is not there yet; the projector, which depends on the request, always."""
    writers = {
        "npy": {"features.npy": write_npy, "ids.csv": write_ids},
        "parquet": {"features.parquet": write_parquet},
    }
    for kind in request.formats:
        for name, write in writers.get(kind, {}).items():
            if (output / name).exists():
                _say(f"{name} is there already")
            else:
                write(rows, output / name, _say)
    if "projector" in request.formats:
        write_projector(rows, output / "projector", request.projector_images, _say)


def _search(
    rows: EmbeddedDataset, query: Query, extract: FeatureExtractor, count: int, output: Path
) -> None:
    found = nearest_neighbors(rows, query, extract, count)
    _say(format_neighbors(query, found))
    plot_neighbors(rows, query, found, output / "nearest.png")
    _say(f"their picture: {output / 'nearest.png'}")


def _next(rows: EmbeddedDataset, request: EmbedOptions, output: Path) -> str:
    shape = f"[{len(rows)}, {rows.features.shape[1]}]"
    table, path = (json.dumps(str(output / f"features.{kind}")) for kind in ("parquet", "npy"))
    lines = {
        "npy": f"  features = numpy.load({path}, mmap_mode='r')  # {shape}, rows as in ids.csv",
        "parquet": f"  table = pyarrow.parquet.read_table({table})  # id, label, features {shape}",
        "projector": f"  tensorboard --logdir {shlex.quote(str(output / 'projector'))}",
    }
    return "\n".join([f"written to {output}; next:", *(lines[name] for name in request.formats)])
