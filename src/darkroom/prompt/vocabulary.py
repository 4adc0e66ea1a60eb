"""A tokenizer's words and, beside them, embeddings: names that stand for vectors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor

from darkroom.networks.roles import Role
from darkroom.prompt.tokenizer import Tokenizer

Group = tuple[int, ...]
"""Tokens that stay together: one, or all those of an embedding."""


@dataclass(frozen=True, eq=False)
class Embedding:
    """What a word of its own stands for: vectors (n, width) for each text encoder, by role; `sha256` is the file's."""

    arrays: Mapping[Role, Tensor]
    sha256: str = ""


Embeddings: TypeAlias = "tuple[tuple[str, Embedding], ...]"
"""Embeddings, each after the word that stands for it."""


class Vocabulary:
    """A tokenizer to whose words `embeddings`, (n, width) each, are added by name. The tokens of an embedding are the
    numbers from `size` on, how many the encoder has a vector for: rows of `vectors` in order, None where there are no
    embeddings."""

    def __init__(
        self, tokenizer: Tokenizer, embeddings: Mapping[str, Tensor] | None = None, size: int | None = None
    ) -> None:
        self.tokenizer = tokenizer
        self.size = len(tokenizer.vocabulary) if size is None else size
        self._groups: dict[str, Group] = {}
        first = self.size
        for name, vectors in (embeddings or {}).items():
            self._groups[name.lower()] = tuple(range(first, first + len(vectors)))
            first += len(vectors)
        self.vectors = torch.cat([*embeddings.values()]) if embeddings else None
        self._at_names = cache(self._pattern)

    def _pattern(self, around: tuple[str, str]) -> re.Pattern[str] | None:
        """Finds the names as whole words, the longest first."""
        if not self._groups:
            return None
        names = "|".join(map(re.escape, sorted(self._groups, key=len, reverse=True)))
        before, after = map(re.escape, around)
        return re.compile(rf"(?<!\w){before}({names}){after}(?!\w)", re.IGNORECASE)

    def groups(self, text: str, around: tuple[str, str] = ("", "")) -> list[Group]:
        """The tokens of a text, without marks, an embedding's for each name that stands between `around`."""
        pattern = self._at_names(around)
        if pattern is None:
            return [(token,) for token in self.tokenizer.encode(text)]
        found: list[Group] = []
        for number, part in enumerate(pattern.split(text)):
            if number % 2:
                found.append(self._groups[part.lower()])
            else:
                found += [(token,) for token in self.tokenizer.encode(part)]
        return found

    def text(self, token: int) -> str:
        """What a token stands for, a word's end marked as in the tokenizer's files."""
        for name, group in self._groups.items():
            if token in group:
                return f"<{name} {token - group[0] + 1}>"
        return self._words[token]

    @property
    def _words(self) -> Mapping[int, str]:
        return _reversed(self.tokenizer)


@cache
def _reversed(tokenizer: Tokenizer) -> Mapping[int, str]:
    return {number: word for word, number in tokenizer.vocabulary.items()}
