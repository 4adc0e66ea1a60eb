"""The command line: `darkroom COMMAND`.

Each command is a module with two functions: `add` describes its arguments, `run` does the work and
imports what that needs, so that help and mistakes answer at once.
"""

from __future__ import annotations

import argparse
import errno
import io
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import TextIO

from darkroom.cli.parser import Parser
from darkroom.cli.words import aside
from darkroom.errors import DarkroomError, InvalidRequest
from darkroom.version import __version__

INTERRUPTED = 130
# The modules here with the commands that each adds, in the order of the help.
_COMMANDS = {
    "generate": "generate",
    "again": "again",
    "prompt": "prompt",
    "plan": "plan",
    "models": "models",
    "lora": "lora",
    "merge": "merge",
    "checkpoints": "inspect convert",
    "show": "samplers guides info",
    "doctor": "doctor",
    "evaluate": "evaluate",
    "train": "train",
}

_EXAMPLES = """\
examples:
  darkroom "a red boat on a calm sea"                     # a prompt alone is generated
  darkroom generate "three red balloons above a blue sea at night" --count 4 --grid
  darkroom again out/42-a-red-boat-on-a-calm-sea.png
  darkroom samplers
"""


def parser(word: str | None = None) -> argparse.ArgumentParser:
    """The command line: of the command that is named, which is quicker, or whole where none is."""
    top = Parser(
        prog="darkroom",
        description="Darkroom develops pictures from prompts: a complete Stable Diffusion system.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"darkroom {__version__}")
    top.add_argument("--debug", action="store_true", help="show where an error came from")
    top.set_defaults(run=lambda args: top.print_help())
    commands = top.add_subparsers(title="commands", metavar="COMMAND")
    own = [module for module, names in _COMMANDS.items() if word in names.split()]
    for module in own or _COMMANDS:
        import_module(f"darkroom.cli.{module}").add(commands)
    return top


def _bear_everything() -> None:
    """Have what is printed end no command: where there is no terminal it goes nowhere, and what a terminal has no signs
    for is spelt out (in UTF-8 that is only what file names hold of bytes, which go out as they are)."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or not _is_open(stream):
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            utf8 = stream.encoding.lower().replace("-", "") == "utf8"
            stream.reconfigure(errors="surrogateescape" if utf8 else "backslashreplace")


def _is_open(stream: TextIO) -> bool:
    """Whether something can be written to a stream, as far as can be told without doing so."""
    try:
        import fcntl

        flags = int(fcntl.fcntl(stream.fileno(), fcntl.F_GETFL))
    except (ImportError, io.UnsupportedOperation):  # On Windows; of memory, as in tests.
        return True
    except OSError:
        return False
    return flags & os.O_ACCMODE != os.O_RDONLY


def _commanded(arguments: Sequence[str]) -> list[str]:
    """The arguments with their command: what begins with a prompt, or with an option and names none, is to be
    generated."""
    first = arguments[0] if arguments else "--help"
    commands = " ".join(_COMMANDS.values()).split()
    prompt = not first.startswith("-") and any(map(str.isspace, first.strip()))
    option = first.startswith("-") and first not in ("-h", "--help", "--version")
    if option and (named := next((word for word in arguments if word in commands), None)):
        raise InvalidRequest(f"{first} stands before its command: write darkroom {named} ... {first} ...")
    return ["generate", *arguments] if prompt or option else [*arguments]


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    command = next((word for word in arguments if not word.startswith("-")), None)
    try:
        return parser(command).parse_args(arguments)
    except SystemExit:
        sys.stdout.flush()  # Help that nobody reads to its end is no error, but told here.
        raise


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status: 0 done, 1 failed, 2 a mistake in what was asked
    for, 130 interrupted."""
    _bear_everything()
    given = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in given
    try:
        args = _parsed(_commanded([word for word in given if word != "--debug"]))
        logging.basicConfig(format="%(message)s", level=logging.DEBUG if debug else logging.WARNING)
        return int(args.run(args) or 0)
    except DarkroomError as error:
        if debug:
            raise
        aside("darkroom", error)
        return 2 if isinstance(error, InvalidRequest) else 1
    except KeyboardInterrupt:
        print("\ndarkroom: interrupted", file=sys.stderr)
        return INTERRUPTED
    except UnicodeEncodeError as error:
        if debug:
            raise
        print(
            f"darkroom: {error.object!a} cannot be written in {error.encoding}, the encoding of names here: "
            "use UTF-8 (LC_ALL=C.UTF-8)",
            file=sys.stderr,
        )
        return 1
    except BrokenPipeError:
        # Whoever read our output has gone: say no more, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if debug or error.errno not in (errno.ENOSPC, errno.EIO):
            raise
        # What is printed has nowhere to go; files say so themselves.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        with suppress(OSError):
            print(
                f"darkroom: cannot write what there is to say: {error.strerror}", file=sys.stderr, flush=True
            )
        return 1
