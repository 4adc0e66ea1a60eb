"""What is to be fetched for a model."""

from __future__ import annotations

from dataclasses import dataclass

from darkroom.checkpoint.download import Remote


@dataclass(frozen=True)
class Plan:
    """What to fetch. name, aliases: what to call it; origin: where it comes from, to the revision; size: bytes,
    roughly, where the files do not say theirs; hint: the kind that it is taken for where its header does not tell."""

    name: str
    origin: str
    files: tuple[Remote, ...]
    aliases: tuple[str, ...] = ()
    size: int = 0
    hint: str | None = None
