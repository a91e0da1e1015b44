"""Benchmarks of the method's cost on the current machine; one module for each benchmark."""
