import logging

import pytest


@pytest.fixture
def log(caplog):
    """`log.text`: the lines that the package logs."""
    caplog.set_level(logging.INFO, "simclr_tf")
    return caplog
