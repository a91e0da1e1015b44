"""Run directories on disk: paths, status, metrics, results and listings; without TensorFlow."""
