"""One worker of `test_workers.py`: HOST:PORT,… INDEX OPTIMIZER OUTPUT."""

import sys

import numpy as np

from simclr_tf.option_groups import Distribution
from simclr_tf.training.distribution import make_distribution
from tests.models.tiny_simclr import first_steps, train_and_probe

if __name__ == "__main__":
    workers, index, optimizer, output = sys.argv[1:]
    replicas = make_distribution(Distribution(workers=workers, worker_index=int(index)))
    result = train_and_probe(optimizer, True, replicas.strategy)
    losses, velocities = first_steps(optimizer, "float32", 3, replicas.strategy)
    velocity = np.concatenate([v.ravel() for v in velocities])
    np.savez(output, **result, float32_losses=losses, float32_velocity=velocity)
