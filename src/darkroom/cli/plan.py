"""`darkroom plan`: what pictures would take of a machine, before anything is loaded."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from darkroom.cli.arguments import add_prompt
from darkroom.cli.asked import gather, one_request
from darkroom.cli.generate import add_loading_options, add_picture_options
from darkroom.cli.settings import add_settings_file
from darkroom.errors import InvalidRequest

if TYPE_CHECKING:
    from darkroom.forecast.forecast import Forecast

_GIB = 2**30


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "plan",
        help="foretell the memory and the time that pictures take",
        description="Foretell the most memory and the time that a picture takes in each memory mode, from the model's "
        "headers and a second's measurement of this machine. Nothing is loaded.",
    )
    add_prompt(command, "what the picture should show, where that counts: LoRAs, parts joined by AND")
    add_picture_options(command)
    add_loading_options(command)
    command.add_argument(
        "--gpu-memory",
        metavar="SIZE",
        help="what there is of memory, such as 8GB: say which mode suffices (same as --memory SIZE)",
    )
    command.add_argument("--json", action="store_true", help="print JSON")
    add_settings_file(command)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    loading, _, settings = gather(args)
    from darkroom.assembly import open_model
    from darkroom.engine.devices import place
    from darkroom.engine.memory import MODES, memory_mode
    from darkroom.forecast.forecast import Forecaster
    from darkroom.forecast.speed import measure
    from darkroom.numeric import parse_size

    asked = args.gpu_memory or loading.memory
    limit = parse_size(asked)
    if limit is None and args.gpu_memory:
        raise InvalidRequest(f"--gpu-memory is {asked!r}: give a size, such as 8GB")
    if limit is None:
        memory_mode(asked)  # Raises for an unknown one.
    placement = place(loading.device, loading.precision)
    with open_model(loading) as opened:
        request = opened.settle(one_request(args, settings, usual=""))
        forecaster = Forecaster(opened, placement, request)
        speed = measure(placement)
        found = [forecaster.forecast(mode, speed) for mode in MODES]
        chosen = asked if limit is None else forecaster.fitting(limit).mode
    count = request.count
    if args.json:
        print(json.dumps({"chosen": chosen, "count": count, "modes": [each.to_dict() for each in found]}))
        return 0
    for line in as_text(found, chosen, count):
        print(line)
    if request.detail.details:
        print("of its details, each is taken to find one thing")
    print(f"on {placement.device} in {placement.precision}: {placement.why}")
    return 0


def as_text(found: list[Forecast], chosen: str, count: int) -> list[str]:
    """The forecasts in lines."""
    first = found[0]
    weights = ", ".join(f"{role} {size / _GIB:.2f}" for role, size in first.weights.items())
    lines = [f"weights, GiB: {weights}", f"{'mode':10} {'peak memory':>12} {'a picture':>12} {'all':>10}"]
    for each in found:
        seconds: Any = sum(each.seconds.values())
        mark = "  <- chosen" if each.mode == chosen else ""
        lines.append(
            f"{each.mode:10} {each.peak / _GIB:>8.2f} GiB {seconds:>10.1f} s {count * seconds:>8.1f} s{mark}"
        )
    steps = ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in found[0].seconds.items())
    return [*lines, f"of which in mode {first.mode}: {steps}"]
