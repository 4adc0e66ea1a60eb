"""`darkroom train`: see `darkroom.train.pocket.cli`."""

from __future__ import annotations

import argparse


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from darkroom.train.pocket.cli import add_arguments

    add_arguments(commands)
