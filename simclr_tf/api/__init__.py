"""The Python API: every command as a function, with the flags as keyword arguments."""
