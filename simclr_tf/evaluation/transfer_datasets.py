"""The twelve datasets of the paper's transfer experiments [v1 §B.8] with splits and metrics."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TransferDataset:
    """A dataset with its standard splits (or "") and metric, by its name in the paper.

    `dataset` is the TFDS name, or "" for a folder:PATH that ends with `folder`.
    """

    name: str
    dataset: str
    train_split: str
    test_split: str
    metric: str = "top-1"
    folder: str = ""


TRANSFER_DATASETS = (
    TransferDataset("Food-101", "food101", "train", "validation"),
    TransferDataset("CIFAR-10", "cifar10", "train", "test"),
    TransferDataset("CIFAR-100", "cifar100", "train", "test"),
    TransferDataset("Birdsnap", "", "train", "test", folder="birdsnap"),
    # The first of the standard partitions; TFDS's plain `sun397` is split differently.
    TransferDataset("SUN397", "sun397/standard-part1-120k", "train", "test"),
    TransferDataset("Stanford Cars", "cars196", "train", "test"),
    TransferDataset("FGVC Aircraft", "", "train", "test", "mean per class", folder="aircraft"),
    TransferDataset("PASCAL VOC 2007", "voc/2007", "train+validation", "test", "11-point mAP"),
    TransferDataset("DTD", "dtd", "train+validation", "test"),
    TransferDataset("Oxford-IIIT Pets", "oxford_iiit_pet", "train", "test", "mean per class"),
    TransferDataset("Caltech-101", "caltech101", "train", "test", "mean per class"),
    TransferDataset(
        "Oxford 102 Flowers", "oxford_flowers102", "train+validation", "test", "mean per class"
    ),
)

# Tested on validation, because their test splits have no labels or do not exist.
_IMAGENET = tuple(
    TransferDataset("ImageNet", dataset, "train", "validation")
    for dataset in ("imagenet2012", "imagenet2012_subset/1pct", "imagenet2012_subset/10pct")
)


def lookup_transfer_dataset(dataset: str) -> TransferDataset:
    """Returns the standard splits and metric of a TFDS name (ignoring a version) or folder:PATH.

    For an unknown dataset the metric is top-1 and the splits are empty.
    """
    folder_name = ""
    if dataset.startswith("folder:"):
        folder_name = dataset.rstrip("/").rpartition("/")[2].lower().removeprefix("folder:")
    for entry in (*TRANSFER_DATASETS, *_IMAGENET):
        if folder_name:
            matches = folder_name == entry.folder
        else:  # a name without a configuration matches, too
            names = entry.dataset, entry.dataset.partition("/")[0]
            matches = bool(entry.dataset) and dataset.partition(":")[0] in names
        if matches:
            return entry
    return TransferDataset(dataset, dataset, "", "")
