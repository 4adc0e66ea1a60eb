"""The language of compel, which InvokeAI speaks: word+, (words)1.3, ("one", "other").blend(0.7, 0.3), .and()."""

from __future__ import annotations

import re

from darkroom.errors import InvalidRequest
from darkroom.language.mixture import Blend, Mixture, alone
from darkroom.language.spans import Span, bounded, joined
from darkroom.language.tags import Tag, parse_tag

_UP, _DOWN = 1.1, 0.9
_TOKEN = re.compile(r'[()"]|\s+|(?:\\.|[^\s()"\\])+|\\', re.S)
_OPERATOR = re.compile(r"\++|-+|-?\d+\.\d*|-?\.\d+|-?\d+")
_NAME = r"<[^<>\s]+>"  # Of an embedding, in which hyphens weigh nothing.
_WORD = re.compile(rf'((?:{_NAME}|\\.|(?!{_NAME})[^\s()",.+=\\-]|[+-](?=[^\s()",.+=-]))+)(\++|-+)')
_LITERAL = re.compile(r'\\([()",.+=-])')
_ARGUMENTS = re.compile(r"\)\s*\.(blend|and|add)\(([^()]*)\)\s*\Z")
_LORA = re.compile(r"\b(?:withLora|useLora)\(\s*([\w.-]+)\s*(?:,\s*(-?[\d.]+)\s*)?\)")
_SWAP = re.compile(r'[\w)"]\.swap\(')
_NO_COMMA_SPACE = re.compile(r",(\S)")


def mixture(text: str) -> Mixture:
    """A prompt in compel's language (https://github.com/damian0815/compel, prompt_parser.py): its texts, blended
    (`.blend`, shares summing to one unless told no_normalize) or one after another (`.and`).

    Raises InvalidRequest where the numbers of texts and weights differ, and for `.swap`, which is no weight but a way
    of editing attention.
    """
    text = _NO_COMMA_SPACE.sub(r", \1", text)
    if found := _SWAP.search(text):
        raise InvalidRequest(
            f"at position {found.start()} of the prompt: .swap() is not supported, "
            "in dialect a1111 [a:b:0.3] comes near it"
        )
    call = _ARGUMENTS.search(text)
    if call is None or not text.lstrip().startswith("("):
        return alone(spans(text))
    start = text.index("(") + 1
    texts = _listed(text[start : call.start()])
    if texts is None:
        return alone(spans(text))
    arguments = [each.strip() for each in call[2].split(",") if each.strip()]
    normalised = "no_normalize" not in arguments
    weights = [_number(each, call.start()) for each in arguments if each != "no_normalize"] or [1.0] * len(
        texts
    )
    if len(weights) != len(texts):
        raise InvalidRequest(
            f".{call[1]}() at position {call.start()} of the prompt has {len(weights)} weights for {len(texts)} texts"
        )
    parts = [tuple(spans(each)) for each in texts]
    if call[1] != "blend":
        return tuple(Blend((part,), weight=weight) for part, weight in zip(parts, weights, strict=True))
    total = sum(weights) if normalised else 1.0
    if not total:
        raise InvalidRequest(f"the weights of .blend() add up to 0 at position {call.start()} of the prompt")
    return (Blend(tuple(parts), tuple(weight / total for weight in weights)),)


def tagged(prompt: str) -> tuple[str, tuple[Tag, ...]]:
    """A prompt without its `withLora(name, weight)`, and the adapters that they name."""
    tags = tuple(parse_tag(f"{match[1]}:{match[2] or 1}") for match in _LORA.finditer(prompt))
    return _LORA.sub("", prompt), tags


