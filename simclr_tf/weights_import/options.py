"""Options of `simclr-tf import`; imports no TensorFlow."""

import dataclasses

from simclr_tf.options import OptionGroup, option


@dataclasses.dataclass(frozen=True)
class ImportOptions(OptionGroup):
    """Options

    >>> from simclr_tf.weights_import.options import ImportOptions
    >>> ImportOptions(image_size=96).image_size
    96
    """

    image_size: int | None = option(
        None,
        "Side of the input images in pixels. Default: 224, or 32 with the CIFAR stem.",
        min=8,
        max=16384,
    )
