"""Helpers that any program could use: files, hardware, progress."""
