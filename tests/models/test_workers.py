"""SimCLR's training step on two worker processes, over loopback: the step of one device."""

import numpy as np
import pytest

from tests.models.tiny_simclr import assert_equal, first_steps, train_and_probe
from tests.processes import finish, free_workers, python

pytestmark = pytest.mark.slow


def test_two_workers_train_as_one_device(tmp_path):
    workers, program, optimizer = free_workers(2), "tests.models.worker", "momentum"
    files = [tmp_path / f"{index}.npz" for index in range(2)]
    processes = [
        python("-m", program, workers, index, optimizer, file) for index, file in enumerate(files)
    ]
    wanted = train_and_probe(optimizer, True)
    losses, velocities = first_steps(optimizer, "float32", 3)
    velocity = np.concatenate([v.ravel() for v in velocities])
    for process, file in zip(processes, files, strict=True):
        status, _, errors = finish(process)
        assert status == 0, errors
        with np.load(file) as archive:
            found = dict(archive)
        # As in test_simclr.py: the first gradient and loss to 1e-5, losses of three steps to 1e-3.
        np.testing.assert_allclose(found["float32_losses"][0], losses[0], rtol=1e-5)
        np.testing.assert_allclose(found.pop("float32_losses"), losses, rtol=1e-3)
        error = np.linalg.norm(found.pop("float32_velocity") - velocity)
        assert error < 1e-5 * np.linalg.norm(velocity)
        assert_equal(found, wanted)
