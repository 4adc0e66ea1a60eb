"""`darkroom doctor`: this machine, what is on it, and what settings count here."""

from __future__ import annotations

import argparse
import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from darkroom.cli.settings import SETTINGS_FILE, Said, add_settings_file, heard, shown, strangers, user_file
from darkroom.cli.words import in_options
from darkroom.errors import InvalidRequest, ModelError
from darkroom.files import as_json
from darkroom.version import __version__

_PACKAGES = ("torch", "numpy", "pillow", "safetensors")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="look at this machine: versions, devices, precision, models, settings",
        description="Look at this machine: versions, devices, the precision chosen and why, models, and the settings "
        "that count here, with where each stands. Exit status 1: something is wrong.",
    )
    add_settings_file(doctor)
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    settings, problems = heard(args.settings)
    facts = _facts(settings, problems)
    unknown, files = strangers(), (args.settings or Path(SETTINGS_FILE), user_file())
    problems = [in_options(problem) for problem in problems]
    if args.json:
        told = {
            "settings": {name: _plain(each) for name, each in settings.items()},
            "settings_files": {shown(each): os.path.isfile(each) for each in files},
            "unknown": unknown,
            "problems": problems,
        }
        print(as_json({**facts, **told}, 2))
        return 1 if problems else 0
    for name, value in facts.items():
        for line in _lines(name, value):
            print(line)
    read = (f"{shown(each)}{'' if os.path.isfile(each) else ' (not there)'}" for each in files)
    print(f"{'settings':14} of the environment, {', '.join(read)}")
    for name, found in settings.items():
        print(f"  {name:12} {_in_words(found)}")
    for name, hint in unknown.items():
        print(f"{'unknown':14} {name} is read by nothing{hint and f': did you mean {hint}?'}")
    for problem in problems:
        print(f"{'problem':14} {problem}")
    return 1 if problems else 0


def _facts(settings: Mapping[str, list[Said]], problems: list[str]) -> dict[str, Any]:
    """What there is; what is wrong with it is added to the problems."""
    import torch

    from darkroom.engine import describe, devices, place
    from darkroom.engine.devices import cpu_features
    from darkroom.library.locate import available, locate

    wanted = {name: settings[name][0].value for name in ("device", "precision") if name in settings}
    try:
        chosen = place(**wanted)
    except InvalidRequest as error:
        problems.append(str(error))
        chosen = place()
    if "model" in settings:
        try:
            locate(settings["model"][0].value)
        except ModelError as error:
            problems.append(str(error))
    models = [*available()]
    if not models:
        problems.append("there is no model: give `model=` a folder, or see 'darkroom models --help'")
    return {
        "darkroom": __version__,
        "python": f"{platform.python_version()} at {sys.executable}",
        "system": platform.platform(),
        **{name: _version(name) for name in _PACKAGES},
        "processor": describe(torch.device("cpu")),
        "cores": f"{os.cpu_count()}, torch uses {torch.get_num_threads()}",
        "instructions": ", ".join([torch.backends.cpu.get_cpu_capability(), *cpu_features()]),
        "memory": _memory(),
        "devices": {name: _device(name) for name in devices()},
        "chosen": f"{chosen.device} in {chosen.precision}: {chosen.why}",
        "models": models,
    }


def _lines(name: str, value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{f'{name[:-1]} {key}':14} {each}" for key, each in value.items()]
    if isinstance(value, list):
        more = f" and {len(value) - 8} more" if len(value) > 8 else ""
        value = f"{', '.join(value[:8])}{more}" or "none"
    return [f"{name:14} {value}"]


def _in_words(found: list[Said]) -> str:
    """What counts of what is said of a setting, and what it goes before."""
    first, *others = (f"{as_json(each.value)} in {each.where}" for each in found)
    return f"{first}, instead of {', '.join(others)}" if others else first


def _plain(found: list[Said]) -> dict[str, Any]:
    first, *others = (vars(each) for each in found)
    return {**first, "instead_of": others}


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
