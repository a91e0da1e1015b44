"""Export of a run's newest checkpoint."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from simclr_tf.export.exporter import export_saved_model, export_step
from simclr_tf.export.model_card import model_card, placeless

from simclr_tf.config import to_json
from simclr_tf.evaluation.classifier import FittedClassifier
from simclr_tf.evaluation.protocols import AffineClassifier
from simclr_tf.evaluation.results import format_table, read_evaluations
from simclr_tf.models import Classifier, SimCLR
from simclr_tf.run import Run, load


@dataclasses.dataclass(frozen=True)
class _Head:
    """What is exported on top of an encoder, and what the model card says of it."""

    settings: dict[str, Any]
    words: str = ""
    labels: int = 0  # that the encoder itself was trained with


def export_run(
    model_dir: str | Path, output: str | Path | None = None, say: Callable = print
) -> Path:
    """Writes the encoder of a run to `output`, or to RUN/export/STEP; returns where it is.

    Raises:
        UserError: if there is no run or no checkpoint, or `output` exists.
    """
    run = Run(Path(model_dir))
    config, plan = run.read()
    model = load(model_dir)
    step, size, encoder = int(model.step), config.views.image_size, config.encoder
    evaluations = [
        {**record, "dataset": placeless(record["dataset"])}
        for record in read_evaluations(run.evaluations_file)
        if record["step"] == step
    ]
    head = _head(model, run, step)
    settings = {
        "image_size": size,
        **head.settings,
        "model_card": model_card(
            model.encoder,
            architecture=f"ResNet-{encoder.resnet_depth} × {encoder.width_multiplier:g}, "
            f"{encoder.stem} stem",
            dataset=(
                "what the authors of the imported weights say"
                if plan.is_imported
                else f"{placeless(config.data.dataset)}, split {config.data.train_split}"
            ),
            step=step,
            image_size=size,
            settings=to_json(config),
            evaluations=format_table(evaluations, markdown=True) if evaluations else "",
            labels=head.labels,
            classifier=head.words,
            class_names=head.settings.get("class_names", ()),
        ),
    }
    if output:
        path = export_saved_model(model.encoder, output, **settings)
    else:
        keep = config.checkpoints.keep_hub_module_max
        path = export_step(model.encoder, run.export_dir, step, keep=keep, **settings)
    say(
        f"exported to {path}; to use it:\n\n"
        f"  import tensorflow as tf\n"
        f'  encoder = tf.saved_model.load("{path}")\n'
        f"  features = encoder(images)  # float [N, {size}, {size}, 3] in [0, 1] → "
        f"[N, {model.encoder.output_shape[-1]}]\n"
    )
    return path


def _head(model: SimCLR | Classifier, run: Run, step: int) -> _Head:
    if isinstance(model, Classifier):
        _, plan = run.read()
        kernel, bias = (v.numpy() for v in model.head.variables)
        return _Head(
            {
                "classifier": AffineClassifier(kernel, bias),
                "classifier_input": model.projection,
                "class_names": plan.class_names,
            },
            "trained together with the encoder",
            labels=plan.num_examples,
        )
    settings: dict[str, Any] = {"projection_head": model.projection_head}
    if not run.classifier_file.exists():
        return _Head(settings)
    fitted = FittedClassifier.load(run.classifier_file)
    if fitted.step != step:
        return _Head(settings)
    settings |= {"classifier": fitted.classifier, "class_names": fitted.class_names}
    return _Head(settings, f"{fitted.protocol} on {placeless(fitted.dataset)}")
