"""`darkroom evaluate`: how well a model draws what it is told."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.cli.arguments import a_path, a_size, add_settings
from darkroom.cli.asked import loading_given
from darkroom.cli.generate import add_loading_options
from darkroom.generation.request import SETTINGS

if TYPE_CHECKING:
    from darkroom.oracle.oracle import Oracle

INTERRUPTED = 130
_SETTINGS = ("steps", "guidance", "sampler", "schedule", "compose", "second_pass", "upscaler")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "evaluate",
        help="score a model on prompts it was never trained on",
        description="Generate pictures of prompts whose compositions training never showed, and let the "
        "oracle judge them: the six tasks of GenEval, then place, time and style. Beside each score stands "
        "the oracle's own on drawn pictures that are right. What was interrupted goes on where it stopped.",
    )
    command.add_argument(
        "model", nargs="?", default="pocket", help="a name or a folder (default: %(default)s)"
    )
    what = command.add_argument_group("what is asked")
    what.add_argument(
        "--tasks",
        metavar="LIST",
        help="some of single, two, counting, colours, position, attribution, place, time, style, with "
        "commas between (default: all)",
    )
    what.add_argument(
        "--prompts", type=int, default=50, metavar="N", help="prompts for each task (default: %(default)s)"
    )
    world = what.add_mutually_exclusive_group()
    world.add_argument("--core", action="store_true", help="only flat illustrations of plain places by day")
    world.add_argument(
        "--full", action="store_true", help="every style, place, time and weather (the default)"
    )
    what.add_argument("--seed", type=int, default=0, help="another number for other prompts and pictures")
    how = command.add_argument_group("how pictures are made (default: as the model prefers)")
    how.add_argument(
        "--size", type=a_size, metavar="N", help="the pictures' side in pixels, or WIDTHxHEIGHT: 256, 256x128"
    )
    add_settings(how, [SETTINGS[name] for name in _SETTINGS])
    add_loading_options(command, but="model")
    command.add_argument(
        "--output",
        type=a_path,
        metavar="DIR",
        help="folder for pictures and results (default: evaluation/MODEL)",
    )
    command.add_argument("--json", action="store_true", help="print the results as JSON")
    other = command.add_argument_group("judging the judge, instead of a model")
    other.add_argument(
        "--truth", action="store_true", help="score the oracle on drawn pictures, attribute by attribute"
    )
    other.add_argument(
        "--label",
        type=a_path,
        metavar="DIR",
        help="compare the oracle with a person: the first time, write sheets and a list to fill in for the "
        "evaluation in DIR; once it is filled in, count where they agree",
    )
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from darkroom.oracle.oracle import Oracle

    oracle = Oracle.load()
    if args.truth:
        from darkroom.evaluation.truth import report

        found = report(oracle, seed=args.seed)
        print(json.dumps(found.to_dict(), indent=2) if args.json else found.table())
        return 0
    if args.label:
        from darkroom.evaluation.labels import label

        print(label(args.label, oracle))
        return 0
    return _score(args, oracle)


def _score(args: argparse.Namespace, oracle: Oracle) -> int:
    from darkroom.evaluation.evaluate import Questions, evaluate
    from darkroom.model import load

    settings = {name: getattr(args, name) for name in _SETTINGS if getattr(args, name) is not None}
    if args.size is not None:
        settings["width"], settings["height"] = args.size
    tasks = tuple(name.strip() for name in (args.tasks or "").split(",") if name.strip())
    asked = Questions(tasks, args.prompts, args.core, args.seed, settings)
    model = load(loading_given(args))
    folder = args.output or Path("evaluation") / model.name
    results = evaluate(model, oracle, asked, folder, quiet=args.json)
    print(json.dumps(results.to_dict(), indent=1, ensure_ascii=False) if args.json else results.table())
    print(f"pictures, grid.png and results.json are in {folder}", file=sys.stderr)
    if not results.complete:
        print("interrupted: the same command goes on from here", file=sys.stderr)
    return 0 if results.complete else INTERRUPTED
