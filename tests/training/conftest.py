"""Fixtures of the training tests."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from simclr_tf.training.tasks import finetune, pretrain
from tests.training.tiny import TINY, WATCHED, WIDE, changed, finetune_config


@pytest.fixture(autouse=True)
def _quiet_logger() -> Iterator[None]:
    """Messages reach pytest alone, at a level that tests choose."""
    logger = logging.getLogger("simclr_tf")
    handlers, level = logger.handlers[:], logger.level
    logger.handlers.clear()
    yield
    logger.handlers[:] = handlers
    logger.setLevel(level)


@pytest.fixture
def log(caplog) -> pytest.LogCaptureFixture:
    """Captured log lines of the package: `log.messages`."""
    caplog.set_level(logging.INFO, "simclr_tf")
    return caplog


@pytest.fixture(scope="session")
def watched_run(tmp_path_factory) -> Path:
    """A finished pretraining run of 12 steps with probes, validation losses and a profile."""
    path = tmp_path_factory.mktemp("watched") / "run"
    pretrain(WATCHED, path)
    return path


@pytest.fixture(scope="session")
def unbroken(tmp_path_factory):
    """(model, run directory) of a pretraining run of 10 steps without interruption."""
    path = tmp_path_factory.mktemp("unbroken") / "run"
    return pretrain(TINY, path), path


@pytest.fixture(scope="session")
def teacher(tmp_path_factory) -> Path:
    """A run with a classifier after a few steps, twice as wide as its students."""
    path = tmp_path_factory.mktemp("teacher") / "run"
    finetune(changed(finetune_config("", steps=10, from_scratch=True), encoder=WIDE), path)
    return path
