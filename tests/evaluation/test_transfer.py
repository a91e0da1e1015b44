"""The twelve transfer sets: known to TFDS, measured as the paper does, told to the user."""

from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from simclr_tf.evaluation.metrics import METRICS
from simclr_tf.evaluation.transfer_datasets import (
    TRANSFER_DATASETS,
    format_transfer_table,
    lookup_transfer_dataset,
)

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"


# reference.md §4b, and the splits that learn and judge: name, dataset, splits, metric.
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
def test_each_of_the_twelve_is_the_papers(line):
    name, dataset, train, test, metric = (cell.strip() for cell in line.split("|"))
    known = lookup_transfer_dataset(dataset)
    found = (known.name, known.train_split, known.test_split, known.metric)
    assert found == (name, train, test, metric)
    assert known in TRANSFER_DATASETS
    cells = (dataset.replace("folder:", "folder:…/"), train, test)
    row = f"| {name} | {' | '.join(f'`{cell}`' for cell in cells)} | {metric} |"
    assert row in DOCUMENT.read_text(encoding="utf-8")


def test_imagenet_is_judged_on_its_validation_split():
    for dataset in ("imagenet2012", "imagenet2012:5.1.0", "imagenet2012_subset/10pct"):
        assert lookup_transfer_dataset(dataset).test_split == "validation"
    assert not lookup_transfer_dataset("imagenet_v2").test_split


def test_there_are_twelve_and_tfds_knows_ten():
    assert len(TRANSFER_DATASETS) == 12
    by_name = [known for known in TRANSFER_DATASETS if known.dataset]
    assert len(by_name) == 10
    for known in by_name:
        name, _, configuration = known.dataset.partition("/")
        builder = tfds.builder_cls(name)
        assert configuration in {"", *(c.name for c in builder.BUILDER_CONFIGS)}
    assert all(known.metric in METRICS for known in TRANSFER_DATASETS)


@pytest.mark.parametrize(
    ("dataset", "name", "metric"),
    [
        ("oxford_iiit_pet", "Oxford-IIIT Pets", "mean per class"),
        ("caltech101:3.0.2", "Caltech-101", "mean per class"),
        ("voc/2007", "PASCAL VOC 2007", "11-point mAP"),
        ("sun397", "SUN397", "top-1"),
        ("folder:/data/Aircraft/", "FGVC Aircraft", "mean per class"),
        ("folder:birdsnap", "Birdsnap", "top-1"),
        ("folder:/aircraft/mine", "folder:/aircraft/mine", "top-1"),
        ("mnist", "mnist", "top-1"),
    ],
)
def test_a_dataset_has_its_usual_metric(dataset, name, metric):
    known = lookup_transfer_dataset(dataset)
    assert (known.name, known.metric) == (name, metric)
    assert bool(known.train_split) == (known in TRANSFER_DATASETS)


def test_the_document_has_the_table():
    assert format_transfer_table() in DOCUMENT.read_text(encoding="utf-8")
