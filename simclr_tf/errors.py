"""The one exception that means: the user can mend this."""


class UserError(Exception):
    """A mistake or circumstance that the user can mend; the commands print it and exit 2.

    The message is one line that names the flag, file or value at fault and the remedy.
    """
