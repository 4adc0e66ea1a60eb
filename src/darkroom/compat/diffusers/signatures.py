"""diffusers' signatures as data: the names of arguments in order, over a table of their types and defaults."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from inspect import Parameter, Signature
from typing import Any, TypeVar, cast, get_type_hints

from darkroom.errors import InvalidRequest, nearest

Method = TypeVar("Method", bound=Callable[..., Any])


def refuse(**given: object) -> None:
    """Raises InvalidRequest where one of these, which nothing here honours, is given."""
    for name, value in given.items():
        if value is not None:
            raise InvalidRequest(f"{name} is not there: leave it out")


def taking(names: str, types: Any, defaults: Mapping[str, Any]) -> Callable[[Method], Method]:
    """Has a method take the arguments `names`, as diffusers' of that name does: in that order, those behind a * by name
    alone. The method itself is handed all that `types` knows by name, those that it does not take as they are anyhow.

    `types`: a TypedDict; what it does not require is as in `defaults`, or None. A call with other arguments raises
    InvalidRequest.
    """
    hints = get_type_hints(types)
    anyhow = {name: defaults.get(name) for name in hints if name not in types.__required_keys__}
    ordered, _, named_alone = names.partition("*")
    parameters = [
        Parameter(name, kind, default=anyhow.get(name, Parameter.empty), annotation=hints[name])
        for kind, some in ((Parameter.POSITIONAL_OR_KEYWORD, ordered), (Parameter.KEYWORD_ONLY, named_alone))
        for name in some.split()
    ]
    places = ordered.split()
    takes = {each.name: each.default for each in parameters}

    def take(method: Method) -> Method:
        title = "a call" if method.__name__ == "__call__" else method.__name__

        @functools.wraps(method)
        def taken(self: Any, *placed: Any, **named: Any) -> Any:
            if len(placed) > len(places):
                raise InvalidRequest(
                    f"{title} takes {len(places)} arguments without names, not {len(placed)}"
                )
            for name in named:
                if name not in takes:
                    raise InvalidRequest(f"{title} takes no {name!r}: {nearest(name, takes)}")
                if name in places[: len(placed)]:
                    raise InvalidRequest(f"{title} is given {name} twice, by place and by name: give it once")
            given = {**anyhow, **takes, **dict(zip(places, placed, strict=False)), **named}
            for name in takes:
                if given[name] is Parameter.empty:
                    raise InvalidRequest(f"{title} needs {name}: give it")
            return method(self, **given)

        own = Parameter("self", Parameter.POSITIONAL_OR_KEYWORD)
        cast(Any, taken).__signature__ = Signature([own, *parameters])
        return cast(Method, taken)

    return take
