"""`darkroom evaluate`: how well a model draws what it is told."""

from __future__ import annotations

import argparse


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from darkroom.world.evaluate import add_arguments

    add_arguments(commands)
