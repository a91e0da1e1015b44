"""The twelve transfer sets: known to TFDS, measured as the paper does, told to the user."""

from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from simclr_tf.evaluation.metrics import METRICS
from simclr_tf.evaluation.transfer import TRANSFER_SETS, transfer_set, transfer_table

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "evaluation.md"


def test_there_are_twelve_and_tfds_knows_ten():
    assert len(TRANSFER_SETS) == 12
    by_name = [known for known in TRANSFER_SETS if known.dataset]
    assert len(by_name) == 10
    for known in by_name:
        name, _, configuration = known.dataset.partition("/")
        builder = tfds.builder_cls(name)
        assert configuration in {"", *(c.name for c in builder.BUILDER_CONFIGS)}
    assert all(known.metric in METRICS for known in TRANSFER_SETS)


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
    known = transfer_set(dataset)
    assert (known.name, known.metric) == (name, metric)
    assert bool(known.train_split) == (known in TRANSFER_SETS)


def test_the_document_has_the_table():
    assert transfer_table() in DOCUMENT.read_text(encoding="utf-8")
