"""Console output of the package's loggers."""

import logging
import sys

from tqdm import tqdm


class _ConsoleHandler(logging.Handler):
    """Prints messages to the current `sys.stdout`, above any progress bar.

    Descriptions of data, which a command may open several times, are printed once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.startswith("simclr_tf.data."):
            if record.getMessage() in self.printed:
                return
            self.printed.add(record.getMessage())
        # Errors propagate as they do from `print`: a closed pipe ends the command.
        with tqdm.external_write_mode(file=sys.stdout):
            print(self.format(record), flush=True)


def show_progress() -> None:
    """Prints the messages that the package logs at level INFO and above, as plain lines.

    Commands and functions of the Python API call this first. It changes nothing where the
    application has already configured logging so that these messages are handled.
    """
    logger = logging.getLogger("simclr_tf")
    for handler in logger.handlers:
        if isinstance(handler, _ConsoleHandler):
            handler.printed.clear()
    root_handlers = logging.getLogger().handlers
    if logger.handlers or (root_handlers and logger.isEnabledFor(logging.INFO)):
        return
    logger.addHandler(_ConsoleHandler())
    # Otherwise messages would appear twice once absl, which TensorFlow uses, configures the root.
    logger.propagate = bool(root_handlers)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
