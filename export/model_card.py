"""The model card that stands beside an exported encoder."""

from collections.abc import Mapping, Sequence
from typing import Any

import tf_keras as keras

_CLASSES_SHOWN = 20

# Settings that say where a run was made and nothing about the model.
_LOCAL = frozenset(
    {"checkpoint", "data_dir", "gcp_project", "master", "model_dir", "tpu_name", "tpu_zone"}
)


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
    classifier: str = "",
    class_names: Sequence[str] = (),
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
        labels: how many labels it was trained with; 0: pretrained without.
        classifier: how the exported classifier was fitted; empty where there is none.
        class_names: of its logits.
    """
    dims = encoder.output_shape[-1]
    parameters = sum(int(v.shape.num_elements()) for v in encoder.trainable_variables)
    size = f"{image_size}, {image_size}, 3"
    trained = "trained" if labels else "pretrained"
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
import tensorflow as tf
encoder = tf.saved_model.load("PATH_OF_THIS_DIRECTORY")
features = encoder(images)  # training=True updates the batch-norm statistics
```

To fine-tune: `hub.KerasLayer("PATH_OF_THIS_DIRECTORY", trainable=True)`. The signature
`serving_default` serves; `all_outputs` also gives the outputs of the block groups and of the
projection head.
{_classify(classifier, class_names)}
## Evaluations

{evaluations or "None yet."}

## Settings

| setting | value |
| --- | --- |
{chr(10).join(rows)}
"""


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
    if not isinstance(value, str) or not value.startswith("folder:"):
        return value
    return f"folder:{value.removeprefix('folder:').rstrip('/').rpartition('/')[2]}"


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
