"""Console output: in processes, because pytest configures logging itself."""

import subprocess
import sys

import pytest

PROGRAM = """
import logging, sys
from simclr_tf.utils.log import show_progress
{configure}
show_progress()
show_progress()
logger = logging.getLogger("simclr_tf.some.module")
from absl import logging as absl_logging
absl_logging.set_verbosity(absl_logging.ERROR)
absl_logging.info("configures the root logger")
logger.info("for users")
logger.debug("for developers")
logger.warning("a note")
"""


@pytest.mark.parametrize(
    ("configure", "stdout", "stderr"),
    [
        ("", "for users\na note\n", ""),
        ("logging.basicConfig(level=logging.INFO)", "", "INFO:simclr_tf.some.module:for users"),
        (
            "logging.getLogger('simclr_tf').addHandler(logging.StreamHandler(sys.stderr))",
            "",
            "a note\n",
        ),
        ("logging.getLogger('simclr_tf').setLevel(logging.WARNING)", "a note\n", ""),
    ],
)
def test_show_progress_prints_unless_logging_is_configured(configure, stdout, stderr):
    program = PROGRAM.format(configure=configure)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == stdout
    assert stderr in done.stderr and bool(done.stderr) == bool(stderr)


def test_show_progress_follows_the_current_stdout(capsys):
    import logging

    from simclr_tf.utils.log import show_progress

    show_progress()
    logging.getLogger("simclr_tf.module").warning("visible")
    assert capsys.readouterr().out == "visible\n"


def test_descriptions_of_data_are_printed_once_in_a_command(capsys):
    import logging

    from simclr_tf.utils.log import show_progress

    for _ in range(2):
        show_progress()
        for name in ("simclr_tf.data.folder", "simclr_tf.data.folder", "simclr_tf.training.loop"):
            logging.getLogger(name).warning("40 images")
        assert capsys.readouterr().out == "40 images\n" * 2
