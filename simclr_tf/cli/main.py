"""The command line: `simclr-tf COMMAND [flags]`."""

import contextlib
import importlib
import io
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

from absl import flags

from simclr_tf.api.flagfile import read_flagfiles
from simclr_tf.cli.flags import help_text
from simclr_tf.cli.startup import silence_tensorflow
from simclr_tf.errors import RunStopped, UserError
from simclr_tf.options import check_known
from simclr_tf.utils.log import show_progress
from simclr_tf.utils.paths import expand_user, shell_join
from simclr_tf.utils.signals import watch_signals
from simclr_tf.utils.suggestions import suggest

COMMANDS = (
    *("pretrain", "finetune", "distill", "evaluate", "study", "export", "import", "embed"),
    *("runs", "show", "report", "bench"),
)
_MAX_SECONDS_TO_INTERRUPT = 8.0
_USAGE = """SimCLR: contrastive learning of visual representations without labels.

usage: simclr-tf COMMAND [--flag=value ...]

{commands}

simclr-tf COMMAND --help lists the flags of a command. A first run, in minutes:

  simclr-tf pretrain --flagfile=flags/quickstart.flags --model_dir=runs/quickstart"""


def main(argv: Sequence[str]) -> int:
    """Runs one command and returns its exit status; `argv` is without the program's name."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may contain what a terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        _run([argument for argument in argv if argument != "--verbose"])
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` closes the pipe after the lines that it needs
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except UserError as error:
        print(f"simclr-tf: error: {error}", file=sys.stderr)
        return 2
    return 0


def console() -> None:
    """The installed command `simclr-tf`."""
    if "--verbose" not in sys.argv:
        silence_tensorflow()
    try:
        with watch_signals(_end_soon):
            status = main(sys.argv[1:])
    except (KeyboardInterrupt, RunStopped) as stop:
        if isinstance(stop, KeyboardInterrupt):
            _print_interrupted()
        # A regular end would wait for the files that are being read, perhaps forever. Until here,
        # the traceback keeps what reads them.
        _exit_at_once(getattr(stop, "code", 128 + signal.SIGINT))
    sys.exit(status)


def _end_soon(number: int, is_repeated: bool) -> None:
    """Ends the process 8 s after Ctrl-C, if Python has not had the opportunity to do so."""

    def end():
        _print_interrupted()
        _exit_at_once(128 + number)

    if number == signal.SIGINT and not is_repeated:
        timer = threading.Timer(_MAX_SECONDS_TO_INTERRUPT, end)
        timer.daemon = True
        timer.start()


def _print_interrupted() -> None:
    command = shell_join(["simclr-tf", *sys.argv[1:]])
    print(
        f"simclr-tf: interrupted. To continue, run the same command again: {command}",
        file=sys.stderr,
    )


def _exit_at_once(status: int) -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)


def _run(argv: Sequence[str]) -> None:
    if not argv or argv[0] in ("--help", "-h", "help"):
        lines = [(_load(name).__doc__ or "").strip().splitlines()[0] for name in COMMANDS]
        commands = [f"  {name:<10} {line}" for name, line in zip(COMMANDS, lines, strict=True)]
        print(_USAGE.format(commands="\n".join(commands)))
        return
    name, *arguments = argv
    if name not in COMMANDS:
        hint = suggest(name, COMMANDS) or ". Fix: see simclr-tf --help"
        raise UserError(f"expected one of the commands {', '.join(COMMANDS)}, got {name!r}{hint}")
    command: Any = _load(name)
    if hasattr(command, "get_subcommand") and arguments[:1] not in (["--help"], ["-h"]):
        command = command.get_subcommand(arguments[0] if arguments else "")
        name, arguments = f"{name} {arguments[0]}", arguments[1:]
    values = flags.FlagValues()
    values.set_gnu_getopt()  # flags may follow a positional argument
    groups = command.define(values)
    if "--help" in arguments or "-h" in arguments:
        print(help_text(name, command.__doc__, values, groups))
        return
    show_progress()
    positional = _parse(values, [name, *read_flagfiles(arguments)])
    taken = []
    if hasattr(command, "POSITIONAL_DEFAULT"):
        taken = [expand_user(positional.pop(0)) if positional else command.POSITIONAL_DEFAULT]
    if positional:
        raise UserError(f"{positional[0]}: not a flag. Fix: write flags as --name=value")
    command.run(values, *taken)


def _load(name: str) -> Any:
    # No module can be named `import`, which is a keyword.
    module = "import_weights" if name == "import" else name
    return importlib.import_module(f"simclr_tf.cli.{module}")


def _parse(values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
    try:
        return values(argv)[1:]
    except flags.Error as error:
        if isinstance(error, flags.UnrecognizedFlagError):
            check_known([error.flagname], list(values), f"simclr-tf {argv[0]}")
        raise UserError(
            f"{' '.join(str(error).split())}. Fix: see simclr-tf {argv[0]} --help"
        ) from None
