"""Export of a run's checkpoints."""

import dataclasses
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from simclr_tf.augment import eval_transform
from simclr_tf.config import DistillConfig, PretrainConfig, to_json
from simclr_tf.data import decode_errors_name_image, open_source, sequential_batches
from simclr_tf.errors import UserError
from simclr_tf.evaluation.protocols import AffineClassifier, FittedClassifier
from simclr_tf.exporter.keras_tflite import export_keras, export_tflite
from simclr_tf.exporter.model_card import FORMS, loading, model_card, placeless
from simclr_tf.exporter.output_path import check_free, remove_older
from simclr_tf.exporter.saved_model import export_saved_model
from simclr_tf.models import Classifier, SimCLR
from simclr_tf.runs.load import load_model
from simclr_tf.runs.results_file import format_results, read_evaluations
from simclr_tf.runs.run_dir import RunDir

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class _Head:
    """What is exported on top of an encoder, and what the model card says of it."""

    settings: dict[str, Any]
    words: str = ""
    labels: int = 0  # that the encoder itself was trained with
    trained: str = "pretrained"  # how it was


@dataclasses.dataclass(frozen=True)
class Export:
    """How a run's encoder is exported.

    Attributes:
        output: the SavedModel or file to make; None: RUN/export/STEP, with an ending for its form.
        form: one of FORMS.
        step: of the checkpoint; None: the newest.
        image_size: S, in pixels; None: that of the run.
        with_preprocessing: whether a SavedModel takes encoded images too.
        calibration_images: for int8, how many of the run's training images are looked at.
        data_dir: where TFDS keeps them; "": the run's.
    """

    output: str | None = None
    form: str = "saved_model"
    step: int | None = None
    image_size: int | None = None
    with_preprocessing: bool = False
    calibration_images: int = 256
    data_dir: str = ""

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise UserError(f"--format={self.form}: must be one of {', '.join(FORMS)}")
        if self.with_preprocessing and not self.form.startswith("saved_model"):
            raise UserError(
                f"--with_preprocessing: a {self.form} takes no encoded images; take "
                "--format=saved_model, or leave it out"
            )

    def name(self, step: int) -> str:
        """Returns what it is called in RUN/export."""
        kind, _, precision = self.form.removeprefix("saved_").partition("_")
        ending = "" if kind == "model" else f".{kind}"
        return f"{step}{f'-{precision}' if precision else ''}{ending}"


def export_run(model_dir: str | Path, export: Export = Export(), say: Say = print) -> Path:
    """Writes the encoder of a run; returns where it is.

    Raises:
        UserError: if there is no run or no such checkpoint, or the output exists.
    """
    run = RunDir(Path(model_dir))
    config, _ = run.read_config()
    if export.output:
        check_free(export.output)
    model = load_model(model_dir, export.step)
    step, form = int(model.step), export.form
    size = export.image_size or config.augmentation.image_size
    head = _head(model, run, step, say)
    card = _card(run, model, head, export, step, size)
    place = Path(export.output) if export.output else run.export_dir / export.name(step)
    overwrite = not export.output
    if form == "keras":
        export_keras(model.encoder, place, model_card=card, overwrite=overwrite)
    elif form.startswith("tflite"):
        quantization = form.partition("_")[2] or "float32"
        export_tflite(
            model.encoder,
            place,
            image_size=size,
            model_card=card,
            quantization=quantization,
            calibration=_calibration(config, export, size) if quantization == "int8" else None,
            overwrite=overwrite,
        )
    else:
        export_saved_model(
            model.encoder,
            place,
            image_size=size,
            model_card=card,
            float16=form.endswith("float16"),
            storage_size=_storage_size(config, size) if export.with_preprocessing else None,
            overwrite=overwrite,
            **head.settings,
        )
    if not export.output:
        remove_older(run.export_dir, step, config.checkpoints.keep_hub_module_max)
    code = textwrap.indent(loading(form, str(place), model.encoder), "  ")
    width = model.encoder.output_shape[-1]
    say(
        f"exported to {place}; to use it:\n\n"
        f"{code}  # float [N, {size}, {size}, 3] in [0, 1] → [N, {width}]\n"
    )
    return place


def _storage_size(config: PretrainConfig, image_size: int) -> int:
    """As evaluation would store images of that size."""
    own = config.data.storage_size
    return own if image_size == config.augmentation.image_size else round(1.5 * image_size)


def _calibration(config: PretrainConfig, export: Export, size: int) -> np.ndarray:
    """Evenly spaced images of the training split, as the encoder sees them in evaluation."""
    data = config.data
    source = open_source(
        data.dataset,
        data.train_split,
        data_dir=export.data_dir or data.data_dir or None,
        storage_size=_storage_size(config, size),
        skip_unreadable=data.skip_unreadable,
    )
    count = min(export.calibration_images, source.num_examples)
    rows = np.linspace(0, source.num_examples - 1, count).astype(np.int64)
    chosen = source.subset(rows)
    with decode_errors_name_image(chosen):
        return np.concatenate(
            [
                eval_transform(batch["image"], size, batch.get("aspect")).numpy()
                for batch in sequential_batches(chosen, 64)
            ]
        )


def _card(
    run: RunDir, model: SimCLR | Classifier, head: _Head, export: Export, step: int, size: int
) -> str:
    config, plan = run.read_config()
    evaluations = [
        {**record, "dataset": placeless(record["dataset"])}
        for record in read_evaluations(run.evaluations_file)
        if record["step"] == step
    ]
    return model_card(
        model.encoder,
        architecture=config.encoder.describe(),
        dataset=(
            "what the authors of the imported weights say"
            if plan.is_imported
            else f"{placeless(config.data.dataset)}, split {config.data.train_split}"
        ),
        step=step,
        image_size=size,
        settings=to_json(config),
        evaluations=format_results(evaluations, markdown=True) if evaluations else "",
        labels=head.labels,
        trained=head.trained,
        classifier=head.words if export.form.startswith("saved_model") else "",
        class_names=head.settings.get("class_names", ()),
        form=export.form,
        encoded=export.with_preprocessing,
    )


def _head(model: SimCLR | Classifier, run: RunDir, step: int, say: Say) -> _Head:
    if isinstance(model, Classifier):
        config, plan = run.read_config()
        distilled = isinstance(config, DistillConfig)
        kernel, bias = (v.numpy() for v in model.head.variables)
        return _Head(
            {
                "classifier": AffineClassifier(kernel, bias),
                "classifier_input": model.projection,
                "class_names": plan.class_names,
            },
            "trained together with the encoder",
            labels=plan.num_labels if distilled else plan.num_examples,
            trained="distilled" if distilled else "trained",
        )
    settings: dict[str, Any] = {"projection_head": model.projection_head}
    if not run.classifier_file.exists():
        return _Head(settings)
    fitted = FittedClassifier.load(run.classifier_file)
    if fitted.step != step:
        say(
            f"note: the classifier in {run.classifier_file} is of step {fitted.step} and stays out "
            f"of the export of step {step}; evaluate --save_classifier fits another"
        )
        return _Head(settings)
    settings |= {"classifier": fitted.classifier, "class_names": fitted.class_names}
    return _Head(settings, f"{fitted.protocol} on {placeless(fitted.dataset)}")
