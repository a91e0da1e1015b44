"""Graph traces and host memory do not grow with the number of steps."""

import re
from collections import Counter
from pathlib import Path

import pytest

from simclr_tf.augment.per_image import PerImagePolicy
from simclr_tf.evaluation import features
from simclr_tf.models import SimCLR, build
from simclr_tf.training.tasks import pretrain
from tests.processes import TINY, finish
from tests.processes import pretrain as start
from tests.training.tiny import changed

MIB = 2**10  # in the kB of /proc


@pytest.mark.slow
def test_graphs_are_traced_only_in_the_first_steps(tmp_path, monkeypatch):
    traced = Counter()

    def counted(owner, name):
        original = getattr(owner, name)

        def function(*args, **kwargs):
            traced[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, function)

    # Python's code runs only while a graph is traced: of the step, of a view, of the evaluators.
    counted(SimCLR, "_encode")
    counted(SimCLR, "encode_and_contrast")
    counted(PerImagePolicy, "transform_images")
    counted(features, "eval_transform")
    settings = changed(  # 4 steps are an epoch
        data={"train_split": "train[:96]", "validation_fraction": 0.34},
        optimization={"train_batch_size": 16, "train_steps": 4},
        monitoring={"knn_every_epochs": 1.0, "log_every": 3, "pictures_every_epochs": 1.0},
        checkpoints={"checkpoint_steps": 3},
    )
    build._build_augmentation.cache_clear()  # otherwise the graph of the previous run is reused
    pretrain(settings, tmp_path / "short")
    once = dict(traced)
    assert set(once) == {"_encode", "encode_and_contrast", "transform_images", "eval_transform"}
    traced.clear()
    build._build_augmentation.cache_clear()
    pretrain(changed(settings, optimization={"train_steps": 16}), tmp_path / "long")
    assert dict(traced) == once


@pytest.mark.slow
def test_host_memory_is_constant_over_2000_steps(tmp_path):
    """With rows, probes, validation and checkpoints on the way, which come and go with 30 MiB."""
    process = start(
        tmp_path,
        *(*TINY, "--train_steps=2000", "--log_every=20", "--validation_fraction=0.2"),
        *("--knn_every_epochs=16", "--eval_every_epochs=8", "--eval_split=test[:128]"),
        "--checkpoint_steps=200",
    )
    taken = {}
    for line in process.stdout:
        if step := re.match(r"step (\d+)/", line):
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
            taken[int(step[1])] = int(re.search(r"VmRSS:\s+(\d+) kB", status)[1])
    code, _, errors = finish(process)
    assert code == 0, errors
    early, late = (
        max(kilobytes for step, kilobytes in taken.items() if low <= step <= high)
        for low, high in ((200, 700), (1500, 2000))
    )
    # If each step left a batch of these small views in memory, that would be 50 MiB by then.
    assert late - early < 16 * MIB
