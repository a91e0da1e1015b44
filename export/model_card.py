"""The model card that stands beside an exported encoder."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tf_keras as keras

_CLASSES_SHOWN = 20

# Settings that say where a run was made and nothing about the model.
_LOCAL = frozenset(
    {"checkpoint", "data_dir", "gcp_project", "master", "model_dir", "preset", "teacher"}
    | {"tpu_name", "tpu_zone"}
)
# What comes before a place in a setting that names one.
_KINDS = ("folder", "keras_cv")


def model_card(
    encoder: keras.Model,
    *,
    architecture: str,
    dataset: str,
    step: int,
    image_size: int,
    settings: Mapping[str, Any],
    evaluations: str = "",
    labels: int = 0,
    trained: str = "pretrained",
    classifier: str = "",
    class_names: Sequence[str] = (),
    form: str = "saved_model",
    encoded: bool = False,
) -> str:
    """Return a Markdown card: what the encoder is, how to load it, how good it is, how it was made.

    Args:
        encoder: the exported model; its size and output are read off it.
        architecture: in words, such as "ResNet-18 × 0.25, CIFAR stem".
        dataset: what it was trained on, such as "cifar10, split train".
        step: training steps done.
        image_size: S, the side of the images in pixels.
        settings: the run's resolved configuration, nested or flat; places such as `data_dir` and
            values of None are left out.
        evaluations: Markdown, such as `format_table(records, markdown=True)`; may be empty.
        labels: how many labels it was trained with; 0: none.
        trained: how that is called: "pretrained", "trained" or "distilled".
        classifier: how the exported classifier was fitted; empty where there is none.
        class_names: of its logits.
        form: of the export, one of FORMS.
        encoded: whether it has the signature that takes encoded images.
    """
    dims = encoder.output_shape[-1]
    parameters = sum(int(v.shape.num_elements()) for v in encoder.trainable_variables)
    size = f"{image_size}, {image_size}, 3"
    with_labels = f"with {labels:,} labels" if labels else "without labels"
    rows = [
        f"| `{name}` | `{placeless(value)}` |"
        for name, value in _flat(settings).items()
        if value is not None
    ]
    return f"""# SimCLR encoder: {architecture}

| | |
| --- | --- |
| architecture | {architecture}; {parameters:,} trainable parameters |
| {trained} on | {placeless(dataset)}, {with_labels}, {step:,} steps |
| input | `images`: float32 `[N, {size}]`, RGB in [0, 1], any N |
| output | `features`: float32 `[N, {dims}]` |
| licence | code: Apache-2.0; weights: as its trainer says, within the terms of the data |

Divide uint8 images by 255 and subtract no mean. Of images larger than 32 pixels take a central
square of 87.5 % of the shorter side; resize bicubically to {image_size} × {image_size}.

## Use

```python
{loading(form, "PATH", encoder)}
```
{FORMS[form]}{_ENCODED if encoded else ""}{_classify(classifier, class_names)}
## Evaluations

{evaluations or "None yet."}

## Settings

| setting | value |
| --- | --- |
{chr(10).join(rows)}
"""


_SAVED_MODEL = """
To fine-tune, in tf_keras: `hub.KerasLayer("PATH", trainable=True)`. In Keras 3, frozen:
`keras.layers.TFSMLayer("PATH", call_endpoint="serving_default")`. TensorFlow Serving takes the
signature `serving_default`; `all_outputs` also gives the outputs of the block groups and of the
projection head. `encoder(images, training=True)` updates the batch-norm statistics.
"""

# The forms of an export, and what a card says of each beside how it is loaded.
FORMS = {
    "saved_model": _SAVED_MODEL,
    "saved_model_float16": f"""{_SAVED_MODEL}
The kernels are kept in float16 and computed with in float32: to be used, not to be trained.
""",
    "keras": "\nKeras 3 does not read files of tf_keras: there, take a SavedModel.\n",
    "tflite": "",
    "tflite_float16": "\nThe weights are kept in float16.\n",
    "tflite_int8": "\nWeights and activations are of 8 bits, input and output float32.\n",
}


def loading(form: str, place: str, encoder: keras.Model) -> str:
    """Return the lines of Python that load an export of a form and give `features`."""
    if form == "keras":
        of_keras_cv = any(type(x).__module__.startswith("keras_cv") for x in encoder.layers)
        lines = [
            "import keras_cv, tf_keras" if of_keras_cv else "import tf_keras",
            f'encoder = tf_keras.models.load_model("{place}")',
            "features = encoder(images, training=False)",
        ]
    elif form.startswith("tflite"):
        lines = [
            "import tensorflow as tf",
            f'encoder = tf.lite.Interpreter("{place}").get_signature_runner()',
            'features = encoder(images=images)["features"]',
        ]
    else:
        lines = [
            "import tensorflow as tf",
            f'encoder = tf.saved_model.load("{place}")',
            "features = encoder(images)",
        ]
    return "\n".join(lines)


_ENCODED = """
The signature `serving_encoded` takes `image_bytes`, strings `[N]` that hold JPEG or PNG files; it
decodes, crops and resizes them as said above, and gives `features`.
"""


def with_checksum(card: str, directory: Path, weights: str) -> str:
    """Return a card with the SHA-256 of the file of weights, as `sha256sum` prints it."""
    with (directory / weights).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{card}\n## Checksum\n\n`{digest}  {weights}` (SHA-256)\n"


def _classify(classifier: str, class_names: Sequence[str]) -> str:
    if not classifier:
        return ""
    shown = ", ".join(f"`{name}`" for name in class_names[:_CLASSES_SHOWN])
    more = len(class_names) - _CLASSES_SHOWN
    return f"""
## Classifier

The signature `classify` gives `logits`, `probabilities`, `label` and `class_name` of
{len(class_names)} classes: {shown}{f" and {more} more" if more > 0 else ""}.
Its head: {classifier}.
"""


def placeless(value: Any) -> Any:
    """`folder:SOME/WHERE/photos` → `folder:photos`: the name tells something, the place nothing."""
    kind, colon, place = value.partition(":") if isinstance(value, str) else ("", "", "")
    return f"{kind}:{place.rstrip('/').rpartition('/')[2]}" if colon and kind in _KINDS else value


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if name in _LOCAL:
            continue
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
