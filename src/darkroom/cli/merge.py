"""`darkroom merge`: a model of several."""

from __future__ import annotations

import argparse
from contextlib import ExitStack

from darkroom.cli.arguments import a_path
from darkroom.cli.progress import byte_bar
from darkroom.cli.words import tell_notes
from darkroom.language.options import named_options, number

_WHAT = "the model"
_EXAMPLES = """\
methods:
  sum          A + w1 (B - A) + w2 (C - A) + ...: `darkroom merge A B:0.3 C:0.2`
  difference   A + w (B - C): what was done to C to make B is done to A: `darkroom merge A B:1 C --method difference`
  slerp        from A to B along the arc between their weights: `darkroom merge A B:0.5 --method slerp`

--blocks multiplies the weights by block of the denoising network, in the notation of A1111's merging extensions: 26
numbers with commas between (BASE, IN00 to IN11, M00, OUT00 to OUT11) for Stable Diffusion 1 and 2, 20 for XL, or a
preset's name: INALL, OUTALL, MIDD, ... BASE is all that is in no block, the text encoders among it.
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "merge",
        help="make a model of several",
        description="Write a model whose weights are made of several models'. Their networks must have equal shapes. "
        "One tensor of each is in memory at a time.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("model", help="the model to begin with: a name, a folder or a file")
    command.add_argument(
        "others", nargs="+", metavar="OTHER[:WEIGHT]", help="others, and how much of each (0.5)"
    )
    command.add_argument(
        "--output", type=a_path, required=True, metavar="OUT", help="FILE.safetensors, or a new folder"
    )
    command.add_argument("--method", default="sum", help="sum, difference or slerp (default: sum)")
    command.add_argument(
        "--blocks", default="", metavar="WEIGHTS", help="weights by block besides (default: all 1)"
    )
    command.add_argument(
        "--no-text",
        dest="text",
        action="store_false",
        help="keep the first model's text encoders as they are",
    )
    command.add_argument("--vae", type=a_path, help="put this autoencoder in place of the first model's")
    command.add_argument("--precision", help="float32, bfloat16 or float16 (default: the first model's)")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from darkroom.checkpoint.blend import Recipe, blended
    from darkroom.checkpoint.blocks import block_weights
    from darkroom.checkpoint.export import convert
    from darkroom.checkpoint.opening import open_source
    from darkroom.engine.devices import precision_of
    from darkroom.library.locate import OF_A_VAE, locate
    from darkroom.networks.roles import Role

    names, weights = zip(*map(_weighed, args.others), strict=True)
    recipe = Recipe(args.method, weights, block_weights(args.blocks), args.text).checked(len(names))
    dtype = None if args.precision is None else precision_of(args.precision)
    with ExitStack() as opened:
        vae = None if args.vae is None else locate(args.vae, *OF_A_VAE)
        base = opened.enter_context(open_source(locate(args.model), vae=vae))
        others = [opened.enter_context(open_source(locate(name), without=(Role.VAE,))) for name in names]
        made = blended(base, others, recipe)
        bar = opened.enter_context(byte_bar())
        told = args.output.name
        convert(made, args.output, dtype, prune=True, progress=lambda done, total: bar(told, done, total))
    tell_notes(made.notes[len(base.notes) :])
    print(args.output)
    return 0


def _weighed(text: str) -> tuple[str, float]:
    """A model's name or path, and behind a colon its weight."""
    from darkroom.library.records import Library

    library = Library.read()
    for name, _, weight in ((text, "", "0.5"), text.rpartition(":")):
        if ":" in name and library.match(name, "model"):
            return name, number(weight, text, _WHAT)
    name, options = named_options(text, _WHAT, ("weight",))
    return name, number(options.get("weight", "0.5"), text, _WHAT)
