"""Model card of an exported encoder."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tf_keras as keras

_MAX_CLASSES = 20

# Settings that describe the machine and not the model.
_LOCAL_SETTINGS = {
    *("checkpoint", "data_dir", "gcp_project", "master", "model_dir", "preset", "teacher"),
    *("tpu_name", "tpu_zone"),
}
# Prefixes of settings that contain a path.
_PATH_PREFIXES = ("folder", "keras_cv")


def make_model_card(
    encoder: keras.Model,
    *,
    architecture: str,
    dataset: str,
    step: int,
    image_size: int,
    settings: Mapping[str, Any],
    evaluations: str = "",
    num_labels: int = 0,
    training_verb: str = "pretrained",
    classifier: str = "",
    class_names: Sequence[str] = (),
    format: str = "saved_model",
    accepts_image_bytes: bool = False,
    ema_decay: float = 0.0,
) -> str:
    """Returns a Markdown card: architecture, usage, evaluations and training settings.

    >>> from simclr_tf.exporter import make_model_card
    >>> from simclr_tf.models import ResNet
    >>> card = make_model_card(
    ...     ResNet(18, width_multiplier=1 / 16, stem="cifar"), architecture="ResNet-18 × 1/16",
    ...     dataset="cifar10, split train", step=1000, image_size=32, settings={"temperature": 0.1})
    >>> card.splitlines()[0]
    '# SimCLR encoder: ResNet-18 × 1/16'

    Args:
        encoder: the exported model.
        architecture: its description.
        dataset: description of the training data.
        step: number of training steps.
        image_size: S, the side of the images in pixels.
        settings: the run's configuration, nested or flat; paths and values of None are omitted.
        evaluations: Markdown, such as `format_results(records, markdown=True)`.
        num_labels: number of labels used in training.
        training_verb: "pretrained", "trained" or "distilled".
        classifier: description of the exported classifier; empty without one.
        class_names: of the classifier's logits.
        format: value of `--format`.
        accepts_image_bytes: the export has the signature `serving_encoded`.
        ema_decay: decay per step of the moving average that the weights are; 0: no average.

    Returns:
        The card, without a checksum.
    """
    dims = encoder.output_shape[-1]
    parameters = sum(int(v.shape.num_elements()) for v in encoder.trainable_variables)
    size = f"{image_size}, {image_size}, 3"
    labels = f"with {num_labels:,} labels" if num_labels else "without labels"
    code = load_snippet(
        format,
        "PATH",
        encoder,
        has_classifier=bool(classifier),
        accepts_image_bytes=accepts_image_bytes,
    )
    weights = (
        f"| weights | exponential moving average of the training (decay {ema_decay:g}) |\n"
        if ema_decay
        else ""
    )
    rows = [
        f"| `{name}` | `{strip_directories(value)}` |"
        for name, value in _flatten(settings).items()
        if value is not None
    ]
    return f"""# SimCLR encoder: {architecture}

| | |
| --- | --- |
| architecture | {architecture}; {parameters:,} trainable parameters |
| {training_verb} on | {strip_directories(dataset)}, {labels}, {step:,} steps |
{weights}| input | `images`: float32 `[N, {size}]`, RGB in [0, 1], any N |
| output | `features`: float32 `[N, {dims}]` |
| license | code: Apache-2.0; weights: set by whoever trained them, within the terms of the data |

Divide uint8 images by 255 and subtract no mean. Crop images larger than 32 pixels to a central
square of 87.5 % of the shorter side; resize bicubically to {image_size} × {image_size}.

## Use

```python
{code}
```
{_FORMAT_NOTES[format]}{_ENCODED if accepts_image_bytes else ""}{_classify(classifier, class_names)}
## Evaluations

{evaluations or "None yet."}

## Settings

| setting | value |
| --- | --- |
{chr(10).join(rows)}
"""


_SAVED_MODEL = """
To fine-tune, in tf_keras: `hub.KerasLayer("PATH", trainable=True)`. In Keras 3, frozen:
`keras.layers.TFSMLayer("PATH", call_endpoint="serving_default")`. TensorFlow Serving uses the
signature `serving_default`; `all_outputs` also returns the outputs of the block groups and of the
projection head. `encoder(images, training=True)` updates the batch-norm statistics.
"""

_FORMAT_NOTES = {
    "saved_model": _SAVED_MODEL,
    "saved_model_float16": f"""{_SAVED_MODEL}
The kernels are stored in float16 and computed in float32: for inference, not for training.
""",
    "keras": "\nKeras 3 cannot read files of tf_keras: use a SavedModel there.\n",
    "tflite": "",
    "tflite_float16": "\nThe weights are stored in float16.\n",
    "tflite_int8": "\nWeights and activations have 8 bits, input and output are float32.\n",
}


def load_snippet(
    format: str,
    path: str,
    encoder: keras.Model,
    *,
    comment: str = "",
    has_classifier: bool = False,
    accepts_image_bytes: bool = False,
) -> str:
    """Returns the lines of Python that load an export and call what it has.

    `comment` is that of the line that computes `features`.
    """
    name = json.dumps(path, ensure_ascii=not path.isprintable())
    if format == "keras":
        uses_keras_cv = any(type(x).__module__.startswith("keras_cv") for x in encoder.layers)
        return f"""import {"keras_cv, " if uses_keras_cv else ""}tf_keras
encoder = tf_keras.models.load_model({name})
features = encoder(images, training=False){comment}"""
    if format.startswith("tflite"):
        return f"""import tensorflow as tf
encoder = tf.lite.Interpreter({name}).get_signature_runner()
features = encoder(images=images)["features"]{comment}"""
    lines = f"""import tensorflow as tf
encoder = tf.saved_model.load({name})
features = encoder(images){comment}"""
    if has_classifier:
        lines += """
classes = encoder.signatures["classify"](images=tf.constant(images))["class_name"]"""
    if accepts_image_bytes:
        lines += """
files = tf.constant([open("photo.jpg", "rb").read()])
outputs = encoder.signatures["serving_encoded"](image_bytes=files)
features = outputs["features"]"""
        if has_classifier:
            lines += """
classes = outputs["class_name"]"""
    return lines


_ENCODED = """
The signature `serving_encoded` takes `image_bytes`, strings `[N]` of JPEG or PNG files,
decodes, crops and resizes them as above, and returns `features`.
"""


def add_checksum(card: str, directory: Path, weights: str) -> str:
    """Returns a card with the SHA-256 of the weights file, as `sha256sum` prints it."""
    with (directory / weights).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{card}\n## Checksum\n\n`{digest}  {weights}` (SHA-256)\n"


def _classify(classifier: str, class_names: Sequence[str]) -> str:
    if not classifier:
        return ""
    shown = ", ".join(f"`{name}`" for name in class_names[:_MAX_CLASSES])
    more = len(class_names) - _MAX_CLASSES
    return f"""
## Classifier

The signature `classify` returns `logits`, `probabilities`, `label` and `class_name` of
{len(class_names)} classes: {shown}{f" and {more} more" if more > 0 else ""}.
Its head: {classifier}.
"""


def strip_directories(value: Any) -> Any:
    """Returns a setting without directories: `folder:SOME/PATH/photos` → `folder:photos`."""
    prefix, _, path = value.partition(":") if isinstance(value, str) else ("", "", "")
    if not path or prefix not in _PATH_PREFIXES:
        return value
    return f"{prefix}:{path.rstrip('/').rpartition('/')[2]}"


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if name in _LOCAL_SETTINGS:
            continue
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
