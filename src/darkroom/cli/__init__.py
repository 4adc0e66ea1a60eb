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
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from itertools import takewhile
from typing import TextIO

from darkroom.cli.parser import Parser
from darkroom.cli.words import aside, placed
from darkroom.errors import DarkroomError, InvalidRequest, closest, nearest
from darkroom.version import __version__

INTERRUPTED = 130
# The commands, in the order of the help, with the module here that adds each.
_COMMANDS = {
    "generate": "generate",
    "edit": "edit",
    "outpaint": "edit",
    "detail": "edit",
    "vary": "vary",
    "mask": "mask",
    "upscale": "upscale",
    "interrogate": "vary",
    "interpolate": "interpolate",
    "again": "again",
    "attention": "attention",
    "prompt": "prompt",
    "plan": "plan",
    "models": "models",
    "lora": "lora",
    "merge": "merge",
    "inspect": "checkpoints",
    "convert": "checkpoints",
    "samplers": "show",
    "guides": "show",
    "info": "show",
    "doctor": "doctor",
    "evaluate": "evaluate",
    "train": "train",
    "serve": "serve",
    "worker": "serve",
}

_EXAMPLES = """\
examples:
  darkroom "a red boat on a calm sea"                     # a prompt alone is generated
  darkroom generate "three red balloons above a blue sea at night" --count 4 --grid
  darkroom again out/42-a-red-boat-on-a-calm-sea.png
  darkroom samplers
"""


def parser(word: str = "") -> Parser:
    """The command line: of the command that is named, which is quicker, or whole where none is."""
    top = Parser(
        prog="darkroom",
        description="Darkroom develops pictures from prompts: a complete Stable Diffusion system.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("-V", "--version", action="version", version=f"darkroom {__version__}")
    top.add_argument("--debug", action="store_true", help="show where an error came from")
    commands = top.add_subparsers(title="commands", metavar="COMMAND")
    for module in dict.fromkeys([_COMMANDS[word]] if word in _COMMANDS else _COMMANDS.values()):
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
    first, *rest = arguments or ["--help"]
    if first == "help":
        return [*rest[:1], "--help"]
    if first in _COMMANDS:
        return [*arguments]
    if first.startswith("-"):
        top = parser("generate")
        generate = top.command("generate")
        if top.knows(first) or (not generate.knows(first) and closest(first, top.options, alike=0.7)):
            return [first]
        if named := [word for word in generate.loose(arguments) if word in _COMMANDS]:
            raise InvalidRequest(
                f"{first} stands before its command: write darkroom {named[0]} ... {first} ..."
            )
    elif not any(map(str.isspace, first)):
        hint = nearest(first, _COMMANDS, alike=0.6)
        if not closest(first, _COMMANDS, alike=0.6):
            words = takewhile(lambda word: not word.startswith("-"), arguments)
            hint = f"as a prompt: darkroom generate {shlex.quote(' '.join(words))}; {hint}"
        parser().error(f"unknown command {first!r}: {hint}")
    return ["generate", *arguments]


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    try:
        return parser(arguments[0]).parse_args(arguments)
    except SystemExit:
        sys.stdout.flush()  # Help that nobody reads to its end is no error, but told here.
        raise


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status: 0 done, 1 failed, 2 a mistake in what was asked
    for, 130 interrupted."""
    _bear_everything()
    given = sys.argv[1:] if arguments is None else arguments
    end = given.index("--") if "--" in given else len(given)
    own = [word for word in given[:end] if word != "--debug"]
    debug = len(own) < end
    args = argparse.Namespace()
    try:
        args = _parsed(_commanded([*own, *given[end:]]))
        logging.basicConfig(format="%(message)s", level=logging.DEBUG if debug else logging.WARNING)
        return int(args.run(args) or 0)
    except DarkroomError as error:
        if debug:
            raise
        aside("darkroom", placed(error, args))
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
