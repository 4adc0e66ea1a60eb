"""Several variants of a picture on a command line: the options, the bar, and the files of what was chosen."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.cli.arguments import add_settings
from darkroom.cli.words import tell_notes
from darkroom.errors import InvalidRequest
from darkroom.files import as_json, write_numbered
from darkroom.ranking.options import CHOOSING, Choosing

if TYPE_CHECKING:
    from darkroom.cli.files import Files
    from darkroom.ranking.variants import Choice
    from darkroom.series import Callback, Step


def add_variant_options(command: argparse.ArgumentParser) -> None:
    """The options of choosing among variants."""
    add_settings(command.add_argument_group("variants"), CHOOSING.values())


def of_variants(settings: dict[str, Any], args: argparse.Namespace) -> dict[str, Any]:
    """Settings without a count that stands elsewhere than on the command line: of variants there are as many as is said
    of those."""
    if getattr(args, "variants", None) is not None and args.count is None:
        return {name: value for name, value in settings.items() if name != "count"}
    return settings


def choosing_of(args: argparse.Namespace, always: bool = False) -> Choosing | None:
    """How pictures are to be chosen; None where no variants are asked for. Raises InvalidRequest for what else is said
    of them then, and for what cannot be."""
    given = {name: value for name in CHOOSING if (value := getattr(args, name, None)) is not None}
    if "variants" not in given and not always:
        if given:
            raise InvalidRequest(f"`{next(iter(given))}=` is of variants: say how many with `variants=`")
        return None
    return Choosing(**given).checked()


@contextmanager
def watched(choosing: Choosing, quiet: bool) -> Iterator[tuple[Callback, threading.Event]]:
    """A bar of the steps of variants, as a callback, and whether Ctrl-C ended them, with what is finished by then."""
    from tqdm import tqdm

    from darkroom.ranking.halting import halts_after

    stopped = threading.Event()
    with _on_interrupt(stopped.set), tqdm(unit="step", disable=quiet or None, leave=False) as bar:

        def told(step: Step) -> bool:
            looks, _ = halts_after(step.total, choosing.look_after)
            if choosing.finished == choosing.variants or looks > step.total:
                total = choosing.variants * step.total
            else:
                total = choosing.variants * looks + choosing.finished * (step.total - looks)
            bar.total = max(total, bar.n + 1)  # Those that cannot be looked at halfway are all finished.
            bar.set_description(f"variant {step.index + 1}", refresh=False)
            bar.update()
            return not stopped.is_set()

        yield told, stopped


@contextmanager
def _on_interrupt(told: Callable[[], object]) -> Iterator[None]:
    """Within which the first Ctrl-C is told, and the second one is what it always is."""
    before = signal.getsignal(signal.SIGINT)

    def once(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        told()

    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield  # Nobody interrupts it, or it is not for this thread to say.
        return
    signal.signal(signal.SIGINT, once)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def save_choice(choice: Choice, files: Files, args: argparse.Namespace, model: str, first: int) -> list[Path]:
    """Write what was kept, the sheet of all variants and their ranking; tell the files, and the ranking for people.
    `first`: the index of the first picture among all of a run."""
    from darkroom.cli.files import told

    paths = [files.save(picture, first + number, model) for number, picture in enumerate(choice.kept)]
    for path, picture in zip(paths, choice.kept, strict=True):
        print(told(path, picture, args.json), flush=True)
    if choice.variants:
        seed = min(each.request.seed or 0 for each in choice.variants)
        sheet = files.write_sheet(choice.sheet(), f"{seed}-variants")
        ranking = {**choice.to_dict(), "kept": [str(path) for path in paths]}
        table = write_numbered(sheet.with_suffix(".json"), f"{as_json(ranking, 2)}\n".encode())
        both = {"path": str(sheet), "grid": True, "ranking": str(table)}
        print(as_json(both) if args.json else f"{sheet}\n{table}", flush=True)
    if not args.quiet:
        tell_notes(choice.notes)
        print("\n".join([f"ranked by {choice.judge}:", *choice.lines()]), file=sys.stderr)
    return paths
