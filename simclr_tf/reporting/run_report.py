"""HTML report of one run."""

import logging
from pathlib import Path
from typing import Any

from simclr_tf.augment import to_uint8
from simclr_tf.data import ImageSource
from simclr_tf.data.folder import log_shared_images
from simclr_tf.errors import UserError
from simclr_tf.evaluation.load_encoder import encoder_from_model
from simclr_tf.evaluation.splits import Splits
from simclr_tf.models import Classifier, SimCLR
from simclr_tf.models.build import build_model
from simclr_tf.reporting.duplicates import find_duplicates
from simclr_tf.reporting.embedded_split import EmbeddedSplit, embed_split, jpeg_data_uri
from simclr_tf.reporting.html import write_page
from simclr_tf.reporting.image_sections import find_nearest_neighbors, score_positive_pairs
from simclr_tf.reporting.options import ReportOptions
from simclr_tf.reporting.plots import make_embedding_map, plot_run_curves
from simclr_tf.reporting.result_sections import (
    class_report_from_evaluations,
    class_report_from_knn,
    headline,
)
from simclr_tf.reporting.run_info import RunInfo, load_run_info, settings_tables, summary_rows
from simclr_tf.runs.load import load_model
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.online_eval import make_view_grid
from simclr_tf.utils.files import check_output_path, format_bytes
from simclr_tf.utils.paths import user_path

logger = logging.getLogger(__name__)


def report_run(
    model_dir: str | Path, options: ReportOptions | None = None, output: str | Path | None = None
) -> Path:
    """Writes the report of a run's newest checkpoint as one HTML file.

    Unavailable parts, such as images or a checkpoint, are omitted, and the report says so.
    Features are cached in the run directory, where `simclr-tf evaluate` finds them, too.

    Args:
        model_dir: the run directory.
        options: defaults to `ReportOptions()`.
        output: the file to write; None: RUN/report.html.

    Returns:
        The file.

    Raises:
        UserError: the directory is not a run, one of its files is damaged, or the report cannot be
            written.

    Example:
    >>> from simclr_tf.reporting import report_run
    >>> path = report_run("runs/first", output="report.html")  # doctest: +SKIP
    """
    options = options or ReportOptions()
    run = RunDir(model_dir)
    path = user_path(output or run.report_file)
    if output:
        check_output_path(path, "output", is_file=True)
    info = load_run_info(run)
    if not output:
        check_output_path(run.path, "model_dir")
    notes = list(info.notes)
    splits = Splits.from_config(info.config.data).with_data(
        options, train_split=options.train_split, test_split=options.eval_split
    )
    labeled = splits
    if not options.dataset and info.labeled_data.dataset != splits.dataset:
        labeled = Splits.from_config(info.labeled_data).with_data(options)
    train = _open(splits, splits.train_split, notes)
    test = None
    if train is not None and splits.test_split != splits.train_split:
        test = _open(splits, splits.test_split, notes)
        log_shared_images(train, test)
    model = _load_model(info, notes)

    content: dict[str, Any] = dict.fromkeys(
        ("views", "map", "nearby", "positives", "duplicates", "classes")
    )
    if info.step is not None:
        records = [record for record in info.records if record["dataset"] == labeled.dataset]
        content["classes"] = class_report_from_evaluations(run.path, records, info.step)
    if train is not None:
        try:
            logger.info(f"views of {train.name}")
            content["views"] = _views(info, train, model)
            if model is not None:
                _add_embedding_sections(content, info, options, splits, (train, test), model, path)
        except UserError as error:
            notes.append(f"Sections that need the images are incomplete: {error}")
    if model is not None and not content["classes"] and labeled.dataset != splits.dataset:
        content["classes"] = _classes_of_probe_data(info, options, labeled, model, notes)

    size = write_page(
        path,
        "run.html",
        name=run.path.resolve().name,
        info=info,
        notes=notes,
        headline=headline(info),
        curves=plot_run_curves(info.rows, info.probed),
        summary_rows=summary_rows(info),
        settings=settings_tables(info.config),
        size_hint="lower --map_images",
        **content,
    )
    logger.info(f"report: {path} ({format_bytes(size)})")
    return path


def _classes_of_probe_data(
    info: RunInfo,
    options: ReportOptions,
    splits: Splits,
    model: SimCLR | Classifier,
    notes: list[str],
) -> dict[str, Any] | None:
    """Reports classes of the labeled dataset of the probes, for a run without labels."""
    encoder, embedded = encoder_from_model(model, info.config), []
    for split in (splits.train_split, splits.test_split):
        if (source := _open(splits, split, notes)) is None:
            return None
        logger.info(f"features of up to {options.images:,} images of {source.name}")
        try:
            embedded.append(
                embed_split(encoder, source, source.name, options.images, info.run.features_dir)
            )
        except UserError as error:
            notes.append(f"The classes of {source.name} are missing: {error}")
            return None
    return class_report_from_knn(*embedded)


def _open(splits: Splits, split: str, notes: list[str]) -> ImageSource | None:
    try:
        return splits.open_split(split)
    except UserError as error:
        notes.append(f"The images of {split!r} are not available: {error}")
        return None


def _load_model(info: RunInfo, notes: list[str]) -> SimCLR | Classifier | None:
    if info.step is None:
        return None
    try:
        return load_model(info.run.path, info.step)
    except UserError as error:
        notes.append(f"The newest checkpoint cannot be loaded: {error}")
        return None


def _views(info: RunInfo, source: ImageSource, model: SimCLR | Classifier | None) -> dict[str, Any]:
    """Makes the grid of augmented views, which needs no weights."""
    model = model or build_model(info.config, info.plan)
    grid = make_view_grid(source, info.config.optimization.seed)(model)
    return {
        "uri": jpeg_data_uri(to_uint8(grid)),
        "width": grid.shape[1],
        "height": grid.shape[0],
        "each": model.views_per_image,
        "source": source.name,
    }


def _add_embedding_sections(
    content: dict[str, Any],
    info: RunInfo,
    options: ReportOptions,
    splits: Splits,
    sources: tuple[ImageSource, ImageSource | None],
    model: SimCLR | Classifier,
    report_path: Path,
) -> None:
    """Adds the sections that need features to the content, one by one."""
    encoder = encoder_from_model(model, info.config)
    size = encoder.image_size

    def embed(source: ImageSource, split: str) -> EmbeddedSplit:
        logger.info(f"features of up to {options.images:,} images of {source.name}")
        return embed_split(encoder, source, split, options.images, info.run.features_dir)

    bank = embed(sources[0], splits.train_split)
    test = None if sources[1] is None else embed(sources[1], splits.test_split)
    map_split = test or bank
    logger.info(f"map of {min(options.map_images, len(map_split)):,} images ({options.map})")
    content["map"] = make_embedding_map(map_split, options.map, options.map_images)
    logger.info("nearest neighbors by features and by pixels")
    content["nearby"] = {
        "queries": find_nearest_neighbors(bank, test, size),
        "bank": str(bank),
        "query_split": map_split.split,
        "size": size,
    }
    logger.info("positive pairs and near-duplicates")
    content["positives"] = score_positive_pairs(model, bank, options.map_images)
    csv_path = report_path.with_name(f"{report_path.stem}-duplicates.csv")
    content["duplicates"] = find_duplicates([bank, *([test] if test else [])], size, csv_path)
    content["classes"] = content["classes"] or class_report_from_knn(bank, test)
