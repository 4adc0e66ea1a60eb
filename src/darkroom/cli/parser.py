"""argparse as Darkroom has it: one way to spell an option, and mistakes in a line that says what was meant and which
help page tells more."""

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import Any, NoReturn

from darkroom.errors import closest, nearest


class Parser(argparse.ArgumentParser):
    """A command, or what has commands within it."""

    closing: Callable[[], str] | None = None
    """Makes the end of the help text, where that takes more than should be done before it is asked for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def format_help(self) -> str:
        if self.closing is not None:
            self.epilog = self.closing()
        return super().format_help()

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see '{self.prog} --help')\n")

    def parse_known_args(  # type: ignore[override] # Of its two signatures in argparse this is the one in use.
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Leaves nothing over, so that what is unknown is told by the parser that knows the most of it."""
        words = list(sys.argv[1:] if args is None else args)
        within = next((each for each in self._actions if isinstance(each, argparse._SubParsersAction)), None)
        own = list(takewhile(lambda word: word != "--", words))
        if within is not None:
            own = list(takewhile(lambda word: word.startswith("-"), own))
            if own != words and words[len(own)] not in within.choices:
                self._unknown_command(words[len(own)], str(within.metavar).lower(), within.choices)
        for word in own:
            self._check_option(word.partition("=")[0])
        found, over = super().parse_known_args(words, namespace)
        for word in over:
            if word.startswith("-"):
                self.error(f"unknown option {word}")
            self.error(f"unexpected {word!r}: what has spaces in it stands in quotes")
        return found, over

    def _unknown_command(self, word: str, kind: str, known: Iterable[str]) -> NoReturn:
        hint = nearest(word, known)
        if kind == "command":
            hint += f" As a prompt: {self.prog} generate {shlex.quote(word)}"
        self.error(f"unknown {kind} {word!r}: {hint}")

    def _check_option(self, option: str) -> None:
        """Ends the program where a word is an option that there is not: argparse never takes it for a value."""
        known = [each for each in self._option_string_actions if each.startswith("--")]
        if option in known or any(map(str.isspace, option)):
            return
        if re.match(r"--.", option) or f"-{option}" in known:
            hint = _hint(f"--{option.lstrip('-')}", known)
            self.error(f"unknown option {option}{hint and f': {hint}'}")


def _hint(option: str, known: Sequence[str]) -> str:
    """What to write in place of a long option that there is not; "" where nothing comes close."""
    from darkroom.generation.request import SETTINGS, called_here, option_of

    def as_option(word: re.Match[str]) -> str:
        setting = SETTINGS.get(word[0])
        return word[0] if setting is None else f"--{setting.metadata['each'] or word[0]}".replace("_", "-")

    name = option[2:].replace("-", "_")
    ours = re.sub(r"\w+", as_option, called_here(name))
    if ours and all(each in known for each in re.findall(r"--[\w-]+", ours)):
        return f"it is called {ours} here"
    if (found := option_of(name)) and f"--{found[0]}" in known:
        return f"it is an option of the {found[0]}, written as in --{found[0]} {found[1]}"
    close = closest(option[2:], [each[2:] for each in known])
    return f"did you mean --{close}?" if close else ""
