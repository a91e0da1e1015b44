"""One worker of `test_workers.py`: HOST:PORT,… INDEX OPTIMIZER OUTPUT."""

import sys

import numpy as np
from tiny_simclr import train_and_probe

from simclr_tf.config import Devices
from simclr_tf.distribution import open_replicas

if __name__ == "__main__":
    workers, index, optimizer, output = sys.argv[1:]
    replicas = open_replicas(Devices(workers=workers, worker_index=int(index)))
    np.savez(output, **train_and_probe(optimizer, True, replicas.strategy))
