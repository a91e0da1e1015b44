"""Runs as they lie on the disk: their state, their curve, their figures. Without TensorFlow."""
