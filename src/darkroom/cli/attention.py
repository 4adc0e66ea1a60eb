"""`darkroom attention`: where in a picture each word of its prompt was read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from darkroom.cli.again import add_instead, made_again
from darkroom.cli.arguments import a_path, spelt
from darkroom.errors import InvalidRequest
from darkroom.files import write_numbered


def add(commands: argparse._SubParsersAction[Any]) -> None:
    command = commands.add_parser(
        "attention",
        help="show where in a picture each word of its prompt was read",
        description="Make a picture again from its file, and write a sheet of it with the attention that each word of "
        "its prompt had: from dark, where the word was read least, to bright, where it was read most.",
    )
    command.add_argument("picture", type=a_path, help="a picture made by Darkroom")
    command.add_argument(
        "--word",
        action="append",
        default=[],
        metavar="TEXT",
        help="a word of the prompt, or several that follow one another; may be repeated (default: every word)",
    )
    command.add_argument(
        *spelt("output"),
        type=a_path,
        metavar="FILE",
        help="the sheet (default: NAME-attention.png beside the picture)",
    )
    command.add_argument(
        "--arrays", type=a_path, metavar="FILE", help="also write the numbers: words and maps, .npz"
    )
    add_instead(command)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from darkroom.cli.files import check_folder
    from darkroom.generation import Request, open_picture
    from darkroom.generation.picture import Picture, format_of

    picture: Path = args.picture
    output = args.output or picture.with_name(f"{picture.stem}-attention.png")
    format = format_of(output)
    check_folder(output.parent)
    if args.arrays is not None:
        check_folder(args.arrays.parent)
        if args.arrays.suffix != ".npz":
            raise InvalidRequest(f"--arrays {args.arrays}: they are written as .npz, name such a file")
    _, metadata = open_picture(picture)
    request = Request.from_dict(metadata["request"]).checked()
    text = " ".join(filter(None, (request.prompt, request.text.towards, request.text.prompt_3))).lower()
    if absent := [word for word in args.word if any(part not in text for part in word.lower().split())]:
        raise InvalidRequest(f"the prompt has no {absent[0]!r}: it is {request.prompt!r}")
    made = made_again(args, metadata, request, attention=True)
    assert made.attention is not None
    sheet = made.attention.sheet(made.image, args.word)
    print(write_numbered(output, Picture(sheet, made.seed, {}, "").encoded(format, metadata=False)))
    if args.arrays is not None:
        print(write_numbered(args.arrays, made.attention.encoded()))
    return 0
