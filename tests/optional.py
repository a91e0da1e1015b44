"""Tests of what is not installed everywhere."""

import importlib.util

import pytest


def needs(*modules: str) -> pytest.MarkDecorator:
    """Skips a test where one of these cannot be imported."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} is not installed")
