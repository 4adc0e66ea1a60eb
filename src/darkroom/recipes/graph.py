"""ComfyUI's graphs: nodes by id, what they are told, and what they are linked to.

A picture holds one as `prompt`, what was run, and one as `workflow`, what was drawn on the screen (`drawn.py`).

    {"3": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 20, "model": ["4", 0]}}, "4": ...}
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from darkroom.recipes.plain import finite, mapping, parsed

_DEEPEST = 200
"""Links followed one after the other; more is a circle."""
_LONGEST = 20_000
"""Characters of a text that nodes make of several."""

PASSING = ("Reroute", "Reroute (rgthree)", "Any Switch (rgthree)", "PreviewAny", "easy showAnything")
"""Nodes that hand on what they are given."""
_PIPES = ("pipe", "basic_pipe", "context", "base_ctx", "sdxl_tuple", "settings")
_PART = re.compile(r"(text|string|str|input|prompt)_?([0-9]|[a-f])")
_DELIMITERS = ("delimiter", "separator", "sep")

# What nodes that only hold a value call it.
_TEXTS = (
    *("value", "text", "string", "String", "prompt", "populated_text", "wildcard_text", "positive"),
    *("text_positive", "text1", "result"),
)
_HELD = {
    str: _TEXTS,
    int: ("value", "seed", "noise_seed", "int", "number", "Number", "Value"),
    float: ("value", "float", "number", "Number", "Value", "int"),
}


@dataclass(frozen=True)
class Node:
    """A node; `kind` is its class."""

    id: str
    kind: str
    inputs: dict[str, Any] = field(default_factory=dict)

    @property
    def links(self) -> list[str]:
        """The inputs that are linked to other nodes."""
        return [name for name, value in self.inputs.items() if is_link(value)]


class Graph:
    """Nodes by id."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.nodes = nodes
        self.read: set[str] = set()
        """The nodes whose values were looked up."""

    @classmethod
    def of(cls, text: str | None) -> Graph | None:
        """The graph in a text; None where there is none."""
        nodes = {
            str(id): Node(str(id), each["class_type"], {**mapping(each.get("inputs"))})
            for id, each in mapping(parsed(text)).items()
            if isinstance(each, dict) and isinstance(each.get("class_type"), str)
        }
        return cls(nodes) if nodes else None

    def linked(self, node: Node, name: str) -> Node | None:
        """The node that an input is linked to."""
        for _ in range(_DEEPEST):
            link: Any = node.inputs.get(name)
            if not is_link(link) or (found := self.nodes.get(str(link[0]))) is None:
                return None
            if found.kind not in PASSING:
                return found
            self.read.add(found.id)
            node, name = found, next(iter(found.links), "")
        return None

    def any_linked(self, node: Node, *names: str) -> Node | None:
        """The node that the first of these inputs with a link is linked to."""
        return next((found for name in names if (found := self.linked(node, name))), None)

    def through(self, node: Node, *names: str) -> Node | None:
        """The same, where need be of the node that hands on many things in one pipe; one that holds it as text is what
        it comes from."""
        for _ in range(_DEEPEST):
            if (found := self.any_linked(node, *names)) is not None:
                return found
            if any(isinstance(node.inputs.get(name), str) for name in names):
                return node
            if (pipe := self.any_linked(node, *_PIPES)) is None:
                return None
            node = pipe
            self.read.add(pipe.id)
        return None

    def text(self, node: Node, name: str) -> str | None:
        """A text, where need be that of a node that holds it."""
        found = self._value(node, name, str, {})
        return found if found is None else str(found)[:_LONGEST]

    def number(self, node: Node, name: str, kind: type = float) -> Any:
        """A number, where need be that of a node that holds it."""
        return self._value(node, name, kind, {})

    def _value(self, node: Node, name: str, kind: type, known: dict[tuple[str, str], Any]) -> Any:
        """A value; `known`: those that were looked up on the way, so that no node is asked twice."""
        value: Any = node.inputs.get(name)
        if isinstance(value, dict):
            value = value.get("content")  # Of loaders with pictures of their files.
        if not is_link(value):
            if kind is str:
                return value if isinstance(value, str) else None
            return finite(value)
        held, key = self.linked(node, name), (node.id, name)
        if key in known or held is None or len(known) > _DEEPEST:
            return known.get(key)
        known[key] = None  # Where it leads back to itself.
        self.read.add(held.id)
        known[key] = self._held(held, name, kind, bool(value[1]), known)
        return known[key]

    def _held(
        self, held: Node, name: str, kind: type, second: bool, known: dict[tuple[str, str], Any]
    ) -> Any:
        """What a node holds; `second`: not by its first output."""
        if kind is str and len(parts := [part for part in sorted(held.inputs) if _PART.fullmatch(part)]) > 1:
            texts = (self._value(held, part, str, known) for part in parts)
            delimiter = next((str(held.inputs[each]) for each in _DELIMITERS if each in held.inputs), "")
            return delimiter.join(filter(None, texts))[:_LONGEST]
        # Of a node that gives two texts the second output is the negative one.
        negative = [own for own in held.inputs if own.startswith("neg")] if second else []
        for own in (*negative, name, *_HELD[kind]):
            if own in held.inputs and (found := self._value(held, own, kind, known)) is not None:
                return found
        return None

    def before(self, node: Node, past: Collection[str] = ()) -> Iterator[Node]:
        """The node, and all that it comes of, the nearest first; through those in `past` it does not go."""
        seen, waiting = {node.id}, deque([node])
        while waiting:
            node = waiting.popleft()
            yield node
            for name in node.links if node.id not in past else ():
                found = self.nodes.get(str(node.inputs[name][0]))
                if found is not None and found.id not in seen:
                    seen.add(found.id)
                    waiting.append(found)


def is_link(value: object) -> bool:
    """Whether an input is what another node gives: its id, and which of its outputs."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str | int)
        and isinstance(value[1], int)
    )
