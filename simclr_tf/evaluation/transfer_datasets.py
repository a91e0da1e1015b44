"""The twelve datasets of the paper's transfer experiments [v1 §B.8], and how each is measured."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TransferDataset:
    """A dataset, its usual splits and metric.

    `dataset` is a TFDS name, or "" where there is none: then it is a folder:PATH whose last part is
    `folder`. The splits are what is learnt from and judged on; "" where nothing is usual.
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
    # The first of the set's standard partitions; TFDS's plain `sun397` is a split of its own.
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

# Their test splits have no labels, or there are none.
_IMAGENET = tuple(
    TransferDataset("ImageNet", dataset, "train", "validation")
    for dataset in ("imagenet2012", "imagenet2012_subset/1pct", "imagenet2012_subset/10pct")
)


def lookup_transfer_dataset(dataset: str) -> TransferDataset:
    """Return how a dataset is usually measured; of one that is not known, by top-1 on no splits.

    Args:
        dataset: a TFDS name (a version after a colon does not matter), or folder:PATH.
    """
    last = dataset.rstrip("/").rpartition("/")[2].lower() if dataset.startswith("folder:") else ""
    last = last.removeprefix("folder:")
    for known in (*TRANSFER_DATASETS, *_IMAGENET):
        # A name without a configuration is that of the set.
        named = dataset.partition(":")[0] in (known.dataset, known.dataset.partition("/")[0])
        if (last == known.folder) if last else (known.dataset and named):
            return known
    return TransferDataset(dataset, dataset, "", "")


def format_transfer_table() -> str:
    """Return the twelve as a Markdown table."""
    rows = [
        f"| {known.name} | `{known.dataset or f'folder:…/{known.folder}'}` "
        f"| `{known.train_split}` | `{known.test_split}` | {known.metric} |"
        for known in TRANSFER_DATASETS
    ]
    head = ["| set | `--datasets` | learnt from | judged on | metric |"]
    return "\n".join([*head, "| --- | --- | --- | --- | --- |", *rows])
