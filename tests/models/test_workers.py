"""SimCLR's training step on two worker processes, over loopback: the step of one device."""

from pathlib import Path

import numpy as np
import pytest
from processes import finish, free_workers, python
from tiny_simclr import assert_equal, train_and_probe

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("optimizer", ["lars", "momentum"])
def test_two_workers_train_as_one_device(tmp_path, optimizer):
    workers, program = free_workers(2), Path(__file__).parent / "worker.py"
    files = [tmp_path / f"{index}.npz" for index in range(2)]
    processes = [
        python(program, workers, index, optimizer, file) for index, file in enumerate(files)
    ]
    wanted = train_and_probe(optimizer, True)
    for process, file in zip(processes, files, strict=True):
        status, _, errors = finish(process)
        assert status == 0, errors
        with np.load(file) as found:
            assert_equal(dict(found), wanted)
