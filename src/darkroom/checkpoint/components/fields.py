"""Reading the fields of a `config.json` into a record of dimensions.

Fields whose one supported value is built into the networks are checked, so that a file which needs something else is
refused by name instead of running wrong. Fields that change nothing at inference (dropout, initialisation, training
state) are ignored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from types import UnionType
from typing import TYPE_CHECKING, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from darkroom.errors import ModelError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Json = Mapping[str, Any]
Config = TypeVar("Config", bound="DataclassInstance")
"""One of `darkroom.networks.configs`."""


def known(kind: type[Config], data: Json) -> dict[str, Any]:
    """The fields of a record that the JSON has under the same name."""
    return {f.name: frozen(data[f.name]) for f in fields(kind) if f.name in data}


def record(what: str, kind: type[Config], given: Json) -> Config:
    """The record, if every value is of its field's type. Raises ModelError that names one that is not; `what` is being
    read."""
    hints = get_type_hints(kind)
    for name, value in given.items():
        if not _fits(value, hints[name]):
            wanted = kind.__annotations__[name]
            raise ModelError(f"{what}: {name} = {value!r} should be {wanted}; the file is damaged or unusual")
    return kind(**given)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value is of a type, numbers not negative."""
    if get_origin(hint) in (Union, UnionType):
        return any(_fits(value, kind) for kind in get_args(hint))
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and bool(value) and all(_fits(v, get_args(hint)[0]) for v in value)
    if hint in (int, float):
        kinds = int if hint is int else int | float
        return isinstance(value, kinds) and not isinstance(value, bool) and value >= 0
    return isinstance(value, hint)


def frozen(value: Any) -> Any:
    """JSON's lists as tuples."""
    return tuple(frozen(v) for v in value) if isinstance(value, list | tuple) else value


def single(value: Any) -> Any:
    """One number where the files may list equal ones."""
    return (
        value[0] if isinstance(value, list | tuple) and value and all(v == value[0] for v in value) else value
    )


def fixed(what: str, data: Json, supported: Json) -> None:
    """Raise ModelError where a field has another value than the one supported; a missing one has it."""
    for name, value in supported.items():
        one_of(what, data, name, (value,), value)


def one_of(what: str, data: Json, name: str, supported: Sequence[Any], default: Any = None) -> None:
    """Raise ModelError where a field has none of the values supported."""
    value = data.get(name, default)
    if value not in supported:
        words = ", ".join(map(repr, supported))
        raise ModelError(f"{what}: {name} = {value!r} is not supported; what Darkroom can run: {words}")


def all_of(
    what: str, data: Json, name: str, supported: Sequence[str], default: Sequence[str]
) -> tuple[str, ...]:
    """The values of a field that lists several. Raises ModelError where one is not supported."""
    kinds = frozen(data.get(name, default))
    for kind in kinds if isinstance(kinds, tuple) else (kinds,):
        one_of(what, {name: kind}, name, supported)
    return kinds  # type: ignore[no-any-return]
