"""argparse as Darkroom has it: one way to spell an option, and mistakes in a line that says what was meant and which
help page tells more."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any, NoReturn

from darkroom.errors import closest, nearest


class Parser(argparse.ArgumentParser):
    """A command, or what has commands within it, which have options of their own that take no values."""

    closing: Callable[[], str] | None = None
    """Makes the end of the help text, where that takes more than should be done before it is asked for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def add_subparsers(self, **options: Any) -> Any:
        """As argparse does; where no command is given help is."""
        self.set_defaults(run=lambda args: self.print_help())
        return super().add_subparsers(**options)

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
        own = list(takewhile(lambda word: word != "--", words))
        if (within := self._within()) is not None:
            own = list(takewhile(lambda word: word.startswith("-"), own))
            if (word := next(iter(words[len(own) :]), "--")) not in ("--", *within.choices):
                kind = str(within.metavar).lower()
                self.error(f"unknown {kind} {word!r}: {nearest(word, within.choices, alike=0.6)}")
        for word in own:
            self._check_option(word)
        found, over = super().parse_known_args(self._together(words) if within is None else words, namespace)
        for word in over:
            if word in own and word.startswith("-"):
                self.error(f"unknown option {word}")
            self.error(f"unexpected {word!r}: a text of several words stands in quotes, options before a --")
        return found, over

    def command(self, name: str) -> Parser:
        """The parser of a command within."""
        within = self._within()
        assert within is not None
        found: Parser = within.choices[name]
        return found

    def loose(self, words: Sequence[str]) -> list[str]:
        """Those of some words that are no options and no values of options, as far as these are known."""
        return self._parted(words)[1]

    def _together(self, words: Sequence[str]) -> list[str]:
        """The words with those together that are no options: argparse takes a command's arguments for complete where
        an option stands between them (`edit photo.jpg --mask mask.png "a boat"`)."""
        options, loose = self._parted(words)
        return [*options, "--", *loose, *words[len(options) + len(loose) + 1 :]] if loose else [*words]

    def _parted(self, words: Sequence[str]) -> tuple[list[str], list[str]]:
        """Of the words before a `--` the options with their values, and the others."""
        options: list[str] = []
        loose: list[str] = []
        values = 0  # How many words more may be values of the option before.
        for word in takewhile(lambda word: word != "--", words):
            if self._parse_optional(word) is not None:
                options.append(word)
                action = self._option_string_actions.get(word)
                nargs = 0 if action is None else action.nargs
                values = 1 if nargs is None else 0 if nargs == 0 else len(words)
            elif values:
                options.append(word)
                values -= 1
            else:
                loose.append(word)
        return options, loose

    def _within(self) -> argparse._SubParsersAction[Any] | None:
        return next((each for each in self._actions if isinstance(each, argparse._SubParsersAction)), None)

    @property
    def options(self) -> list[str]:
        """Every option as it may be spelt."""
        return [*self._option_string_actions]

    def knows(self, word: str) -> bool:
        """Whether a word is an option, with its value or without."""
        return word.partition("=")[0] in self.options

    def _check_option(self, word: str) -> None:
        """Ends the program where a word is an option that there is not: argparse never takes it for a value. Nor is
        anything but a number put right behind a letter, where argparse would take the letter for an option."""
        option = word.partition("=")[0]
        if self.knows(word):
            return
        if any(map(str.isspace, option)):
            if self.knows(option[:2]):
                self.error(f"{word!r} begins as an option: a prompt that does stands behind --")
        elif re.match(r"--.|-[A-Za-z][^\d.-]", option):
            hint = _hint(option.lstrip("-"), [each for each in self.options if each[:2] == "--"])
            self.error(f"unknown option {option}{hint and f': {hint}'}")


def _hint(option: str, known: Sequence[str]) -> str:
    """What to write in place of a long option that there is not; "" where nothing comes close."""
    from darkroom.cli.arguments import FIELDS, spelt
    from darkroom.generation.elsewhere import called_here, option_of

    name = option.replace("-", "_")
    ours = [spelt(each)[-1] for each in called_here(name) or {name} & FIELDS.keys()]
    if f"--{option}" in known:
        return f"did you mean --{option}?"
    if ours and {*ours} <= {*known}:
        return f"it is called {' and '.join(ours)} here"
    if (found := option_of(name)) and f"--{found[0]}" in known:
        return f"it is an option of the {found[0]}, written as in --{found[0]} {found[1]}"
    close = closest(option, [each[2:] for each in known])
    return f"did you mean --{close}?" if close else ""
