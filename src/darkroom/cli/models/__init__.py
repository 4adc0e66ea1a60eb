"""`darkroom models`: the models that there are, and the library that knows them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from darkroom.cli.models import files, listing, recording

_DESCRIPTION = """\
Without a subcommand: list the models that can be used by name.

The library records models, LoRAs, autoencoders and so on where they lie, and fetches new ones.
Only `pull` uses the network.
"""
_EXAMPLES = """\
examples:
  darkroom models scan                                    # what A1111, ComfyUI, InvokeAI, the HF cache have
  darkroom models scan /data/models --hash
  darkroom models add dreamshaper_8.safetensors --alias ds
  darkroom models pull stabilityai/sdxl-turbo --variant fp16
  darkroom models pull https://civitai.com/models/4384
  darkroom models rollback dreamshaper                    # back to the version before
  darkroom models verify                                  # are the files what they were, and sound
  darkroom models lock && git add models.lock             # pin a project's models by hash
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    models = commands.add_parser(
        "models",
        help="list, find, fetch and check models",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    models.add_argument("--json", action="store_true", help="print JSON, an object an entry")
    parts = models.add_subparsers(title="subcommands", metavar="SUBCOMMAND")
    models.set_defaults(run=listing.run_list, name=[], kind=None)

    def command(name: str, run: Callable[[argparse.Namespace], int], help: str, more: str = "") -> Any:
        sub = parts.add_parser(name, help=help, description=f"{help[0].upper()}{help[1:]}. {more}".strip())
        sub.set_defaults(run=run)
        return sub

    for part in (listing, recording, files):
        part.add(command)
