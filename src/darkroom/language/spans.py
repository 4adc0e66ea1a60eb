"""Emphasis: a prompt's text as spans of equal weight, in the ways that A1111 and ComfyUI write it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from darkroom.errors import InvalidRequest

HEAVIEST = 10_000.0
"""Beyond this a weight is a mistake: nested brackets grow without bound."""


class Span(NamedTuple):
    """Text that is read with one weight; `breaks` ends the chunk in its place and has no text."""

    text: str
    weight: float = 1.0
    breaks: bool = False


BREAK = Span("", 1.0, breaks=True)

_UP, _DOWN = 1.1, 1 / 1.1
_A1111 = re.compile(r"\\[()\[\]\\]|\\|\(|\[|:\s*([+-]?[.\d]+)\s*\)|\)|\]|[^\\()\[\]:]+|:")
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_COMFY = re.compile(r"\\[()]|[()]|\\|[^\\()]+")
_COMFY_WEIGHT = re.compile(r":([^:]*)\Z")


def plain(text: str) -> list[Span]:
    """All of it as it stands."""
    return [Span(text)]


def a1111(text: str) -> list[Span]:
    r"""A1111's language: (word) weighs 1.1 times as much, [word] 1/1.1 times, (word:1.3) 1.3 times; brackets nest and
    multiply; a backslash takes a bracket's meaning away; BREAK ends a chunk. Brackets that are never closed reach to
    the end, those never opened are text (`modules/prompt_parser.py`, parse_prompt_attention).

    Raises InvalidRequest for a weight that is no number, or beyond `HEAVIEST`.
    """
    tokens = list(_A1111.finditer(text))
    factors, closers = _matched(tokens)
    spans: list[Span] = []
    # Round and square brackets may cross: each kind has a stack of its own.
    round_, square = [1.0], [1.0]
    for index, token in enumerate(tokens):
        sign = token[0]
        if index in factors:
            stack = round_ if sign == "(" else square
            stack.append(stack[-1] * factors[index])
        elif index in closers:
            (square if sign == "]" else round_).pop()
        else:
            weight = bounded(round_[-1] * square[-1], token.start())
            if sign[0] == "\\":
                spans.append(Span(sign[1:] or sign, weight))
                continue
            first, *others = _BREAK.split(sign)
            spans.append(Span(first, weight))
            spans += [span for part in others for span in (BREAK, Span(part, weight))]
    return joined(spans)


def _matched(tokens: list[re.Match[str]]) -> tuple[dict[int, float], set[int]]:
    """The factor of each opening bracket, and the tokens that close one."""
    factors: dict[int, float] = {}
    closers: set[int] = set()
    open_: dict[str, list[int]] = {"(": [], "[": []}
    for index, token in enumerate(tokens):
        sign = token[0]
        if sign in open_:
            open_[sign].append(index)
            factors[index] = _UP if sign == "(" else _DOWN
        elif sign == "]" and open_["["]:
            open_["["].pop()
            closers.add(index)
        elif sign[-1] == ")" and sign[0] != "\\" and open_["("]:
            opening = open_["("].pop()
            closers.add(index)
            if token[1] is not None:
                factors[opening] = _number(token[1], token.start(1))
    return factors, closers


def comfy(text: str) -> list[Span]:
    r"""ComfyUI's language: (word) weighs 1.1 times what is around it, (word:1.3) weighs 1.3 whatever is around it; \(
    and \) are text, and so are brackets without a partner (`comfy/sd1_clip.py`, token_weights).

    Raises InvalidRequest for a weight beyond `HEAVIEST`.
    """
    tokens = [(token[0], token.start()) for token in _COMFY.finditer(text)]
    absolute: dict[int, float | None] = {}
    closers: set[int] = set()
    shortened: dict[int, str] = {}
    open_: list[int] = []
    for index, (sign, _) in enumerate(tokens):
        if sign == "(":
            open_.append(index)
        elif sign == ")" and open_:
            opening = open_.pop()
            closers.add(index)
            absolute[opening] = None
            found = _COMFY_WEIGHT.search(tokens[index - 1][0]) if index - 1 > opening else None
            if found and (found.start() > 0 or index - 2 > opening):
                try:
                    absolute[opening] = float(found[1])
                except ValueError:
                    continue
                shortened[index - 1] = tokens[index - 1][0][: found.start()]
    spans, weights = list[Span](), [1.0]
    for index, (sign, at) in enumerate(tokens):
        if index in absolute:
            own = absolute[index]
            weights.append(bounded(weights[-1] * _UP if own is None else own, at))
        elif index in closers:
            weights.pop()
        else:
            literal = sign[1] if sign in (r"\(", r"\)") else shortened.get(index, sign)
            spans.append(Span(literal, weights[-1]))
    return joined(spans)


def joined(spans: Iterable[Span]) -> list[Span]:
    """Neighbours of equal weight as one span, so that words are not cut where a bracket was."""
    joined: list[Span] = []
    pieces: list[str] = []
    for span in spans:
        if joined and not span.breaks and not joined[-1].breaks and joined[-1].weight == span.weight:
            pieces.append(span.text)
            continue
        if pieces:
            joined[-1] = joined[-1]._replace(text="".join(pieces))
        joined.append(span)
        pieces = [] if span.breaks else [span.text]
    if pieces:
        joined[-1] = joined[-1]._replace(text="".join(pieces))
    return joined or [Span("")]


def _number(text: str, at: int) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidRequest(
            f"the weight {text!r} at position {at} of the prompt is no number: write it as in (word:1.3)"
        ) from None


def bounded(weight: float, at: int) -> float:
    if not abs(weight) <= HEAVIEST:
        raise InvalidRequest(
            f"the prompt weighs {weight:g} at position {at}: brackets multiply, keep weights within {HEAVIEST:,.0f}"
        )
    return weight
