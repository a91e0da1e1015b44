"""Options of `simclr-tf report` and `simclr_tf.report`."""

import dataclasses
import importlib.util

from simclr_tf.errors import UserError
from simclr_tf.options import OptionGroup, option


@dataclasses.dataclass(frozen=True)
class ReportOptions(OptionGroup):
    """Report

    >>> from simclr_tf.reporting.options import ReportOptions
    >>> ReportOptions(map="tsne").map_images
    2000
    """

    dataset: str = option(
        "", "Dataset of the images. Default: the run's dataset.", heading="Data", is_path=True
    )
    train_split: str = option(
        "",
        "Split searched for nearest neighbors. Default: the run's train_split, or train.",
        heading="Data",
    )
    eval_split: str = option(
        "",
        "Split shown in the embedding map, if it exists. Default: the run's eval_split, or test.",
        heading="Data",
    )
    data_dir: str = option(
        "", "Directory of TFDS datasets. Default: the run's data_dir.", heading="Data", is_path=True
    )
    skip_unreadable: bool = option(
        False,
        "Skip files that are not images. Always on if the run was trained with it.",
        heading="Data",
    )
    max_pixels: int | None = option(
        None, "Maximum pixels of an image file. Default: the run's.", min=1, heading="Data"
    )
    map: str = option(
        "pca",
        "Embedding map next to PCA: umap (requires the extra umap) or tsne; pca for PCA alone.",
        choices=("pca", "umap", "tsne"),
        heading="Options",
    )
    images: int = option(
        10_000, "Maximum number of images per split, evenly spaced.", min=5, heading="Options"
    )
    map_images: int = option(
        2_000,
        "Maximum number of images in the embedding map and of positive pairs.",
        min=5,
        max=10_000,
        heading="Options",
    )

    def __post_init__(self) -> None:
        """Raises UserError if an option is invalid or requires a missing package."""
        super().__post_init__()
        if self.map == "umap" and importlib.util.find_spec("umap") is None:
            raise UserError(
                "--map=umap requires umap-learn. Fix: pip install 'simclr_tf[umap]', or use "
                "--map=tsne"
            )
