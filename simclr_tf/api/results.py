"""Evaluation, embedding, export and reports from Python, and import of weights."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from simclr_tf.api.signature import takes_options
from simclr_tf.embedding.options import EmbedOptions
from simclr_tf.errors import UserError
from simclr_tf.evaluation.options import EvalOptions
from simclr_tf.exporter.options import ExportOptions
from simclr_tf.options import OptionSet, make_group
from simclr_tf.reporting.options import ReportOptions
from simclr_tf.utils.paths import split_paths
from simclr_tf.weights_import.options import ImportOptions

_EITHER = "expected either --model_dir=RUN or --encoder=SAVEDMODEL"
_SET = "Fix: set it"

if TYPE_CHECKING:
    from simclr_tf.api.run import Run
    from simclr_tf.embedding.embed import EmbedResult

PathLike = str | os.PathLike[str]


@takes_options(OptionSet.of(EvalOptions))
def evaluate(
    model_dir: PathLike | Sequence[PathLike] = "",
    *,
    encoder: PathLike = "",
    output: PathLike = "",
    dataset: Any = "",
    labels: Any = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Evaluates an encoder with frozen features.

    Protocols are fitted to the labeled training split and predict the test split, next to baselines
    on the same images. Every record is written to evaluations.json as soon as it is computed, and
    features are cached, so that an interrupted evaluation resumes.

    Example:
        >>> import simclr_tf as st
        >>> records = st.evaluate("runs/photos", protocols=["knn"])  # doctest: +SKIP
        >>> records[0]["protocol"], records[0]["top1"]  # doctest: +SKIP
        ('knn', 0.71)

    Args:
        model_dir: Run directory, or several.
        encoder: Exported SavedModel to evaluate instead of a run; requires `output` and `dataset`.
        output: Directory for the results of an exported encoder.
        dataset: Labeled dataset, or uint8 images `[N, H, W, 3]` with `labels`, whose splits are
            slices of `train`. Default: the run's dataset.
        labels: int `[N]` from 0, for images from Python.

    Returns:
        One record per protocol, baseline and dataset, as in evaluations.json, with protocol,
        dataset, top1, top5 (fractions in [0, 1]), num_train, num_test, step, seconds and others.
    """
    settings = make_group(EvalOptions, options | {"dataset": dataset})
    if isinstance(model_dir, str):
        model_dir = split_paths(model_dir)
    paths = [Path(p) for p in ([model_dir] if isinstance(model_dir, os.PathLike) else model_dir)]
    if bool(paths) == bool(encoder):
        raise UserError(f"{_EITHER}, got {'both' if encoder else 'neither'}")

    from simclr_tf.evaluation.evaluate import check_runs, evaluate_run, evaluate_saved_model
    from simclr_tf.exporter.export_run import export_run
    from simclr_tf.training.tasks import train_supervised_baseline

    if encoder:
        if not (output and settings.dataset_names):
            raise UserError(
                f"--encoder={encoder}: expected --output=DIR and --dataset with it. Fix: set both"
            )
        return list(map(dict, evaluate_saved_model(Path(encoder), Path(output), settings)))
    check_runs(paths)
    records = []
    for path in paths:
        records += evaluate_run(path, settings, train_supervised=train_supervised_baseline)
        if settings.save_classifier:
            export_run(path)
    return list(map(dict, records))


@takes_options(OptionSet.of(EmbedOptions))
def embed(
    model_dir: PathLike = "",
    *,
    encoder: PathLike = "",
    output: PathLike | None = None,
    dataset: Any = "",
    labels: Any = None,
    **options: Any,
) -> "EmbedResult":
    """Computes the features of images, and finds the images nearest to one.

    Example:
        >>> import simclr_tf as st
        >>> features, ids, labels = st.embed(  # doctest: +SKIP
        ...     "runs/photos", dataset="folder:new"
        ... )

    Args:
        model_dir: Run directory; its newest checkpoint computes the features.
        encoder: Exported SavedModel instead of a run; requires `dataset`.
        output: Directory for files of the features. Default: no files are written.
        dataset: Dataset, or uint8 images `[N, H, W, 3]`. Default: the run's dataset.
        labels: int `[N]` from 0, for images from Python.

    Returns:
        The result, which unpacks as features float32 `[N, D]`, ids and labels.
    """
    settings = make_group(EmbedOptions, options | {"dataset": dataset})
    if bool(model_dir) == bool(encoder):
        raise UserError(f"{_EITHER}, got {'both' if encoder else 'neither'}")

    if encoder and not dataset:
        raise UserError(f"--encoder={encoder}: expected --dataset with it. {_SET}")

    from simclr_tf.embedding.embed import embed_run, embed_saved_model

    embed_source = embed_saved_model if encoder else embed_run
    return embed_source(Path(encoder or model_dir), settings, Path(output) if output else None)


