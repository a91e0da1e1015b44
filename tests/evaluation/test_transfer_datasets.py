"""Transfer datasets: TFDS names, splits and metrics of the paper, documented."""

from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from simclr_tf.evaluation.options import METRICS
from simclr_tf.evaluation.transfer_datasets import TRANSFER_DATASETS, lookup_transfer_dataset

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"

# reference.md §4b: name, dataset, training split, test split, metric.
TWELVE = """
Food-101            | food101                    | train            | validation | top-1
CIFAR-10            | cifar10                    | train            | test       | top-1
CIFAR-100           | cifar100                   | train            | test       | top-1
Birdsnap            | folder:birdsnap            | train            | test       | top-1
SUN397              | sun397/standard-part1-120k | train            | test       | top-1
Stanford Cars       | cars196                    | train            | test       | top-1
FGVC Aircraft       | folder:aircraft            | train            | test       | mean per class
PASCAL VOC 2007     | voc/2007                   | train+validation | test       | 11-point mAP
DTD                 | dtd                        | train+validation | test       | top-1
Oxford-IIIT Pets    | oxford_iiit_pet            | train            | test       | mean per class
Caltech-101         | caltech101                 | train            | test       | mean per class
Oxford 102 Flowers  | oxford_flowers102          | train+validation | test       | mean per class
"""


@pytest.mark.parametrize("line", TWELVE.strip().splitlines())
def test_lookup_returns_the_papers_splits_and_metric(line):
    name, dataset, train, test, metric = (cell.strip() for cell in line.split("|"))
    entry = lookup_transfer_dataset(dataset)
    found = (entry.name, entry.train_split, entry.test_split, entry.metric)
    assert found == (name, train, test, metric)
    assert entry in TRANSFER_DATASETS
    cells = (dataset.replace("folder:", "folder:…/"), train, test)
    row = f"| {name} | {' | '.join(f'`{cell}`' for cell in cells)} | {metric} |"
    assert row in DOCUMENT.read_text(encoding="utf-8")


def test_lookup_returns_the_validation_split_for_imagenet():
    for dataset in ("imagenet2012", "imagenet2012:5.1.0", "imagenet2012_subset/10pct"):
        assert lookup_transfer_dataset(dataset).test_split == "validation"
    assert not lookup_transfer_dataset("imagenet_v2").test_split


def test_ten_of_the_twelve_datasets_are_tfds_datasets():
    assert len(TRANSFER_DATASETS) == 12
    names = [entry.dataset for entry in TRANSFER_DATASETS if entry.dataset]
    assert len(names) == 10
    for dataset in names:
        name, _, configuration = dataset.partition("/")
        builder = tfds.builder_cls(name)
        assert configuration in {"", *(c.name for c in builder.BUILDER_CONFIGS)}
    assert all(entry.metric in METRICS for entry in TRANSFER_DATASETS)


@pytest.mark.parametrize(
    ("dataset", "name", "metric"),
    [
        ("caltech101:3.0.2", "Caltech-101", "mean per class"),
        ("sun397", "SUN397", "top-1"),
        ("folder:/data/Aircraft/", "FGVC Aircraft", "mean per class"),
        ("folder:birdsnap", "Birdsnap", "top-1"),
        ("folder:/aircraft/mine", "folder:/aircraft/mine", "top-1"),
        ("mnist", "mnist", "top-1"),
    ],
)
def test_lookup_matches_versions_configurations_and_folders(dataset, name, metric):
    entry = lookup_transfer_dataset(dataset)
    assert (entry.name, entry.metric) == (name, metric)
    assert bool(entry.train_split) == (entry in TRANSFER_DATASETS)
