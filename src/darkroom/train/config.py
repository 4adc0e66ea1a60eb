"""Settings files: one TOML file per run, read into frozen dataclasses that name every mistake."""

from __future__ import annotations

import dataclasses
import math
import tomllib
import types
import typing
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

from darkroom.errors import InvalidRequest, nearest

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """How any stage is trained.

    batch: samples per step; steps: where training ends (0: when stopped); learning_rate: its peak;
    warmup: steps up to it; decay: the last steps of all, during which it falls to zero, along `decay_shape`
    (see `rate`); optimiser: "muon" for matrices and kernels (AdamW for the rest), or "adamw" for all;
    weight_decay, betas: AdamW's; clip: the largest gradient norm (0: no limit).
    ema: "power" averages over the last share of the run (`ema_value` is the width sigma_rel), "constant" over the
    last steps (`ema_value` is the decay), "none". precision: autocast; seed: of everything random.
    save_minutes: between checkpoints; log_every, validate_every, sample_every: in steps (0: never).
    workers: processes that prepare batches, `ahead` of them (0: in this process). compile: torch.compile.
    """

    batch: int = 64
    steps: int = 0
    learning_rate: float = 1e-3
    warmup: int = 200
    decay: int = 0
    decay_shape: Literal["sqrt", "linear", "cosine"] = "sqrt"
    optimiser: Literal["muon", "adamw"] = "adamw"
    weight_decay: float = 0.01
    betas: tuple[float, ...] = (0.9, 0.99)
    clip: float = 1.0
    ema: Literal["power", "constant", "none"] = "power"
    ema_value: float = 0.08
    precision: Literal["bf16", "float32"] = "bf16"
    seed: int = 0
    save_minutes: float = 5.0
    log_every: int = 20
    validate_every: int = 1000
    sample_every: int = 1000
    workers: int = 1
    ahead: int = 4
    compile: bool = False

    def __post_init__(self) -> None:
        for name, low in (
            ("batch", 1),
            ("steps", 0),
            ("warmup", 0),
            ("decay", 0),
            ("workers", 0),
            ("ahead", 1),
        ):
            require(getattr(self, name) >= low, name, getattr(self, name), f"at least {low}")
        require(self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        require(
            len(self.betas) == 2 and all(0 <= b < 1 for b in self.betas), "betas", self.betas, "two in [0, 1)"
        )
        require(self.clip >= 0, "clip", self.clip, "0 (no limit) or more")
        require(not self.steps or self.decay <= self.steps, "decay", self.decay, "at most `steps`")
        limit = 0.28 if self.ema == "power" else 1.0
        require(0 < self.ema_value < limit, "ema_value", self.ema_value, f"between 0 and {limit}")


def require(condition: bool, name: str, value: object, wanted: str) -> None:
    """Raise InvalidRequest unless the setting is as wanted."""
    if not condition:
        raise InvalidRequest(f"{name} is {value}: it must be {wanted}")


def rate(config: LoopConfig, step: int, decay_from: int | None, decay: int) -> float:
    """The factor on the learning rate at a step: warm up, stay, and fall to zero over `decay` steps.

    The plateau has no length of its own, so a run can be stopped at any step and finished from there (the
    "warmup, stable, decay" of Hu et al. 2024, https://arxiv.org/abs/2404.06395). The sqrt shape is that of
    Hägele et al. 2024 (https://arxiv.org/abs/2405.18392, section 3). A decay as long as the whole run, in
    the cosine shape, is the cosine schedule.
    """
    factor = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    if decay_from is None or step < decay_from:
        return factor
    done = min((step - decay_from) / decay, 1.0) if decay else 1.0
    fall = {"sqrt": 1 - math.sqrt(done), "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
    return factor * fall[config.decay_shape]


def load_config(kind: type[T], source: str | Path, changes: typing.Sequence[str] = ()) -> T:
    """Read settings of one kind from a TOML file, or from a shipped one by name ("pocket/vae").

    `changes` are "table.key=value" in TOML notation, applied last. Raises InvalidRequest naming the
    file and the setting.
    """
    path = _find(str(source))
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"cannot read the settings {path}: {error}") from error
    for change in changes:
        _apply(table, change)
    return parse(kind, table, str(path))


def _find(source: str) -> Path:
    path = Path(source)
    if path.exists():
        return path
    here = Path(str(resources.files("darkroom.train")))
    known = {f"{file.parents[1].name}/{file.stem}": file for file in sorted(here.glob("*/configs/*.toml"))}
    if source in known:
        return known[source]
    raise InvalidRequest(
        f"no settings file {source!r}: give a TOML file or a shipped one; {nearest(source, known)}"
    )


def _apply(table: dict[str, Any], change: str) -> None:
    name, equals, text = change.partition("=")
    *parents, key = name.strip().split(".")
    if not equals or not key:
        raise InvalidRequest(f"{change!r} is not a setting: write table.key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        value = text.strip()
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise InvalidRequest(f"{change!r}: {parent!r} is a value, not a table")
    table[key] = value


def parse(kind: type[T], table: dict[str, Any], where: str) -> T:
    """A table as a dataclass. Raises InvalidRequest for unknown keys and values of another type."""
    hints = typing.get_type_hints(kind)
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in hints:
            raise InvalidRequest(f"{where}: unknown setting {key!r}; {nearest(key, hints)}")
        values[key] = _value(hints[key], value, f"{where}: {key}")
    try:
        return kind(**values)
    except InvalidRequest as error:
        raise InvalidRequest(f"{where}: {error}") from None
    except TypeError as error:  # A dataclass says which of its fields are missing.
        raise InvalidRequest(f"{where}: {error}") from None


def _value(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise InvalidRequest(f"{where} is {value!r}: it must be a table")
        return parse(hint, value, where)
    if origin is Literal:
        known = typing.get_args(hint)
        if value not in known:
            raise InvalidRequest(f"{where} is {value!r}; {nearest(str(value), map(str, known))}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise InvalidRequest(f"{where} is {value!r}: it must be a list")
        return tuple(_value(typing.get_args(hint)[0], each, where) for each in value)
    if origin in (types.UnionType, typing.Union):
        for option in typing.get_args(hint):
            try:
                return _value(option, value, where)
            except InvalidRequest:
                continue
        raise InvalidRequest(f"{where} is {value!r}: it must be {hint}")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise InvalidRequest(f"{where} is {value!r}: it must be of type {hint.__name__}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequest(f"{where} is {value}: it must be finite")
    return value
