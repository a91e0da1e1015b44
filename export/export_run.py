"""Export of a run's encoder."""

import logging
import re
import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from simclr_tf.augment import eval_transform
from simclr_tf.config import DistillConfig, PretrainConfig, to_json
from simclr_tf.data import decode_errors_name_image, open_source, sequential_batches
from simclr_tf.evaluation.protocols import AffineClassifier, FittedClassifier
from simclr_tf.exporter.keras_tflite import export_keras, export_tflite
from simclr_tf.exporter.model_card import load_snippet, make_model_card, strip_directories
from simclr_tf.exporter.options import ExportOptions
from simclr_tf.exporter.saved_model import check_does_not_exist, export_saved_model
from simclr_tf.models import Classifier, SimCLR
from simclr_tf.runs.load import load_model
from simclr_tf.runs.results_file import format_results, read_evaluations
from simclr_tf.runs.run_dir import RunDir
from simclr_tf.utils.files import check_output_path, remove

logger = logging.getLogger(__name__)


def export_run(model_dir: str | Path, options: ExportOptions | None = None) -> Path:
    """Exports the encoder of a run.

    Args:
        model_dir: the run directory.
        options: checkpoint, format and output. Default: the newest, to RUN/export/STEP.

    Returns:
        The SavedModel directory or file that was written.

    Raises:
        UserError: the run or checkpoint does not exist, or the output exists or cannot be written.
    """
    options = options or ExportOptions()
    run = RunDir(model_dir)
    config, _ = run.read_config()
    is_saved_model = options.format.startswith("saved_model")
    if options.output:
        check_does_not_exist(options.output)
        is_file = not is_saved_model
        check_output_path(options.output, "output", is_file=is_file, has_checkpoints=is_saved_model)
    else:
        check_output_path(run.export_dir, "model_dir")
    model = load_model(model_dir, options.step)
    step = int(model.step)
    size = options.image_size or config.augmentation.evaluation_size
    head_arguments, card_arguments = _head_arguments(model, run, step, is_saved_model)
    card = _make_model_card(run, model, options, step, size, card_arguments)
    output = Path(options.output or run.export_dir / options.file_name(step))
    overwrite = not options.output
    if options.format == "keras":
        export_keras(model.encoder, output, model_card=card, overwrite=overwrite)
    elif options.format.startswith("tflite"):
        quantization = options.format.partition("_")[2] or "float32"
        is_int8 = quantization == "int8"
        export_tflite(
            model.encoder,
            output,
            image_size=size,
            model_card=card,
            quantization=quantization,
            calibration=_calibration_images(config, options, size) if is_int8 else None,
            overwrite=overwrite,
        )
    else:
        export_saved_model(
            model.encoder,
            output,
            image_size=size,
            model_card=card,
            float16=options.format.endswith("float16"),
            storage_size=_storage_size(config, size) if options.with_preprocessing else None,
            overwrite=overwrite,
            **head_arguments,
        )
    if not options.output:
        prune_old_exports(run.export_dir, step, config.checkpoints.keep_hub_module_max)
    features = f"float [N, {size}, {size}, 3] in [0, 1] → [N, {model.encoder.output_shape[-1]}]"
    code = load_snippet(
        options.format,
        str(output),
        model.encoder,
        comment=f"  # {features}",
        has_classifier="classifier" in card_arguments,
        accepts_image_bytes=options.with_preprocessing,
    )
    logger.info(f"exported to {output}; to use it:\n\n{textwrap.indent(code, '  ')}\n")
    return output


def prune_old_exports(export_dir: Path, step: int, max_to_keep: int) -> None:
    """Removes the exports (STEP, STEP.tflite, STEP-float16 etc.) of old steps.

    `step` itself stays, even if other steps are newer. `max_to_keep` of 0 or less keeps all.
    """
    exported: dict[int, list[Path]] = {}
    for path in export_dir.iterdir():
        if match := re.match(r"(\d+)(?![^-.])", path.name):
            exported.setdefault(int(match[1]), []).append(path)
    others = sorted(set(exported) - {step})
    for outdated in others[: max(0, len(exported) - max_to_keep)] if max_to_keep > 0 else []:
        for path in exported[outdated]:
            remove(path)


def _storage_size(config: PretrainConfig, image_size: int) -> int:
    """Returns the side at which evaluation stores images that the encoder takes at `image_size`."""
    if image_size == config.augmentation.evaluation_size:
        return config.data.storage_size
    return round(1.5 * image_size)


def _calibration_images(config: PretrainConfig, options: ExportOptions, size: int) -> np.ndarray:
    """Returns evenly spaced training images, float32 [M, S, S, 3], as evaluation crops them."""
    data = config.data
    source = open_source(
        data.dataset,
        data.train_split,
        **data.reading
        | {
            "data_dir": options.data_dir or data.data_dir,
            "storage_size": _storage_size(config, size),
        },
    )
    count = min(options.calibration_images, source.num_examples)
    indices = np.linspace(0, source.num_examples - 1, count).astype(np.int64)
    chosen = source.subset(indices)
    with decode_errors_name_image(chosen):
        return np.concatenate(
            [
                eval_transform(batch["image"], size, batch.get("aspect")).numpy()
                for batch in sequential_batches(chosen, 64)
            ]
        )


def _make_model_card(
    run: RunDir,
    model: SimCLR | Classifier,
    options: ExportOptions,
    step: int,
    size: int,
    head_arguments: dict[str, Any],
) -> str:
    config, plan = run.read_config()
    evaluations = [
        {**record, "dataset": strip_directories(record["dataset"])}
        for record in read_evaluations(run.evaluations_file)
        if record["step"] == step
    ]
    return make_model_card(
        model.encoder,
        architecture=config.encoder.describe(),
        dataset=(
            "the dataset that the authors of the imported weights state"
            if plan.is_imported
            else f"{strip_directories(config.data.dataset)}, split {config.data.train_split}"
        ),
        step=step,
        image_size=size,
        settings=to_json(config),
        evaluations=format_results(evaluations, markdown=True) if evaluations else "",
        format=options.format,
        accepts_image_bytes=options.with_preprocessing,
        ema_decay=config.optimization.ema_decay,
        **head_arguments,
    )


def _head_arguments(
    model: SimCLR | Classifier, run: RunDir, step: int, has_signatures: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the arguments of `export_saved_model` and `make_model_card` about the heads."""
    arguments: dict[str, Any]
    card: dict[str, Any] = {}
    if isinstance(model, Classifier):
        config, plan = run.read_config()
        is_distilled = isinstance(config, DistillConfig)
        kernel, bias = (v.numpy() for v in model.head.variables)
        classifier, names = AffineClassifier(kernel, bias), plan.class_names
        arguments = {"classifier_input": model.projection}
        card = {
            "num_labels": plan.num_labels if is_distilled else plan.num_examples,
            "training_verb": "distilled" if is_distilled else "trained",
        }
        description = "trained together with the encoder"
    else:
        arguments = {"projection_head": model.projection_head}
        if not run.classifier_file.exists():
            return arguments, card
        fitted = FittedClassifier.load(run.classifier_file)
        if fitted.step != step:
            logger.warning(
                f"note: the classifier in {run.classifier_file} was fitted at step {fitted.step} "
                f"and is not part of the export of step {step}. "
                "Fix: run evaluate --save_classifier again"
            )
            return arguments, card
        classifier, names = fitted.classifier, fitted.class_names
        description = f"{fitted.protocol} on {strip_directories(fitted.dataset)}"
    if has_signatures:
        card |= {"classifier": description, "class_names": names}
    return arguments | {"classifier": classifier, "class_names": names}, card
