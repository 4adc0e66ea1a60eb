"""`darkroom generate`: pictures from prompts."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.cli.arguments import SAVING, USUAL_NAME, Saving, a_path, add_prompt, add_settings, add_size
from darkroom.cli.asked import Asked, area, each, gather, layered, requested
from darkroom.cli.parser import Parser
from darkroom.cli.progress import loading_bar
from darkroom.cli.settings import SETTINGS_FILE, add_settings_file, user_file
from darkroom.cli.variants import add_variant_options, choosing_of, of_variants, save_choice, watched
from darkroom.cli.words import aside
from darkroom.errors import DarkroomError
from darkroom.files import as_json, portable
from darkroom.generation.checks import called
from darkroom.generation.parts import Canvas, next_seed
from darkroom.generation.request import PARTS, Request
from darkroom.loading import LOADING, Loading

if TYPE_CHECKING:
    from PIL import Image

    from darkroom.cli.files import Files
    from darkroom.generation import Picture
    from darkroom.model import Model
    from darkroom.ranking.options import Choosing

INTERRUPTED = 130


def add(commands: argparse._SubParsersAction[Parser]) -> None:
    command = commands.add_parser(
        "generate",
        help="make pictures of a prompt",
        description="Make pictures of a prompt, one file each.",
    )
    command.closing = _closing
    add_prompt(
        command, "what the picture should show; - reads prompts from standard input, as --prompts does"
    )
    command.add_argument(
        "--prompts",
        type=a_path,
        metavar="FILE",
        help="a text file with a prompt a line (lines that begin with # are left out, a space before it keeps them), a "
        "JSONL file with an object of settings a line, or a JSON list of prompts and such objects; - is standard input",
    )
    command.add_argument(
        "--like",
        type=a_path,
        metavar="PICTURE",
        help="start from all that a picture's file says of how it was made, by Darkroom, A1111, ComfyUI or InvokeAI; "
        "what else is given is changed",
    )
    add_picture_options(command)
    add_variant_options(command)
    add_loading_options(command)
    add_file_options(command)
    command.set_defaults(run=run)


def add_file_options(command: argparse.ArgumentParser) -> None:
    """The options of the files that are written, of what is told of them, and of what settings stand elsewhere."""
    add_settings(command.add_argument_group("the files"), SAVING.values())
    add_settings_file(command)
    command.add_argument(
        "--json",
        action="store_true",
        help="print JSON, an object a file: its path, and a picture's seed and metadata",
    )
    command.add_argument("--quiet", action="store_true", help="no progress bar, only the names of the files")


def _closing() -> str:
    """What the embedded model has in place of what is not asked for, and where settings may stand."""
    from darkroom.library.describe import describe
    from darkroom.library.locate import locate

    usual = ""
    with suppress(DarkroomError):
        found = describe(locate(model := Loading().model))
        named = ", ".join(f"{name} {value}" for name, value in found.defaults.items())
        size = f"{found.native_size}x{found.native_size} pixels"
        usual = f"What is left open is as the model has it: for {model} {size}, {named}; 'darkroom inspect NAME' says "
        usual += "it of others. "
    return (
        f"{usual}What is always to be so stands in the environment (DARKROOM_STEPS=30), in the folder's "
        f"{SETTINGS_FILE} or in {portable(user_file())}, table [generate]; the command line goes first, and 'darkroom "
        "doctor' shows what counts."
    )


def add_picture_options(command: argparse.ArgumentParser, but: Collection[str] = ()) -> None:
    """The options that are settings of a request, those of each part together, `but` some."""
    own = [each for each in dataclasses.fields(Request) if each.metadata.get("help")]
    groups = {"the picture": own}
    groups |= {part.title: [*dataclasses.fields(part)] for part in PARTS.values()}
    for title, settings in groups.items():
        group = command.add_argument_group(title)
        if title == Canvas.title and "width" not in but:
            add_size(group)
        add_settings(group, [each for each in settings if called(each) not in but])


def add_loading_options(command: argparse.ArgumentParser, but: str | None = None) -> None:
    """The options of which model runs, where and how, `but` one."""
    running = command.add_argument_group("where it runs")
    add_settings(running, [each for name, each in LOADING.items() if name != but])


def run(args: argparse.Namespace) -> int:
    if args.like is None:
        loading, saving, settings = gather(args)
        return made(args, loading, saving, requested(args, of_variants(settings, args)))
    from darkroom.cli.like import recipe_of

    layers = layered(args)
    options, request = recipe_of(args.like, args.model)
    loading, saving, settings = layers.over(options | request.flat())
    usual = settings.pop("prompt")
    return made(args, loading, saving, requested(args, of_variants(settings, args), usual))


def made(
    args: argparse.Namespace,
    loading: Loading,
    saving: Saving,
    asked: Sequence[Asked],
    usual: str = USUAL_NAME,
    rounds: int = 1,
) -> int:
    """Make the pictures that are asked for, and tell their files, which have the `usual` name where no other is said.
    In several rounds each is then the picture that the same is asked of. Returns the exit status."""
    began = time.perf_counter()
    if (choosing := choosing_of(args)) is not None:
        saving = dataclasses.replace(saving, grid=False)  # A sheet of all there is anyhow.
    from darkroom.cli.files import Files

    files = Files.of(saving, usual)
    from darkroom.model import load

    started = time.perf_counter()
    with loading_bar(args.quiet) as progress:
        model = load(loading, expecting=max((one.request for one in asked), key=area), progress=progress)
    settled = looked_at(model, [(one.where, one.request) for one in asked], files, saving.grid, args.quiet)
    loaded = time.perf_counter()
    if choosing is not None:
        status = choose_each(model, [one.request for one in asked], choosing, files, args)
        if not args.quiet:
            _report(model, loaded - started, time.perf_counter() - began)
        return status
    kept: list[tuple[Path, int]] = []
    requests = _in_rounds([one.request for one in asked], rounds, kept)
    grid: list[Picture] = []  # Kept for the sheet alone: memory is not to grow with the count.
    try:
        for path, picture in saved(model, requests, files, args):
            kept.append((path, picture.seed))
            if saving.grid:
                grid.append(picture)
    except (KeyboardInterrupt, DarkroomError) as error:
        total = rounds * sum(one.count for one in settled)
        said = f"{len(kept)} of {total} pictures are in {files.folder}"
        if isinstance(error, DarkroomError):
            if total > 1:
                print(f"darkroom: {said}", file=sys.stderr)
            raise
        print(f"\ndarkroom: interrupted, {said}", file=sys.stderr)
        return INTERRUPTED
    if grid:
        save_sheet([picture.image for picture in grid], grid[0].seed, files, args)
    if not args.quiet:
        _report(model, loaded - started, time.perf_counter() - began)
        if files.format == "png" and files.metadata:
            print(f"make it again: darkroom again {shlex.quote(str(kept[0][0]))}", file=sys.stderr)
    return 0


def choose_each(
    model: Model, requests: Sequence[Request], choosing: Choosing, files: Files, args: argparse.Namespace
) -> int:
    """Choose among variants of each request, and tell the files. Returns the exit status."""
    kept: list[Path] = []
    for request in requests:
        with watched(choosing, args.quiet) as (callback, stopped):
            choice = model.choose(request, **vars(choosing), callback=callback)
        kept += save_choice(choice, files, args, model.name, len(kept))
        if stopped.is_set():
            finished = sum(each.picture is not None for each in choice.variants)
            print(
                f"darkroom: interrupted, of {choosing.variants} variants {finished} are finished",
                file=sys.stderr,
            )
            return INTERRUPTED
    return 0


def _in_rounds(
    requests: Iterable[Request], rounds: int, kept: Sequence[tuple[Path, int]]
) -> Iterator[Request]:
    """Requests, each followed by the same of what was made of it, which is by then the last of the files that are
    `kept`, with its seed."""
    for request in requests:
        yield request
        for _ in range(rounds - 1):
            path, seed = kept[-1]
            yield request.replace(image=str(path), seed=next_seed(seed))


def looked_at(
    model: Model, rows: Sequence[tuple[str, Request]], files: Files | None, grid: bool, quiet: bool
) -> list[Request]:
    """Requests, each with where it stands, as they will be made. Raises the mistakes of all of them before the first is
    begun, also what their `files`, if each has one, and a sheet of them have no room for."""
    for note in () if quiet else model.notes:
        aside(model.name, note)
    settled: list[Request] = each(lambda _, request: model.settle(request), rows)
    if files is None:
        return settled
    for one in settled:
        files.check_place(one.single(0), model.name)
    if files.limited:
        each(lambda _, request: files.check(*model.foretold(request)), rows)
    if grid:
        files.check_grid(
            sum(one.count for one in settled),
            max(one.canvas.width or 0 for one in settled),
            max(one.canvas.height or 0 for one in settled),
        )
    return settled


def saved(
    model: Model, requests: Iterable[Request], files: Files, args: argparse.Namespace
) -> Iterator[tuple[Path, Picture]]:
    """The pictures of some requests as they are finished, each with its file, which is told as `args` wants it."""
    from tqdm import tqdm

    from darkroom.cli.files import told

    for index, picture in enumerate(developed(model, requests, args.quiet)):
        path = files.save(picture, index, model.name)
        with tqdm.external_write_mode():
            print(told(path, picture, args.json), flush=True)
        yield path, picture


def save_sheet(images: Sequence[Image.Image], seed: int, files: Files, args: argparse.Namespace) -> None:
    """Write one sheet of all pictures, and tell its file."""
    sheet = files.save_grid([*images], seed)
    print(as_json({"path": str(sheet), "grid": True}) if args.json else sheet)


def developed(model: Model, requests: Iterable[Request], quiet: bool) -> Iterator[Picture]:
    """The pictures of some requests as they are finished, with a bar of the steps, and what is to be said of them."""
    from tqdm import tqdm

    from darkroom.generation import Picture

    with tqdm(total=0, unit="step", disable=quiet or None, dynamic_ncols=True, leave=False) as bar:
        noted: set[str] = set()
        for request in requests:
            expected: dict[int, int] = {}
            for event in model.stream(request):
                if isinstance(event, Picture):
                    yield event
                    for note in () if quiet else event.metadata["notes"]:
                        if note not in noted:
                            with tqdm.external_write_mode():
                                aside("note", note)
                        noted.add(note)
                    continue
                # Every picture takes as many as the first, as far as is known until more is known of it.
                if not expected:
                    expected = dict.fromkeys(range(request.count), event.total)
                    bar.total += sum(expected.values())
                bar.total += event.total - expected.get(event.index, event.total)
                expected[event.index] = event.total
                bar.set_description(f"seed {event.seed}", refresh=False)
                bar.update()


def _report(model: Model, loading: float, total: float) -> None:
    """How long each stage took."""
    stages = {"load": loading, **model.engine.seconds}
    parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in stages.items())
    print(
        f"{parts}, whole {total:.1f} s on {model.placement.device} in {model.placement.precision}",
        file=sys.stderr,
    )
