"""`darkroom samplers`, `guides` and `info`: what there is to choose from, and what a picture's file says."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from darkroom.cli.arguments import a_path
from darkroom.errors import InvalidRequest
from darkroom.files import as_json

if TYPE_CHECKING:
    from darkroom.diffusion import Option


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    samplers = commands.add_parser("samplers", help="list samplers and noise schedules, with their options")
    samplers.set_defaults(run=show_samplers)
    guides = commands.add_parser("guides", help="list ways of guiding, with their options")
    guides.set_defaults(run=show_guides)
    for each in (samplers, guides):
        each.add_argument("--json", action="store_true", help="print JSON")
    info = commands.add_parser("info", help="print what a picture's file says of how it was made")
    info.add_argument("picture", type=a_path, help="a picture by Darkroom, A1111, ComfyUI or InvokeAI")
    info.set_defaults(run=show_info)


def show_samplers(args: argparse.Namespace) -> int:
    from darkroom.diffusion import SAMPLERS, SCHEDULES

    if args.json:
        print(as_json({"samplers": _plain(SAMPLERS, "stochastic"), "schedules": _plain(SCHEDULES)}, 2))
        return 0
    print("samplers (--sampler NAME:option=value,...); those marked ~ draw new noise at every step")
    for name, sampler in SAMPLERS.items():
        mark = "~" if sampler.stochastic else " "
        print(f"  {name:24}{mark} {sampler.label:22} {sampler.description}")
        _print_options(name, sampler.options)
    print("\nnoise schedules (--schedule NAME:option=value,...)")
    for name, schedule in SCHEDULES.items():
        print(f"  {name:24}  {schedule.label:22} {schedule.description}")
        _print_options(name, schedule.options)
    return 0


def show_guides(args: argparse.Namespace) -> int:
    from darkroom.diffusion import GUIDES

    if args.json:
        print(as_json({"guides": _plain(GUIDES)}, 2))
        return 0
    print("ways of guiding (--guide NAME:option=value,...), beside --guidance and --guidance-rescale")
    for name, guide in GUIDES.items():
        print(f"  {name:10} {guide.label}: {guide.description}")
        _print_options(name, guide.options, 10)
    return 0


def _plain(named: Mapping[str, Any], *more: str) -> dict[str, Any]:
    """What goes by names, as JSON has it: label, description, options, and `more` of each."""
    return {
        name: {
            **{said: getattr(each, said) for said in ("label", "description", *more)},
            "options": {option: one.to_dict() for option, one in each.options.items()},
        }
        for name, each in named.items()
    }


def _print_options(name: str, options: Mapping[str, Option], indent: int = 25) -> None:
    """What may be written behind a name, each option as it is anyhow."""
    if options:
        pairs = ",".join(f"{option}={each.written()}" for option, each in options.items())
        print(f"  {'':{indent}} {name}:{pairs}")


def show_info(args: argparse.Namespace) -> int:
    from darkroom.generation.picture import MadeElsewhere, after_of, metadata_of

    try:
        said = metadata_of(args.picture)
    except MadeElsewhere:
        from darkroom.recipes import read_recipe

        said = {"after": after} if (after := after_of(args.picture)) else {}
        try:
            said |= read_recipe(args.picture).to_dict()
        except InvalidRequest:
            if not after:
                raise
    print(as_json(said, 2))
    return 0
