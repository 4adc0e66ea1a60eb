"""`darkroom prompt`: how a prompt is read."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from darkroom.cli.arguments import add_prompt
from darkroom.cli.asked import gather, one_request
from darkroom.cli.generate import add_loading_options, add_picture_options
from darkroom.cli.settings import add_settings_file
from darkroom.cli.words import in_options, tell_notes
from darkroom.files import as_json

if TYPE_CHECKING:
    from darkroom.generation.explain import Explanation, TextRead

_LANGUAGE = """\
the language (--dialect a1111, A1111's):
  (word)  (word:1.3)  [word]      weighs 1.1, 1.3, 1/1.1 times as much; brackets nest; \\( is a bracket
  [from:to:0.4]  [from:to:8]      one text, then another, from 40% of the steps or from step 8 on
  [add:0.4]  [drop::0.4]          only from there on, only up to there
  [one|other]                     in turn, step by step
  one AND other :0.7              guided by both, each with its weight
  BREAK                           ends a chunk of 75 tokens
  <lora:name:0.8>                 an adapter (see 'darkroom lora --help'); <hypernet:name:0.5>
  an embedding's name             stands for its vectors

other dialects:
  comfy    (word:1.3), measured from the empty prompt as ComfyUI does; embedding:name
  compel   word+ word-- (some words)1.3 ("one", "other").blend(0.7, 0.3) ("one", "other").and() withLora(name, 0.8)
  plain    nothing but text; <name> for an embedding

drawn by lot (--dynamic random, or all of them in turn: --dynamic all):
  {red|blue}  {2$$a|b|c}  {0.5::rare|usual}   one of them, two of them, one with a weight
  __colours__                                 a line of colours.txt in $DARKROOM_WILDCARDS or the library's wildcards/

styles (--style NAME) are rows of a styles.csv: name,prompt,negative_prompt; {prompt} stands for the prompt.
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "prompt",
        help="show how a prompt is read",
        description="Show how a prompt is read: steps, texts, chunks, tokens, weights, adapters and embeddings and "
        "whether they fit the model, and what has no effect. No weights are loaded. Exit status 1: one does not fit.",
        epilog=_LANGUAGE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_prompt(command, "what the picture should show")
    command.add_argument("--json", action="store_true", help="print JSON")
    add_picture_options(command)
    add_loading_options(command)
    add_settings_file(command)
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    from itertools import islice

    import torch

    from darkroom.adapters.collection import Collection
    from darkroom.assembly import open_model
    from darkroom.engine.loading import conditioner_of
    from darkroom.engine.networks import Expert
    from darkroom.generation.explain import explain
    from darkroom.generation.templates import completed, pictures
    from darkroom.networks import Denoiser

    loading, _, settings = gather(args)
    request = one_request(args, settings)
    with open_model(loading) as opened:
        name, source = opened.name, opened.source
        settled = completed(opened.settle(request))
        networks = source.build()
        text = conditioner_of(source, networks, torch.device("cpu"))
        denoiser = networks[source.denoiser.role]
        assert isinstance(denoiser, Denoiser)
        Expert(text, denoiser).check(settled)
        collection = Collection(networks, name)
        shown = list(islice(pictures(settled), settled.count if settled.text.dynamic != "off" else 1))
        found = [explain(each, text, collection, name) for each in shown]
    if args.json:
        print(as_json([each.to_dict() for each in found]))
    else:
        print("\n\n".join(map(as_text, found)))
    tell_notes(dict.fromkeys(note for each in found for note in each.notes))
    return int(not all(each.fits for each in found))


def as_text(found: Explanation) -> str:
    """An explanation in lines."""
    lines = [f"{found.model}, dialect {found.dialect}, emphasis {found.emphasis}, {found.steps} steps"]
    for row in found.rows:
        weight = "" if row.weight in (None, 1) else f", weight {row.weight:g}"
        lines.append(f"\n{row.row}{weight}")
        for phase in row.phases:
            steps = "" if len(phase.steps) == found.steps else f"{_ranges(phase.steps)}: "
            lines.append(f"  {steps}{' / '.join(text.strip() or '(nothing)' for text in phase.texts)}")
            for encoder in phase.encoders:
                for number, blend in enumerate(encoder.blends, 1):
                    which = f", {number}" if len(encoder.blends) > 1 else ""
                    for text in blend:
                        share = f", share {text.share:g}" if text.share != 1 else ""
                        lines.append(f"    {encoder.encoder}{which}{share}")
                        lines += _chunks(text)
    for title, named in (("adapters", found.adapters), ("embeddings", found.embeddings)):
        if named:
            lines.append(f"\n{title}")
            for each in named:
                verdict = f"fits {found.model}" if each.problem is None else in_options(each.problem)
                lines.append(f"  {each.name}: {each.what}, {verdict}")
    return "\n".join(lines)


def _ranges(steps: Sequence[int]) -> str:
    """Steps in words: steps 1 to 4, 7, 9."""
    ranges: list[list[int]] = []
    for step in steps:
        if ranges and ranges[-1][-1] == step - 1:
            ranges[-1] = [ranges[-1][0], step]
        else:
            ranges.append([step])
    return ("step " if len(steps) == 1 else "steps ") + ", ".join(
        " to ".join(map(str, each)) for each in ranges
    )


def _chunks(text: TextRead) -> list[str]:
    """Tokens in a row, those of equal weight together: a red boat, (calm)1.3."""
    lines = []
    for chunk in text.chunks:
        words: list[str] = []
        weights: list[float] = []
        for token in chunk.tokens:
            shown = token.text.replace("</w>", "")
            if weights and weights[-1] == token.weight:
                words[-1] += f" {shown}"
            else:
                words.append(shown)
                weights.append(token.weight)
        parts = [
            word if weight == 1 else f"({word}){weight:.4g}"
            for word, weight in zip(words, weights, strict=True)
        ]
        lines.append(f"      {len(chunk.tokens)} of {chunk.room} tokens: {' '.join(parts)}")
    return lines
