"""The report of one run."""

import dataclasses
import functools
from pathlib import Path

from simclr_tf.augment import to_uint8
from simclr_tf.data import ImageSource, open_source
from simclr_tf.errors import UserError
from simclr_tf.evaluation.load_encoder import encoder_from_model
from simclr_tf.evaluation.splits import Splits
from simclr_tf.models import Classifier, SimCLR
from simclr_tf.models.build import build_model
from simclr_tf.reporting.class_report import class_report_from_evaluations, class_report_from_knn
from simclr_tf.reporting.embedded_split import EmbeddedSplit, data_uri, embed_split
from simclr_tf.reporting.embedding_map import (
    make_embedding_map,
)
from simclr_tf.reporting.headline import headline
from simclr_tf.reporting.html import write_page
from simclr_tf.reporting.nearest_neighbors import find_nearest_neighbors
from simclr_tf.reporting.options import ReportOptions
from simclr_tf.reporting.plots import plot_run_curves
from simclr_tf.reporting.run_info import (
    RunInfo,
    load_run_info,
    reproduce_command,
    settings,
    summary_rows,
)
from simclr_tf.reporting.view_pairs import find_duplicates, score_positive_pairs
from simclr_tf.runs.load import load_model
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.training.online_eval import make_view_grid
from simclr_tf.utils.files import check_output_path, format_bytes

_say = functools.partial(print, flush=True)


def _resolve_splits(options: ReportOptions, run_splits: Splits) -> Splits:
    """Returns the run's data with that of `options` in its place."""
    same = options.dataset in ("", run_splits.dataset)
    return dataclasses.replace(
        run_splits,
        dataset=options.dataset or run_splits.dataset,
        train_split=options.train_split or (run_splits.train_split if same else "train"),
        test_split=options.eval_split or (run_splits.test_split if same else "test"),
        data_dir=options.data_dir or run_splits.data_dir,
        skip_unreadable=options.skip_unreadable or run_splits.skip_unreadable,
    )


def report_run(model_dir: str | Path, request: ReportOptions, output: str | Path | None) -> Path:
    """Writes the report of a run's newest checkpoint; returns the file.

    What cannot be had, such as the images or a checkpoint, is left out, and the report says so.
    Features are kept in the run's `features`, where `simclr-tf evaluate` finds them too.

    Args:
        model_dir: the run directory.
        request: what it looks at.
        output: None: RUN/report.html.

    Raises:
        UserError: this is no run, one of its files is damaged, or the report cannot be written.
    """
    run = RunDir(Path(model_dir))
    path = Path(output or run.report_file)
    if output:
        check_output_path(output, "output", is_file=True)
    info = load_run_info(run)
    if not output:
        check_output_path(run.path, "model_dir")
    notes = list(info.notes)
    splits = _resolve_splits(request, Splits.from_config(info.config.data))
    train = _open(splits, splits.train_split, notes)
    test = None
    if train is not None and splits.test_split != splits.train_split:
        test = _open(splits, splits.test_split, notes)
    model = _model(info, notes)

    content: dict[str, object] = {"views": None, "map": None, "nearby": None, "positives": None}
    own = [record for record in info.records if record["dataset"] == splits.dataset]
    classes = None if info.step is None else class_report_from_evaluations(run.path, own, info.step)
    content |= {"duplicates": None, "classes": classes}
    if train is not None:
        try:
            _say(f"views of {train.name}")
            content["views"] = _views(info, train, model)
            if model is not None:
                _look(content, info, request, splits, (train, test), model)
        except UserError as error:
            notes.append(f"What follows from the images is not complete: {error}")

    size = write_page(
        path,
        "run.html",
        name=run.path.resolve().name,
        info=info,
        notes=notes,
        headline=headline(info),
        curves=plot_run_curves(info.rows),
        summary_rows=summary_rows(info),
        settings=settings(info.config),
        command=reproduce_command(info, run.path),
        remedy="lower --map_images",
        **content,
    )
    _say(f"report: {path} ({format_bytes(size)})")
    return path


def _open(splits: Splits, split: str, notes: list[str]) -> ImageSource | None:
    try:
        return open_source(
            splits.dataset,
            split,
            data_dir=splits.data_dir or None,
            storage_size=splits.storage_size,
            skip_unreadable=splits.skip_unreadable,
        )
    except UserError as error:
        notes.append(f"The images of {split!r} are not looked at: {error}")
        return None


def _model(info: RunInfo, notes: list[str]) -> SimCLR | Classifier | None:
    if info.step is None:
        return None
    try:
        return load_model(info.run.path, info.step)
    except UserError as error:
        notes.append(f"The newest checkpoint is not looked at: {error}")
        return None


def _views(
    info: RunInfo, source: ImageSource, model: SimCLR | Classifier | None
) -> dict[str, object]:
    """The picture of views; they need no weights."""
    model = model or build_model(info.config, info.plan)
    picture = make_view_grid(source, info.config.optimization.seed)(model)
    return {
        "uri": data_uri(to_uint8(picture)),
        "width": picture.shape[1],
        "height": picture.shape[0],
        "each": model.views_per_image,
        "source": source.name,
    }


def _look(
    content: dict[str, object],
    info: RunInfo,
    request: ReportOptions,
    splits: Splits,
    sources: tuple[ImageSource, ImageSource | None],
    model: SimCLR | Classifier,
) -> None:
    """Adds to the content, one by one, what the encoder makes of the images."""
    encoder = encoder_from_model(model, info.config)
    size = encoder.image_size

    def looked(source: ImageSource, split: str) -> EmbeddedSplit:
        _say(f"features of up to {request.images:,} images of {source.name}")
        return embed_split(encoder, source, split, request.images, info.run.features_dir, _say)

    bank = looked(sources[0], splits.train_split)
    judged = None if sources[1] is None else looked(sources[1], splits.test_split)
    shown = judged or bank
    _say(f"map of {min(request.map_images, len(shown)):,} images ({request.map})")
    content["map"] = make_embedding_map(shown, request.map, request.map_images)
    _say("nearest neighbours, by features and by pixels")
    content["nearby"] = {
        "queries": find_nearest_neighbors(bank, judged, size, _say),
        "bank": str(bank),
        "asked": shown.split,
        "size": size,
    }
    _say("positive pairs and near-duplicates")
    content["positives"] = score_positive_pairs(model, bank, request.map_images)
    content["duplicates"] = find_duplicates([bank, *([judged] if judged else [])], size)
    content["classes"] = content["classes"] or class_report_from_knn(bank, judged)
