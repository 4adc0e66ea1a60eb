"""`darkroom samplers`, `info` and `doctor`: what is there, and how it is doing."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from darkroom.cli.arguments import a_path
from darkroom.files import as_json

if TYPE_CHECKING:
    from darkroom.diffusion import Option


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    samplers = commands.add_parser("samplers", help="list samplers and noise schedules")
    samplers.set_defaults(run=show_samplers)
    guides = commands.add_parser("guides", help="list ways of guiding, with their options")
    guides.set_defaults(run=show_guides)
    info = commands.add_parser("info", help="print what a picture's file says of how it was made")
    info.add_argument("picture", type=a_path, help="a picture made by Darkroom")
    info.set_defaults(run=show_info)
    doctor = commands.add_parser("doctor", help="look at this machine: versions, devices, precision, models")
    doctor.set_defaults(run=show_doctor)


def show_samplers(args: argparse.Namespace) -> int:
    from darkroom.diffusion import SAMPLERS, SCHEDULES

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

    print("ways of guiding (--guide NAME:option=value,...), beside --guidance and --guidance-rescale")
    for name, guide in GUIDES.items():
        print(f"  {name:10} {guide.label}: {guide.description}")
        _print_options(name, guide.options, 10)
    return 0


def _print_options(name: str, options: Mapping[str, Option], indent: int = 25) -> None:
    """What may be written behind a name, each option as it is anyhow."""
    if options:
        pairs = ",".join(f"{option}={each.written()}" for option, each in options.items())
        print(f"  {'':{indent}} {name}:{pairs}")


def show_info(args: argparse.Namespace) -> int:
    from darkroom.generation.picture import metadata_of

    print(as_json(metadata_of(args.picture), 2))
    return 0


def show_doctor(args: argparse.Namespace) -> int:
    import torch

    from darkroom.engine import describe, devices, place
    from darkroom.engine.devices import cpu_features
    from darkroom.library.locate import available

    rows = [
        ("darkroom", version("darkroom")),
        ("python", f"{platform.python_version()} at {sys.executable}"),
        ("system", platform.platform()),
        *((name, _version(name)) for name in ("torch", "numpy", "pillow", "safetensors")),
        ("processor", describe(torch.device("cpu"))),
        ("cores", f"{os.cpu_count()}, torch uses {torch.get_num_threads()}"),
        ("instructions", ", ".join([torch.backends.cpu.get_cpu_capability(), *cpu_features()])),
        ("memory", _memory()),
    ]
    rows += [(f"device {name}", _device(name)) for name in devices()]
    chosen = place()
    rows.append(("chosen", f"{chosen.device} in {chosen.precision}: {chosen.why}"))
    models = available()
    more = f" and {len(models) - 8} more" if len(models) > 8 else ""
    rows.append(("models", f"{', '.join([*models][:8])}{more}" or "none: give --model a folder"))
    for name, value in rows:
        print(f"{name:14} {value}")
    return 0 if models else 1


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing: run pip install darkroom"


def _memory() -> str:
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = (os.sysconf(name) * page / 2**30 for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    except (ValueError, OSError, AttributeError):
        return "unknown"
    return f"{total:.1f} GiB, {free:.1f} GiB free"


def _device(name: str) -> str:
    import torch

    from darkroom.engine import describe

    device = torch.device(name)
    if device.type != "cuda":
        return describe(device)
    free, total = (number / 2**30 for number in torch.cuda.mem_get_info(device))
    return f"{describe(device)}, {total:.1f} GiB, {free:.1f} GiB free"
