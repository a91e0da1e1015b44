"""Errors that the user can fix."""


class UserError(Exception):
    """A mistake or circumstance that the user can fix; commands print it and exit with status 2.

    The message is one line that names the option, file or value at fault and the fix:
    `--flag=value: expected …, got …. Fix: …`.

    Example:
        >>> import simclr_tf as st
        >>> st.config.Data(dataset="shapes", validation_fraction=0.9)
        Traceback (most recent call last):
        simclr_tf.errors.UserError: --validation_fraction=0.9: expected a number of at most 0.5
    """


class RunStopped(SystemExit):
    """A signal has ended a run, whose newest checkpoint is complete."""
