"""`darkroom lora`: what LoRA files are, and others made of them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.cli.arguments import a_path
from darkroom.cli.progress import byte_bar
from darkroom.cli.words import tell_notes
from darkroom.errors import InvalidRequest
from darkroom.files import as_json
from darkroom.networks.roles import Role

if TYPE_CHECKING:
    from torch import nn

    from darkroom.adapters.describe import AdapterDescription
    from darkroom.adapters.truncated import Size
    from darkroom.adapters.written import Written

_MIB = 2**20
_NAMES = """\
A LoRA is named by its file, or by its name in the library, with how much of it there is to be:

  detail                    all of it
  detail:0.8                0.8 of it
  detail:0.8:te=0.2         0.8 in the denoising network, 0.2 in the text encoders
  detail:start=0.2:stop=0.7 on the steps from 20% to 70% of the way (in requests and prompts)
  detail:lbw=OUTALL         by block: a preset's name, or numbers with commas between
  detail:0.8:partial        what fits the model of one that does not fit it whole

In a prompt it stands in angle brackets: "a red boat <lora:detail:0.8>". So do hypernetworks: <hypernet:oil:0.5>.
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    lora = commands.add_parser(
        "lora",
        help="inspect, merge, resize, extract LoRAs, bake them into models",
        description="What LoRA files are, and others made of them.",
        epilog=_NAMES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = lora.add_subparsers(title="actions", metavar="ACTION")

    inspect = actions.add_parser(
        "inspect",
        help="say what a LoRA file is, and whether it fits a model",
        description="Say what a LoRA file is: kind, rank, networks, what its trainer wrote into it, its hashes; and "
        "whether it fits a model. Exit status 1: it does not.",
    )
    inspect.add_argument("lora", nargs="+", help="a file, a folder by PEFT or diffusers, or a name")
    inspect.add_argument("--model", help="also say whether it fits this model: a name, a folder or a file")
    inspect.add_argument("--json", action="store_true", help="print JSON, an object a line")
    inspect.set_defaults(run=run_inspect)

    bake = actions.add_parser(
        "bake",
        help="write a model with LoRAs in its weights",
        description="Write a model with LoRAs in its weights, as a file or folder that every program loads. One tensor "
        "is in memory at a time.",
    )
    bake.add_argument("model", help="a name, a folder or a file")
    bake.add_argument(
        "lora", nargs="+", help="LoRAs and their strengths: detail:0.8 (see 'darkroom lora --help')"
    )
    bake.add_argument(
        "--output", type=a_path, required=True, metavar="OUT", help="FILE.safetensors, or a new folder"
    )
    bake.add_argument("--precision", help="float32, bfloat16 or float16 (default: the model's)")
    bake.set_defaults(run=run_bake)

    extract = actions.add_parser(
        "extract",
        help="make a LoRA of the difference of two models",
        description="Make the LoRA that comes nearest to what a model has that its base has not, by singular values.",
    )
    extract.add_argument("tuned", help="the model whose difference is wanted: a name, a folder or a file")
    extract.add_argument("base", help="the model that it was made from")
    _add_size(extract, "rank 32")
    extract.add_argument(
        "--conv-rank", type=int, metavar="N", help="rank for 3x3 convolutions, 0 for none (default: --rank)"
    )
    extract.add_argument("--no-text", dest="text", action="store_false", help="leave the text encoders out")
    extract.add_argument("--norms", action="store_true", help="norms and biases too, as whole differences")
    extract.add_argument("--device", default="cpu", help="where it is computed (default: cpu)")
    _add_output(extract)
    extract.set_defaults(run=run_extract)

    merge = actions.add_parser(
        "merge",
        help="make one LoRA of several",
        description="Make one LoRA that does what several do: exactly, unless --rank or --keep bounds its size.",
    )
    merge.add_argument("lora", nargs="+", help="LoRAs and their strengths: detail:0.8 ink:0.5:te=0")
    merge.add_argument(
        "--model", help="a model they are for, which says how layers of different spellings go together"
    )
    _add_size(merge, "the sum of all ranks")
    _add_output(merge)
    merge.set_defaults(run=run_merge)

    resize = actions.add_parser(
        "resize",
        help="make a LoRA smaller, with the least loss",
        description="Write a LoRA with a smaller rank, by singular values, and say how much of it is lost.",
    )
    resize.add_argument("lora", help="a file, a folder by PEFT or diffusers, or a name")
    resize.add_argument("--model", help="a model it is for: needed for LoHa and LoKr")
    _add_size(resize, "")
    _add_output(resize)
    resize.set_defaults(run=run_resize)


def _add_size(command: argparse.ArgumentParser, default: str) -> None:
    said = f" (default: {default})" if default else ""
    command.add_argument("--rank", type=int, metavar="N", help=f"the rank of every layer, at most{said}")
    command.add_argument(
        "--keep",
        type=float,
        metavar="X",
        help="as small as keeps this share of every layer's squared length: 0.95",
    )


def _add_output(command: argparse.ArgumentParser) -> None:
    command.add_argument("--output", type=a_path, required=True, metavar="FILE", help="FILE.safetensors")
    command.add_argument(
        "--precision", default="float16", help="float32, bfloat16 or float16 (default: float16)"
    )


def run_inspect(args: argparse.Namespace) -> int:
    from darkroom.adapters.describe import describe_adapter

    fits = True
    with ExitStack() as opened:
        networks = opened.enter_context(_networks(args.model))
        for number, name in enumerate(args.lora):
            found = describe_adapter(_path(name), networks, str(args.model))
            fits &= found.fits is not False
            if args.json:
                print(as_json(found.to_dict()))
            else:
                print("\n" * bool(number) + as_text(found))
    return int(not fits)


def as_text(found: AdapterDescription) -> str:
    """A description in lines of name and value."""

    def listed(counts: Any) -> str:
        return ", ".join(f"{name} {count}" for name, count in counts.items())

    rows = [("file", f"{found.path}: {found.size / _MIB:.1f} MiB in {', '.join(found.precisions)}")]
    rows += [("made for", found.family)] if found.family else []
    rows += [("layers", listed(found.layers)), ("kinds", listed(found.kinds))]
    if found.ranks:
        low, high = found.ranks
        rows.append(("rank", str(high) if low == high else f"{low} to {high}"))
    rows += [("embeddings", ", ".join(found.embeddings))] if found.embeddings else []
    rows += found.about.rows()
    rows += [*found.said.items()]
    rows += [("not known", ", ".join(found.unknown[:5]))] if found.unknown else []
    rows += [("fit", found.fit)] if found.fit else []
    rows += [("by strength", f"{kind}: {rule}") for kind, rule in found.rules.items()]
    rows += [("not used", f"{count} layers: {why}") for why, count in found.unused.items()]
    rows.append(("sha256", f"{found.sha256} (AutoV2 {found.sha256[:10].upper()})"))
    rows += [("AutoV3", found.autov3)] if found.autov3 else []
    return "\n".join(f"{name:12} {value}" for name, value in rows)


def run_bake(args: argparse.Namespace) -> int:
    from darkroom.adapters.bake import bake
    from darkroom.checkpoint.opening import open_source
    from darkroom.engine.devices import precision_of
    from darkroom.library.locate import locate

    dtype = None if args.precision is None else precision_of(args.precision)
    with ExitStack() as opened:
        source = opened.enter_context(open_source(locate(args.model)))
        bar = opened.enter_context(byte_bar())
        notes = bake(
            source, args.lora, args.output, dtype, lambda done, total: bar(args.output.name, done, total)
        )
    tell_notes(notes)
    print(args.output)
    return 0


def run_extract(args: argparse.Namespace) -> int:
    from darkroom.adapters.extract import extract
    from darkroom.adapters.truncated import Size
    from darkroom.checkpoint.opening import open_source
    from darkroom.library.locate import locate

    size = _size(args) or Size(32)
    kernels = (
        size if args.conv_rank is None else Size(args.conv_rank, size.keep) if args.conv_rank > 0 else None
    )
    with ExitStack() as opened:
        tuned, base = (opened.enter_context(open_source(locate(each))) for each in (args.tuned, args.base))
        told = opened.enter_context(_layers_bar())
        made = extract(tuned, base, size, kernels, args.text, args.norms, args.device, told)
    return _save(args, made)


def run_merge(args: argparse.Namespace) -> int:
    return _merged(args, args.lora, _size(args))


def run_resize(args: argparse.Namespace) -> int:
    size = _size(args)
    if size is None:
        raise InvalidRequest("say how large it is to be: --rank 8, or --keep 0.95")
    return _merged(args, [args.lora], size)


def _merged(args: argparse.Namespace, loras: list[str], size: Size | None) -> int:
    from darkroom.adapters.merge import merge, parse_share

    with ExitStack() as opened:
        networks = opened.enter_context(_networks(args.model))
        told = opened.enter_context(_layers_bar())
        made = merge([parse_share(each) for each in loras], networks, size, told)
    return _save(args, made)


def _save(args: argparse.Namespace, made: Written) -> int:
    from darkroom.engine.devices import precision_of

    made.save(args.output, precision_of(args.precision))
    tell_notes(made.notes)
    ranks = sorted(made.ranks)
    size = f"{len(ranks)} layers of rank {ranks[0]} to {ranks[-1]}" if ranks else "no low-rank layers"
    print(f"{size}, {made.error:.1%} of the change is lost", file=sys.stderr)
    print(args.output)
    return 0


def _size(args: argparse.Namespace) -> Size | None:
    from darkroom.adapters.truncated import Size

    if args.rank is not None and args.rank < 1:
        raise InvalidRequest(f"--rank is {args.rank}: give a whole number from 1")
    if args.keep is not None and not 0 < args.keep <= 1:
        raise InvalidRequest(f"--keep is {args.keep:g}: give a share above 0 and up to 1")
    return None if args.rank is None and args.keep is None else Size(args.rank, args.keep)


def _path(name: str) -> Path:
    from darkroom.library.locate import locate

    return locate(name, kind="lora")


@contextmanager
def _networks(model: str | None) -> Iterator[dict[Role, nn.Module] | None]:
    """A model's networks without their weights."""
    if model is None:
        yield None
        return
    from darkroom.checkpoint.opening import open_source
    from darkroom.library.locate import locate

    with open_source(locate(model)) as source:
        yield source.build()


@contextmanager
def _layers_bar() -> Iterator[Callable[[int, int], None]]:
    from tqdm import tqdm

    with tqdm(unit="layer", disable=None, leave=False) as bar:

        def told(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield told
