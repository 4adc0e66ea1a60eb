"""What there is to say of a service: where it listens, what it keeps where, how it works."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Any, Self

from darkroom.diffusion import Within
from darkroom.errors import InvalidRequest
from darkroom.files import expanded
from darkroom.generation.checks import a_number, a_whole, checked, setting
from darkroom.library.records import home
from darkroom.loading import MEMORY
from darkroom.numeric import parse_size


def _a_word(name: str, given: object) -> str:
    if not isinstance(given, str) or not given.strip():
        raise InvalidRequest(f"{name} is {given!r}: give a text")
    return given


def _a_size(name: str, given: object) -> str:
    text = _a_word(name, given)
    if not parse_size(text):
        raise InvalidRequest(f"{name} is {text!r}: give a size, such as 12GB")
    return text


def _a_memory(name: str, given: object) -> str:
    text = _a_word(name, given)
    if text not in MEMORY and not parse_size(text):
        raise InvalidRequest(f"{name} is {text!r}: give {', '.join(MEMORY)}, or a size, such as 8GB")
    return text


def _seconds(least: float, most: float) -> Any:
    return a_number(Within(least, most))


@dataclass(frozen=True)
class Serving:
    """The settings of a service, of its API and of its workers alike."""

    host: str = setting(
        "127.0.0.1", _a_word, "the address to listen at (default: 127.0.0.1, this machine alone)"
    )
    port: int = setting(7860, a_whole(0, 65535), "the port to listen at; 0: any that is free (default: 7860)")
    model: str = setting(
        "pocket", _a_word, "the model where none is asked for: a name, a folder or a file", sign="NAME"
    )
    data: str | None = setting(
        None, _a_word, "folder for all that is kept (default: serve in $DARKROOM_HOME)", sign="DIR"
    )
    database: str | None = setting(
        None, _a_word, "the database: sqlite:///PATH (default: a file in the folder)", sign="URL"
    )
    store: str | None = setting(
        None, _a_word, "where pictures are kept: a folder (default: one in the folder)", sign="PLACE"
    )
    workers: int = setting(
        1, a_whole(0, 64), "engine processes beside the API; 0: they run elsewhere (default: 1)"
    )
    device: str | None = setting(None, _a_word, "cpu, cuda, cuda:1, mps ... (default: the best)", sign="NAME")
    precision: str | None = setting(
        None, _a_word, "float32, bfloat16 or float16 (default: what suits the device)", sign="NAME"
    )
    memory: str = setting(
        "full", _a_memory, "how models use memory, as of 'darkroom generate' (default: full)", sign="HOW"
    )
    models_memory: str = setting(
        "12GB", _a_size, "how much memory the weights of loaded models may take (default: 12GB)", sign="SIZE"
    )
    slots: int = setting(16, a_whole(1, 1024), "how many jobs a worker has in hand at once (default: 16)")
    checkpoint: float = setting(
        10.0, _seconds(0.1, 3600), "seconds between the checkpoints of a picture (default: 10)", sign="S"
    )
    lease: float = setting(
        15.0,
        _seconds(1, 3600),
        "seconds of silence after which a worker is taken for dead (default: 15)",
        sign="S",
    )
    drain: float = setting(
        30.0,
        _seconds(0, 3600),
        "seconds that jobs have to finish when the service ends (default: 30)",
        sign="S",
    )

    stall: float = setting(
        600.0,
        _seconds(1, 86_400),
        "seconds without a step after which an engine at work is taken for hanging and ended (default: 600)",
        sign="S",
    )

    def checked(self) -> Self:
        """Its values in canonical form, and what follows from others filled in. Raises InvalidRequest for what cannot
        be."""
        own = checked(self)
        data = expanded(own["data"] or home() / "serve").absolute()
        own["data"] = str(data)
        own["database"] = own["database"] or f"sqlite:///{data / 'darkroom.sqlite'}"
        own["store"] = own["store"] or str(data / "store")
        return type(self)(**own)


SERVING = {each.name: each for each in fields(Serving)}


def this_worker() -> tuple[str, int]:
    """The machine and the process that this is."""
    return os.uname().nodename if hasattr(os, "uname") else os.environ.get(
        "COMPUTERNAME", "here"
    ), os.getpid()
