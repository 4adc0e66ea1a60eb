"""`darkroom generate`: pictures from prompts."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.cli.arguments import a_path, add_settings
from darkroom.cli.asked import SETTINGS_FILE, area, each, gather, requested
from darkroom.cli.progress import loading_bar
from darkroom.errors import DarkroomError
from darkroom.generation.request import PARTS, Request
from darkroom.loading import LOADING

if TYPE_CHECKING:
    from darkroom.generation import Picture
    from darkroom.model import Model

INTERRUPTED = 130


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
        type=a_path,
        metavar="FILE",
        help="a text file with a prompt a line (lines that begin with # are left out, a space before it keeps them), a "
        "JSONL file with an object of settings a line, or a JSON list of prompts and such objects; - is standard input",
    )
    add_picture_options(command)
    add_loading_options(command)
    files = command.add_argument_group("the files")
    files.add_argument(
        "--output",
        metavar="PATH",
        help="folder for the pictures (default: out), or the file of one: boat.png, .jpg, .webp",
    )
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
        "--settings", type=a_path, metavar="FILE", help=f"settings file (default: ./{SETTINGS_FILE})"
    )
    command.add_argument("--quiet", action="store_true", help="no progress bar, only the names of the files")
    command.set_defaults(run=run)


def add_picture_options(command: argparse.ArgumentParser) -> None:
    """The options that are settings of a request, those of each part together."""
    own = [each for each in dataclasses.fields(Request) if each.metadata.get("help")]
    add_settings(command.add_argument_group("the picture"), own)
    for part in PARTS.values():
        add_settings(command.add_argument_group(part.title), dataclasses.fields(part))


def add_loading_options(command: argparse.ArgumentParser, but: str | None = None) -> None:
    """The options of which model runs, where and how, `but` one."""
    running = command.add_argument_group("where it runs")
    add_settings(running, [each for name, each in LOADING.items() if name != but])


def run(args: argparse.Namespace) -> int:
    began = time.perf_counter()
    loading, options, settings = gather(args)
    asked = requested(args, settings)
    from darkroom.cli.files import Files

    files = Files.of(options)
    from tqdm import tqdm

    from darkroom.model import load

    started = time.perf_counter()
    with loading_bar(args.quiet) as progress:
        model = load(loading, expecting=max((one.request for one in asked), key=area), progress=progress)
    for note in () if args.quiet else model.notes:
        print(f"{model.name}: {note}", file=sys.stderr)
    rows = [(one.where, one.request) for one in asked]
    settled = each(lambda _, request: model.settle(request), rows)
    for one in settled:
        files.check_place(one.single(0), model.name)
    if files.limited:
        each(lambda _, request: files.check(*model.foretold(request)), rows)
    if options["grid"]:
        files.check_grid(
            sum(one.count for one in settled),
            max(one.canvas.width or 0 for one in settled),
            max(one.canvas.height or 0 for one in settled),
        )
    loaded = time.perf_counter()
    requests = [one.request for one in asked]
    paths: list[Path] = []
    grid: list[Picture] = []  # Kept for the sheet alone: memory is not to grow with the count.
    try:
        for picture in _developed(model, requests, args.quiet):
            paths.append(files.save(picture, len(paths), model.name))
            with tqdm.external_write_mode():
                print(paths[-1], flush=True)
            if options["grid"]:
                grid.append(picture)
    except (KeyboardInterrupt, DarkroomError) as error:
        total = sum(one.count for one in settled)
        kept = f"{len(paths)} of {total} pictures are in {files.folder}"
        if isinstance(error, DarkroomError):
            if total > 1:
                print(f"darkroom: {kept}", file=sys.stderr)
            raise
        print(f"\ndarkroom: interrupted, {kept}", file=sys.stderr)
        return INTERRUPTED
    if grid:
        paths.append(files.save_grid([picture.image for picture in grid], grid[0].seed))
        print(paths[-1])
    if not args.quiet:
        _report(model, loaded - started, time.perf_counter() - began, paths)
    return 0


def _developed(model: Model, requests: Sequence[Request], quiet: bool) -> Iterator[Picture]:
    """The pictures of some requests as they are finished, with a bar of the steps."""
    from tqdm import tqdm

    from darkroom.generation import Picture

    with tqdm(total=0, unit="step", disable=quiet or None, dynamic_ncols=True, leave=False) as bar:
        for request in requests:
            expected = 0
            for event in model.stream(request):
                if isinstance(event, Picture):
                    yield event
                    continue
                if not expected:
                    expected = event.total * request.count
                    bar.total += expected
                bar.set_description(f"seed {event.seed}", refresh=False)
                bar.update()


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