def spans(text: str) -> list[Span]:
    """Spans of equal weight. Brackets and quotes without a partner are text.

    Raises InvalidRequest for a weight beyond `HEAVIEST`.
    """
    tokens = [(token[0], token.start()) for token in _TOKEN.finditer(text)]
    factors, closers = _matched(tokens)
    found: list[Span] = []
    weights = [1.0]
    for index, (sign, at) in enumerate(tokens):
        if index in factors:
            weights.append(bounded(weights[-1] * factors[index], at))
        elif index in closers:
            weights.pop()
        else:
            rest = sign[closers_end(tokens, closers, index) :]
            word = _WORD.match(rest)
            if word:
                weight = bounded(weights[-1] * _factor(word[2]), at)
                found.append(Span(_literal(word[1]), weight))
                rest = rest[word.end() :]
            if rest:
                found.append(Span(_literal(rest), weights[-1]))
    return joined(found)


def closers_end(tokens: list[tuple[str, int]], closers: set[int], index: int) -> int:
    """How much of a token is the operator of the bracket closed right before it."""
    operator = _OPERATOR.match(tokens[index][0]) if index - 1 in closers else None
    return operator.end() if operator else 0


def _matched(tokens: list[tuple[str, int]]) -> tuple[dict[int, float], set[int]]:
    """The factor of each opening bracket or quote, and the tokens that close one."""
    factors: dict[int, float] = {}
    closers: set[int] = set()
    open_: list[int] = []
    quotes = 0
    for index, (sign, _) in enumerate(tokens):
        if sign == '"' and quotes:
            while tokens[open_[-1]][0] != '"':
                del factors[open_.pop()]
            quotes -= 1
            _close(tokens, open_.pop(), index, factors, closers)
        elif sign == ")" and open_ and tokens[open_[-1]][0] == "(":
            _close(tokens, open_.pop(), index, factors, closers)
        elif sign in ("(", '"') and (open_ or _begins_word(tokens, closers, index)):
            open_.append(index)
            quotes += sign == '"'
            factors[index] = 1.0
    for index in open_:
        del factors[index]
    return factors, closers


def _begins_word(tokens: list[tuple[str, int]], closers: set[int], index: int) -> bool:
    before = tokens[index - 1][0] if index else " "
    return before.isspace() or index - 1 in closers or closers_end(tokens, closers, index - 1) == len(before)


def _close(
    tokens: list[tuple[str, int]], opening: int, closing: int, factors: dict[int, float], closers: set[int]
) -> None:
    closers.add(closing)
    following = tokens[closing + 1][0] if closing + 1 < len(tokens) else ""
    operator = _OPERATOR.match(following)
    factors[opening] = _factor(operator[0]) if operator else 1.0


def _factor(operator: str) -> float:
    if operator[0] == "+":
        return float(_UP ** len(operator))
    if set(operator) == {"-"}:
        return float(_DOWN ** len(operator))
    return float(operator)


def _literal(text: str) -> str:
    return _LITERAL.sub(r"\1", text)


def _listed(text: str) -> list[str] | None:
    """Texts in quotes or brackets, or bare words, with commas between; None where it is no such list."""
    found = []
    at = 0
    item = re.compile(r'\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"()]+))\s*(,|\Z)')
    while at < len(text):
        match = item.match(text, at)
        if match:
            found.append(match[1] if match[1] is not None else match[2])
            at = match.end()
            continue
        end = _bracket_end(text, at)
        rest = re.compile(r"\s*(,|\Z)").match(text, end) if end else None
        if rest is None:
            return None
        found.append(text[at:end].strip()[1:-1])
        at = rest.end()
    return found or None


def _bracket_end(text: str, at: int) -> int:
    """Where the bracket that begins at `at` (after space) ends; 0 where there is none."""
    depth = 0
    for match in re.compile(r"\\.|[()]|\S").finditer(text, at):
        depth += (match[0] == "(") - (match[0] == ")")
        if not depth:
            return match.end() if match[0] == ")" else 0
    return 0


def _number(text: str, at: int) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidRequest(f"{text!r} at position {at} of the prompt is no weight: give a number") from None
