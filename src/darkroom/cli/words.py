"""Messages of the library as the command line words them, and where they go."""

from __future__ import annotations

import sys

from darkroom.errors import told


def in_options(message: str) -> str:
    """A message with the settings that it names as options: --memory full, --no-metadata."""
    from darkroom.generation.request import SETTINGS
    from darkroom.loading import LOADING

    def option(name: str, value: str) -> str:
        each = SETTINGS.get(name) or LOADING.get(name)
        long = ((each and each.metadata["each"]) or name).replace("_", "-")
        return f"--{'no-' if value == 'False' else ''}{long}{'' if value in ('', 'True', 'False') else f' {value}'}"

    return told(message, option)


def aside(who: str, message: object) -> None:
    """Tell people something that is no result: a note, an error."""
    print(f"{who}: {in_options(str(message))}", file=sys.stderr)
