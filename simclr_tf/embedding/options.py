"""Options of `simclr-tf embed` and `simclr_tf.embed`."""

import dataclasses
import functools

from simclr_tf.errors import UserError
from simclr_tf.options import OptionGroup, option, split_commas

FORMATS = ("npy", "parquet", "projector")

_data = functools.partial(option, heading="Data")


@dataclasses.dataclass(frozen=True)
class EmbedOptions(OptionGroup):
    """Embedding

    >>> from simclr_tf.embedding import EmbedOptions
    >>> EmbedOptions(format="npy,projector").formats
    ('npy', 'projector')
    """

    representation: str = option(
        "h",
        "h: output of the encoder; projection: output of the projection head.",
        choices=("h", "projection"),
        heading="Input",
    )
    dataset: str = _data("", "Dataset to embed. Default: the run's dataset.", is_path=True)
    split: str = _data("", "Split to embed. Default: the run's train_split, otherwise train.")
    data_dir: str = _data(
        "", "Directory of TFDS datasets. Default: the run's data_dir.", is_path=True
    )
    skip_unreadable: bool = _data(
        False, "Skip files that are not images. Always on if the run was trained with it."
    )
    max_pixels: int | None = _data(
        None, "Maximum pixels of an image file. Default: the run's.", min=1
    )
    eval_batch_size: int = _data(256, "Images per call of the encoder.", min=1, max=2**20)
    format: str = option(
        "npy", f"Output formats, comma-separated: {', '.join(FORMATS)}.", heading="Output"
    )
    projector_images: int = option(
        10_000,
        "Maximum number of images in the embedding projector, evenly spaced. Browsers get slow "
        "with more.",
        min=1,
        max=100_000,
        heading="Output",
    )
    nearest: str = option(
        "",
        "Query image of a nearest-neighbor search: an image file, or an ID or row number of the "
        "dataset.",
        heading="Search",
        is_path=True,
    )
    neighbours: int = option(10, "Number of nearest neighbors to find.", min=1, heading="Search")

    def __post_init__(self) -> None:
        """Raises UserError if an option is invalid."""
        super().__post_init__()
        for name in self.formats or ("",):
            if name not in FORMATS:
                raise UserError(
                    f"--format={self.format}: expected any of {', '.join(FORMATS)}, got {name!r}"
                )

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats in `format`, without repetitions."""
        return tuple(dict.fromkeys(split_commas(self.format)))