@takes_options(OptionSet.of(ExportOptions))
def export(model_dir: PathLike = "", **options: Any) -> Path:
    """Exports the encoder of a run in a format that other programs load.

    Example:
        >>> import simclr_tf as st
        >>> path = st.export("runs/photos")  # doctest: +SKIP
        >>> import tensorflow as tf
        >>> encoder = tf.saved_model.load(str(path))  # doctest: +SKIP
        >>> features = encoder(images)  # float [N, S, S, 3] in [0, 1]  # doctest: +SKIP

    Args:
        model_dir: Run directory.

    Returns:
        The SavedModel directory or the file.
    """
    settings = make_group(ExportOptions, options)
    if not model_dir:
        raise UserError(
            f"--model_dir is missing: expected the run whose encoder is exported. {_SET}"
        )

    from simclr_tf.exporter.export_run import export_run

    return export_run(Path(model_dir), settings)


@takes_options(OptionSet.of(ReportOptions))
def report(
    model_dir: PathLike = "",
    *,
    runs: str | Sequence[PathLike] = (),
    output: PathLike | None = None,
    **options: Any,
) -> Path:
    """Writes an HTML report of a run, or a comparison of several runs.

    Example:
        >>> import simclr_tf as st
        >>> st.report("runs/photos", map="tsne")  # doctest: +SKIP
        PosixPath('runs/photos/report.html')

    Args:
        model_dir: Run directory.
        runs: Several run directories to compare instead; requires `output`.
        output: File to write. Default: report.html in the run directory.

    Returns:
        The file.
    """
    settings = make_group(ReportOptions, options)
    if isinstance(runs, str):
        runs = split_paths(runs)
    if bool(model_dir) == bool(runs):
        got = "both" if runs else "neither"
        raise UserError(f"expected either --model_dir=RUN or --runs=RUN,RUN, got {got}")

    from simclr_tf.reporting import report_run, report_runs

    if runs:
        if len(runs) < 2 or not output:
            raise UserError(
                f"--runs: expected two or more runs and --output=FILE, got {len(runs)} and "
                f"--output={output or ''}"
            )
        return report_runs([Path(run) for run in runs], Path(output))
    return report_run(Path(model_dir), settings, Path(output) if output else None)


@takes_options(OptionSet.of(ImportOptions))
def import_weights(checkpoint: PathLike = "", model_dir: PathLike = "", **options: Any) -> "Run":
    """Creates a run directory from weights that the reference implementation trained.

    Depth, width, selective kernels and projection head are derived from the shapes of the
    variables. The run can be evaluated, exported, fine-tuned and pretrained from like any other.

    Example:
        >>> import simclr_tf as st
        >>> run = st.import_weights("r50_1x_sk0/saved_model", "runs/r50")  # doctest: +SKIP

    Args:
        checkpoint: SavedModel directory, or a TensorFlow checkpoint (its prefix or directory).
        model_dir: Run directory to create.

    Returns:
        The run, at step 0.
    """
    settings = make_group(ImportOptions, options)
    if not checkpoint:
        raise UserError(f"--checkpoint is missing: expected the weights to import. {_SET}")
    if not model_dir:
        raise UserError(f"--model_dir is missing: expected the run directory to create. {_SET}")

    from simclr_tf.api.run import Run
    from simclr_tf.weights_import import import_run

    import_run(Path(checkpoint), Path(model_dir), settings)
    return Run(model_dir)
