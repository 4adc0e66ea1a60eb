"""`darkroom inspect` and `darkroom convert`: what model files are, and the same model in another layout."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from darkroom.cli.arguments import a_path
from darkroom.cli.progress import byte_bar
from darkroom.cli.words import in_options, tell_notes
from darkroom.files import as_json

if TYPE_CHECKING:
    from darkroom.library.describe import Description

_GIB = 2**30


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    inspect = commands.add_parser(
        "inspect",
        help="say what a model file or folder is",
        description="Say what a model file or folder is, from its header alone: family, what it predicts and how that "
        "was found, networks, precision, size, metadata, what is missing. Nothing in the file is executed.",
    )
    inspect.add_argument("model", nargs="+", help="a file, a folder, or a model's name")
    inspect.add_argument(
        "--hash", action="store_true", help="also read it whole for its SHA-256, A1111 and AutoV2 hashes"
    )
    inspect.add_argument("--json", action="store_true", help="print JSON, an object a line")
    inspect.set_defaults(run=run_inspect)
    convert = commands.add_parser(
        "convert",
        help="write a model in another layout or precision",
        description="Write a model as a single .safetensors file or as a Hugging Face folder, whichever OUT names, bit "
        "for bit or in another precision. One tensor is in memory at a time.",
    )
    convert.add_argument("model", help="a file, a folder, or a model's name")
    convert.add_argument("out", type=a_path, help="FILE.safetensors, or a folder that is not there yet")
    convert.add_argument("--precision", help="float32, bfloat16 or float16 (default: as they are)")
    convert.add_argument(
        "--prune",
        action="store_true",
        help="leave out averages, training state and whatever else no network needs",
    )
    convert.add_argument("--vae", type=a_path, help="put this autoencoder in place of the model's")
    convert.add_argument(
        "--prediction", help="what the model predicts, if the file does not say: epsilon, v_prediction"
    )
    convert.set_defaults(run=run_convert)


def run_inspect(args: argparse.Namespace) -> int:
    from darkroom.library.describe import describe
    from darkroom.library.kinds import KINDS
    from darkroom.library.locate import locate

    for number, model in enumerate(args.model):
        found = describe(locate(model, *KINDS), args.hash)
        if args.json:
            print(as_json(found.to_dict()))
        else:
            print("\n" * bool(number) + as_text(found))
    return 0


def as_text(found: Description) -> str:
    """A description in lines of name and value."""
    rows = [("file", f"{found.path}: {found.form}, {found.size / _GIB:.2f} GiB")]
    if found.family:
        rows += [("family", found.family), ("predicts", found.predicts)]
        side = found.native_size
        rows += [("native size", f"{side}x{side} pixels; sides are multiples of {found.unit}")]
        rows += [("defaults", ", ".join(f"{name} {value}" for name, value in found.defaults.items()))]
    for network in found.networks:
        numbers = f"{network.numbers / 1e6:,.1f} M numbers in {', '.join(network.precisions)}"
        rows.append((network.role, f"{network.what}: {numbers}"))
    rows += [("missing", ", ".join(found.missing))] if found.missing else []
    rows += [("note", in_options(note)) for note in found.notes]
    sizes = ", ".join(f"{size / _GIB:.2f} GiB in {name}" for name, size in found.memory.items())
    rows.append(("weights take", sizes))
    for name, value in found.metadata.items():
        text = " ".join(value.split())
        rows.append((name, text if len(text) <= 200 else text[:200] + " ..."))
    for file, digest in found.hashes.items():
        rows.append((f"sha256 {file}", f"{digest} (A1111 {digest[:10]}, AutoV2 {digest[:10].upper()})"))
    return "\n".join(f"{name:16} {value}" for name, value in rows)


def run_convert(args: argparse.Namespace) -> int:
    from darkroom.checkpoint.beside import lone_part
    from darkroom.checkpoint.export import convert, convert_part
    from darkroom.checkpoint.opening import open_source
    from darkroom.checkpoint.source import noted
    from darkroom.engine.devices import precision_of
    from darkroom.library.locate import OF_A_VAE, locate
    from darkroom.networks.roles import Role

    dtype = None if args.precision is None else precision_of(args.precision)
    out, path = args.out, locate(args.model, "model", "vae", "text-encoder")
    with ExitStack() as opened:
        bar = partial(opened.enter_context(byte_bar()), out.name)
        vae = None if args.vae is None else locate(args.vae, *OF_A_VAE)
        if alone := lone_part(path, opened, () if vae is None else (Role.VAE,)):
            part = alone.parts[0]
            convert_part(part, out, dtype, bar, alone.tokenizers.get(part.role))
            notes = (
                []
                if part.described
                else [f"nothing says how this {part.component.label} is used: the usual is assumed"]
            )
        else:
            source = opened.enter_context(open_source(path, prediction=args.prediction, vae=vae))
            convert(source, out, dtype, args.prune, bar)
            notes = [*noted(source).notes]
    tell_notes(notes)
    print(out)
    return 0
