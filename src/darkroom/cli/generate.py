"""`darkroom generate`: pictures from prompts."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.cli.progress import loading_bar
from darkroom.errors import InvalidRequest, nearest
from darkroom.generation.request import Request

if TYPE_CHECKING:
    from darkroom.generation import Picture
    from darkroom.model import Model

SETTINGS_FILE = "darkroom.toml"
INTERRUPTED = 130

# What `generate` knows besides the fields of a request, with its defaults; all may stand in darkroom.toml.
_DEFAULTS: dict[str, Any] = {
    "model": "pocket",
    "device": "auto",
    "precision": "auto",
    "vae": None,
    "others": [],
    "prediction": None,
    "zero_snr": None,
    "variant": None,
    "t5": True,
    "refiner": None,
    "ensemble": [],
    "fuse": [],
    "memory": "full",
    "output": "out",
    "format": "png",
    "name": "{seed}-{prompt}",
    "grid": False,
    "metadata": True,
}

OPENING = ("vae", "others", "prediction", "zero_snr", "variant", "t5", "refiner", "ensemble")
"""Those that say which files a model is made of."""

LOADING = (*OPENING, "device", "precision", "fuse", "memory")
"""Those that `darkroom.load` takes."""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "generate",
        help="make pictures of a prompt",
        description="Make pictures of a prompt, one file each.",
        epilog=f"Settings may also stand in ./{SETTINGS_FILE}, table [generate]; the command line wins.",
    )
    command.add_argument("prompt", nargs="?", help="what the picture should show")
    command.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="a text file with a prompt a line, or a JSONL file with an object of settings a line",
    )
    add_picture_options(command)
    add_running_options(command)
    files = command.add_argument_group("the files")
    files.add_argument("--output", metavar="DIR", help="folder for the pictures (default: out)")
    files.add_argument("--format", help="png, jpeg or webp (default: png)")
    files.add_argument(
        "--name",
        metavar="TEMPLATE",
        help="file name, made of {seed} {prompt} {index} {model} {sampler} {steps} {width} {height} "
        "{guidance} {date} {time} (default: {seed}-{prompt})",
    )
    files.add_argument(
        "--grid", action="store_true", default=None, help="also write one sheet of all pictures"
    )
    files.add_argument(
        "--no-metadata",
        dest="metadata",
        action="store_false",
        default=None,
        help="write nothing but the pixels: the picture cannot be made again from its file",
    )
    command.add_argument(
        "--settings", type=Path, metavar="FILE", help=f"settings file (default: ./{SETTINGS_FILE})"
    )
    command.add_argument("--quiet", action="store_true", help="no progress bar, only the names of the files")
    command.set_defaults(run=run)


def add_picture_options(command: argparse.ArgumentParser) -> None:
    """The options that are fields of a request."""
    pictures = command.add_argument_group("the picture")
    for field in dataclasses.fields(Request):
        if "each" in field.metadata:
            pictures.add_argument(
                f"--{field.metadata['each']}",
                dest=field.name,
                action="append",
                metavar="NAME[:...]",
                help=f"{field.metadata['help']}; may be repeated",
            )
        elif "help" in field.metadata:
            kind = {"int": int, "float": float, "str": str}[str(field.type).split(" ")[0]]
            pictures.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=kind,
                choices=field.metadata.get("choices"),
                metavar=None if "choices" in field.metadata else {int: "N", float: "X", str: "TEXT"}[kind],
                help=field.metadata["help"],
            )


def add_running_options(command: argparse.ArgumentParser) -> None:
    """The options of which model runs, where and how."""
    running = command.add_argument_group("where it runs")
    running.add_argument(
        "--model", help="a name (see 'darkroom models'), a folder or a file (default: pocket)"
    )
    running.add_argument(
        "--vae", metavar="PATH", help="use this autoencoder (a name, a file, a folder) instead of the model's"
    )
    running.add_argument(
        "--with",
        dest="others",
        action="append",
        metavar="FILE",
        help="a name or a file with parts that the model's lacks, such as text encoders; may be repeated",
    )
    running.add_argument(
        "--prediction", help="what the model predicts, if its file does not say: epsilon, v_prediction"
    )
    running.add_argument(
        "--zero-snr",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether the model's noise schedule ends in pure noise, if its file does not say",
    )
    running.add_argument(
        "--refiner", metavar="PATH", help="a second model of Stable Diffusion XL, which makes the last steps"
    )
    running.add_argument(
        "--ensemble",
        action="append",
        metavar="MODEL[:...]",
        help="another model that makes steps with this one: MODEL:0.3 averages, MODEL:1:start=0.5 goes on from half "
        "the way, MODEL:1:every=2 takes turns; may be repeated",
    )
    running.add_argument(
        "--fuse",
        action="append",
        metavar="NAME[:...]",
        help="write a LoRA into the weights while loading: as --adapter, but no slower; may be repeated",
    )
    running.add_argument("--variant", help="which of a folder's files to read: fp16, bf16, ...")
    running.add_argument(
        "--t5",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether Stable Diffusion 3 reads prompts with its largest text encoder, too (default: it does)",
    )
    running.add_argument(
        "--device", help="cpu, cuda, cuda:1, mps or whatever torch offers (default: the best)"
    )
    running.add_argument("--precision", help="float32, bfloat16 or float16 (default: what suits the device)")
    running.add_argument(
        "--memory",
        help="full, medium, low or lowest, the less the slower; or what there is of it, such as 8GB "
        "(default: full; see 'darkroom plan')",
    )


def run(args: argparse.Namespace) -> int:
    began = time.perf_counter()
    options, settings = gather(args)
    requests = [request.checked() for request in requested(args, settings)]
    from darkroom.cli.files import Files

    files = Files(options["output"], options["format"], options["name"], options["metadata"])
    from darkroom.model import load

    started = time.perf_counter()
    with loading_bar(args.quiet) as progress:
        model = load(
            options["model"],
            **{name: options[name] for name in LOADING},
            expecting=max(requests, key=area, default=None),
            progress=progress,
        )
    for note in () if args.quiet else model.notes:
        print(f"{model.name}: {note}", file=sys.stderr)
    loaded = time.perf_counter()
    done: list[Picture] = []
    paths: list[Path] = []
    try:
        _develop(model, requests, files, done, paths, args.quiet)
    except KeyboardInterrupt:
        total = sum(request.count for request in requests)
        print(
            f"\ndarkroom: interrupted, {len(paths)} of {total} pictures are in {files.folder}",
            file=sys.stderr,
        )
        return INTERRUPTED
    if options["grid"] and done:
        paths.append(files.save_grid([picture.image for picture in done], done[0].seed))
        print(paths[-1])
    if not args.quiet:
        _report(model, loaded - started, time.perf_counter() - began, paths)
    return 0


def area(request: Request) -> int:
    """The pixels that a request asks for; 0 where it leaves that to the model."""
    return (request.width or 0) * (request.height or 0)


def gather(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, Any]]:
    """(options, request settings) from the command line over the settings file over the defaults."""
    fields = {field.name for field in dataclasses.fields(Request)} - {"prompt"}
    merged = {**_DEFAULTS, **settings_file(args.settings, fields | set(_DEFAULTS))}
    merged |= {
        name: value
        for name, value in vars(args).items()
        if value is not None and name in fields | set(_DEFAULTS)
    }
    options = {name: merged.pop(name) for name in _DEFAULTS}
    return options, merged


def settings_file(path: Path | None, known: set[str]) -> dict[str, Any]:
    """The [generate] table of a settings file; of the default one, if it is there."""
    chosen = path or Path(SETTINGS_FILE)
    if path is None and not chosen.is_file():
        return {}
    try:
        table = tomllib.loads(chosen.read_text("utf-8")).get("generate", {})
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot read the settings file {chosen}: {error}") from error
    for name in table:
        if name not in known:
            raise InvalidRequest(f"unknown setting {name!r} in {chosen}: {nearest(name, known)}")
    return dict(table)


def requested(args: argparse.Namespace, settings: dict[str, Any]) -> Iterator[Request]:
    """The requests of a command line: its prompt, and those of its prompts file."""
    if args.prompt is None and args.prompts is None:
        raise InvalidRequest("no prompt: say what the picture should show, or give --prompts FILE")
    if args.prompt is not None:
        yield Request.from_dict({**settings, "prompt": args.prompt})
    if args.prompts is None:
        return
    try:
        lines = args.prompts.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot read the prompts file {args.prompts}: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.startswith("#"):
            try:
                yield Request.from_dict({**settings, **_line(line, args.prompts.suffix)}).checked()
            except InvalidRequest as error:
                raise InvalidRequest(f"{args.prompts}, line {number}: {error}") from error


def _line(line: str, suffix: str) -> dict[str, Any]:
    if suffix.lower() not in (".jsonl", ".ndjson", ".json"):
        return {"prompt": line.strip()}
    try:
        values = json.loads(line)
    except ValueError as error:
        raise InvalidRequest(f"not JSON: {error}") from error
    if not isinstance(values, dict):
        raise InvalidRequest(f'{line.strip()[:40]!r} is no JSON object: write {{"prompt": ...}}')
    return values


def _develop(
    model: Model, requests: list[Request], files: Any, done: list[Picture], paths: list[Path], quiet: bool
) -> None:
    from tqdm import tqdm

    from darkroom.generation import Picture

    with tqdm(total=0, unit="step", disable=quiet or None, dynamic_ncols=True, leave=False) as bar:
        for request in requests:
            expected = 0
            for event in model.stream(request):
                if not isinstance(event, Picture):
                    if not expected:
                        expected = event.total * request.count
                        bar.total += expected
                    bar.set_description(f"seed {event.seed}", refresh=False)
                    bar.update()
                    continue
                paths.append(files.save(event, len(paths), model.name))
                done.append(event)
                with bar.external_write_mode():
                    print(paths[-1], flush=True)


def _report(model: Model, loading: float, total: float, paths: list[Path]) -> None:
    """How long each stage took, and what to type next."""
    stages = {"load": loading, **model.engine.seconds}
    parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in stages.items())
    print(
        f"{parts}, whole {total:.1f} s on {model.placement.device} in {model.placement.precision}",
        file=sys.stderr,
    )
    if paths and paths[0].suffix == ".png":
        print(f"make it again: darkroom again {_shell(paths[0])}", file=sys.stderr)


def _shell(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))
