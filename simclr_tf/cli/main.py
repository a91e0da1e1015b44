"""The command line: `simclr-tf COMMAND [flags]`."""

import importlib
import io
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from absl import flags

from simclr_tf.cli.flags import help_text, read_flagfiles
from simclr_tf.errors import UserError

COMMANDS = (
    "pretrain",
    "finetune",
    "distill",
    "evaluate",
    "study",
    "export",
    "import",
    "embed",
    "runs",
    "show",
    "report",
    "bench",
)


def main(argv: Sequence[str]) -> int:
    """Runs one command and returns its exit status; `argv` is without the program's name."""
    if not argv or argv[0] in ("--help", "-h", "help"):
        print(_overview())
        return 0
    name, *arguments = argv
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may hold what a terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        if name not in COMMANDS:
            raise UserError(f"{name}: no such command; there are {', '.join(COMMANDS)}")
        command: Any = _load(name)
        if hasattr(command, "named") and arguments[:1] not in (["--help"], ["-h"]):
            # Several commands in one: the first argument says which.
            command = command.named(arguments[0] if arguments else "")
            name, arguments = f"{name} {arguments[0]}", arguments[1:]
        values = flags.FlagValues()
        values.set_gnu_getopt()  # flags may follow an argument
        groups = command.define(values)
        if "--help" in arguments or "-h" in arguments:
            print(help_text(name, command.__doc__, values, groups))
            return 0
        rest = _parse(values, [name, *read_flagfiles(arguments)])
        taken = [rest.pop(0) if rest else command.ARGUMENT] if hasattr(command, "ARGUMENT") else []
        if rest:
            raise UserError(f"{rest[0]}: not a flag; flags are written --name=value")
        command.run(values, *taken)
        sys.stdout.flush()
    except BrokenPipeError:  # of `| head`, which has read what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except UserError as error:
        print(f"simclr-tf: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("simclr-tf: interrupted", file=sys.stderr)
        return 130
    return 0


def console() -> None:
    """The entry point of the installed command."""
    # TensorFlow's start-up lines about what this machine lacks would bury the first of ours.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    sys.exit(main(sys.argv[1:]))


def _load(name: str) -> Any:
    # No module can be named `import`, which is a keyword.
    module = "import_weights" if name == "import" else name
    return importlib.import_module(f"simclr_tf.cli.{module}")


def _parse(values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
    try:
        return values(argv)[1:]
    except flags.Error as error:
        raise UserError(" ".join(str(error).split())) from None


def _overview() -> str:
    lines = [
        "SimCLR: contrastive learning of visual representations without labels.",
        "",
        "usage: simclr-tf COMMAND [--flag=value ...]",
        "",
    ]
    for name in COMMANDS:
        document = _load(name).__doc__ or ""
        lines.append(f"  {name:<10} {document.strip().splitlines()[0]}")
    lines += ["", "simclr-tf COMMAND --help tells a command's flags. A first run, in minutes:", ""]
    lines += ["  simclr-tf pretrain --flagfile=flags/quickstart.flags --model_dir=runs/quickstart"]
    return "\n".join(lines)
