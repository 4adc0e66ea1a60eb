"""`darkroom train`: see `darkroom.train.cli`."""

from __future__ import annotations

import argparse


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from darkroom.train.cli import add_arguments

    add_arguments(commands)
