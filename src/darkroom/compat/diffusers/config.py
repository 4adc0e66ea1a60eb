"""Settings as diffusers keeps them: read like attributes or like a dictionary, handed from one class to another."""

from __future__ import annotations

import copy
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeAlias, TypeVar

from darkroom.errors import InvalidRequest, ModelError, nearest
from darkroom.files import expanded, write_json
from darkroom.numeric import real

log = logging.getLogger(__name__)

Defaults: TypeAlias = "dict[str, Any]"
Own = TypeVar("Own", bound="Configured")

_LEFT_OUT = "_use_default_values"
"""In a config, the settings nobody gave: another class takes its own defaults for those, as in diffusers."""


class Config(dict[str, Any]):
    """A dictionary whose entries are attributes too, and that nobody changes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"the config has no {name!r}: {nearest(name, self)}") from None

    def __setattr__(self, name: str, value: object) -> None:
        raise InvalidRequest(f"a config is not changed: use from_config(config, {name}={value!r})")

    __setitem__ = __setattr__

    def __reduce__(self) -> tuple[Any, ...]:
        return Config, (dict(self),)

    def __deepcopy__(self, memo: dict[int, Any]) -> Config:
        return Config(copy.deepcopy(dict(self), memo))


def _like(what: str, value: Any, default: Any) -> Any:
    """A setting as Python's: a number, a truth or a word where its default is one, NumPy's and tensors included; None
    is the default. Raises InvalidRequest for another sort."""
    plain = value.tolist() if hasattr(value, "tolist") else value
    if plain is None or default is None or isinstance(default, list):
        return default if plain is None else plain
    found: Any
    if isinstance(default, bool):
        found, wanted = bool(plain) if plain in (True, False) else None, "true or false"
    elif isinstance(default, str):
        found, wanted = plain if isinstance(plain, str) else None, "a word"
    elif isinstance(default, int):
        number = real(plain)
        found, wanted = int(number) if number is not None and number % 1 == 0 else None, "a whole number"
    else:
        number = real(plain)
        found, wanted = None if number is None or math.isnan(number) else number, "a number"
    if found is None:
        raise InvalidRequest(f"{what} is {value!r}: give {wanted}, such as {default!r}")
    return found


class Configured:
    """Something made from settings: `defaults` names them all, `fixed` has those that Darkroom knows one value of."""

    config_name: ClassVar[str]
    defaults: ClassVar[Defaults]
    fixed: ClassVar[Defaults] = {}
    positional: ClassVar[tuple[str, ...]] = ()
    """The settings that may be given without their names."""

    def __init__(self, *values: Any, **settings: Any) -> None:
        name = type(self).__name__
        if len(values) > len(self.positional):
            raise InvalidRequest(
                f"{name} takes {len(self.positional)} settings without names: name the others"
            )
        settings = {**dict(zip(self.positional, values, strict=False)), **settings}
        for key, value in settings.items():
            if key not in self.defaults:
                raise InvalidRequest(f"{name} has no setting {key!r}: {nearest(key, self.defaults)}")
            settings[key] = value = _like(f"{name}: {key}", value, self.defaults[key])
            if key in self.fixed and value != self.fixed[key]:
                raise InvalidRequest(
                    f"{name} with {key} = {value!r} is not there: leave it {self.fixed[key]!r}"
                )
        left_out = [key for key in self.defaults if key not in settings]
        self.config = Config({**self.defaults, **settings, "_class_name": name, _LEFT_OUT: left_out})

    @classmethod
    def from_config(cls: type[Own], config: Mapping[str, Any], **settings: Any) -> Own:
        """One with the settings of another's `config` and those given, as far as this class has them."""
        if not isinstance(config, Mapping):
            raise InvalidRequest(
                f"config is {config!r}: give another's .config, or use from_pretrained for a folder"
            )
        asks = settings.pop("return_unused_kwargs", False)
        unused = {key: settings.pop(key) for key in [*settings] if key not in cls.defaults}
        for key in {} if asks else unused:
            log.warning(
                "%s has no setting %r, which is left out: %s", cls.__name__, key, nearest(key, cls.defaults)
            )
        left_out = (*config.get(_LEFT_OUT, ()), _LEFT_OUT)
        given = {key: value for key, value in config.items() if key not in left_out}
        made = cls(**{key: value for key, value in given.items() if key in cls.defaults} | settings)
        # What only the other class knows travels on, for whoever is made from this one's config.
        made.config = Config({**given, **made.config})
        return (made, unused) if asks else made  # type: ignore[return-value]

    @classmethod
    def load_config(cls, path: str | Path, subfolder: str | None = None, **_: Any) -> Config:
        """The settings in a folder's file."""
        folder = expanded(path) / (subfolder or "")
        file = folder if folder.is_file() else folder / cls.config_name
        try:
            found = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"{folder} has no {cls.config_name} that can be read: {error}") from error
        if not isinstance(found, dict):
            raise ModelError(f"{file} holds {type(found).__name__}: it must be an object")
        return Config(found)

    @classmethod
    def from_pretrained(
        cls: type[Own], path: str | Path, subfolder: str | None = None, **settings: Any
    ) -> Own:
        """One with the settings of a folder's file."""
        own = {key: value for key, value in settings.items() if key in cls.defaults}
        return cls.from_config(cls.load_config(path, subfolder), **own)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the settings to a folder's file."""
        write_json(Path(folder) / self.config_name, self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The settings as they stand in a file."""
        return {key: value for key, value in self.config.items() if key != _LEFT_OUT}

    def __repr__(self) -> str:
        shown = {key: value for key, value in self.config.items() if not key.startswith("_")}
        return f"{type(self).__name__} {json.dumps(shown, indent=2, default=str)}"
