"""A pipeline's networks and tokenizers as callbacks and scripts of diffusers' users look at them.

A face is the thing itself, its tensors and modules, under another class: what diffusers' have besides is there, and
the engine, which speaks ours, is not disturbed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

from darkroom.checkpoint.components import component_of
from darkroom.compat.diffusers.config import Config
from darkroom.errors import InvalidRequest, nearest
from darkroom.numeric import integer
from darkroom.prompt import Tokenizer
from darkroom.prompt.tokenizer import WORD_END, byte_alphabet

Kind = TypeVar("Kind")


def face_of(thing: Any, kind: type[Kind], **told: Any) -> Kind:
    """A thing with the methods of `kind` too, whose attributes are `told`."""
    own: Any = type(type(thing).__name__, (kind, type(thing)), told)
    face = own.__new__(own)
    face.__dict__ = thing.__dict__
    return face  # type: ignore[no-any-return]


def same_network(value: Any, network: nn.Module) -> bool:
    """Whether something is a network, its face, or either as torch.compile returns it."""
    return getattr(getattr(value, "_orig_mod", value), "__dict__", None) is network.__dict__


class Network:
    """A network's place, type and dimensions."""

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._run(*args, **named)

    def _run(self, *args: Any, **named: Any) -> Any:
        """What our network makes of something."""
        return self._own(*args, **named)

    @property
    def _own(self) -> Any:
        """Our network itself."""
        own = object.__new__(_kind(self))
        own.__dict__ = self.__dict__
        return own

    @property
    def config(self) -> Config:
        """Its config.json."""
        return Config(component_of(_kind(self)).to_json(self.__dict__["config"]))

    @property
    def dtype(self) -> torch.dtype:
        """What its weights are kept in."""
        return self._weight.dtype

    @property
    def device(self) -> torch.device:
        return self._weight.device

    @property
    def _weight(self) -> torch.Tensor:
        weights: Iterator[torch.Tensor] = self.parameters()  # type: ignore[attr-defined]
        return next(each for each in weights if each.is_floating_point())


def _kind(face: Network) -> Any:
    """The class of what a face is of."""
    return type(face).__bases__[1]


_seen: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()


def network(of: nn.Module | None, kind: type[Network] = Network) -> Any:
    """A network's face, the same one whenever it is asked for."""
    if of is None:
        return None
    if of not in _seen:
        _seen[of] = face_of(of, kind)
    return _seen[of]


class BatchEncoding(dict[str, Any]):
    """What a tokenizer makes of texts, by attribute or by name: `input_ids` and `attention_mask`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no {name!r}: there are {', '.join(self)}") from None

    def to(self, device: Any) -> BatchEncoding:
        """The same, its tensors on a device."""
        moved = {
            name: each.to(device) if isinstance(each, torch.Tensor) else each for name, each in self.items()
        }
        return BatchEncoding(moved)


_PADDINGS = ("longest", "max_length", "do_not_pad")


def _padded_to(padding: bool | str, length: int, rows: Sequence[Sequence[int]]) -> int:
    """How long rows are made at least."""
    if padding == "max_length":
        return length
    if padding in (True, "longest"):
        return max(map(len, rows), default=0)
    if padding in (False, "do_not_pad"):
        return 0
    raise InvalidRequest(f"padding is {padding!r}: {nearest(str(padding), _PADDINGS)}")


class _CLIPTokenizer:
    """transformers' CLIPTokenizer, as far as prompts are measured, cut and shown with it."""

    _own: Tokenizer

    @property
    def model_max_length(self) -> int:
        return self._own.length

    @property
    def bos_token_id(self) -> int:
        return self._own.start

    @property
    def eos_token_id(self) -> int:
        return self._own.end

    @property
    def pad_token_id(self) -> int:
        return self._own.pad

    @property
    def vocab_size(self) -> int:
        return len(self.get_vocab())

    def get_vocab(self) -> Mapping[str, int]:
        return self._own.vocabulary

    def __len__(self) -> int:
        return self.vocab_size

    def __call__(
        self,
        text: str | Sequence[str],
        padding: bool | str = False,
        max_length: int | None = None,
        truncation: bool | str = False,
        return_tensors: str | None = None,
        add_special_tokens: bool = True,
        **_: Any,
    ) -> BatchEncoding:
        """The ids of a text, or of several. `padding`: to the longest (True, "longest"), to `max_length`, or none
        (False, "do_not_pad"). `return_tensors`: "pt", "np", or lists if left out. Raises InvalidRequest for texts that
        make no tensor."""
        texts = [text] if isinstance(text, str) else list(text)
        length = self.model_max_length if max_length is None else integer(max_length)
        if length is None or length < 2:
            raise InvalidRequest(f"max_length is {max_length!r}: give a whole number of at least 2")
        marks = 2 * add_special_tokens
        rows = [self._own.encode(each) for each in texts]
        if truncation not in (False, "do_not_truncate"):
            rows = [row[: length - marks] for row in rows]
        if add_special_tokens:
            rows = [[self.bos_token_id, *row, self.eos_token_id] for row in rows]
        most = _padded_to(padding, length, rows)
        rests = [max(most - len(row), 0) for row in rows]
        found = {
            "input_ids": [row + [self.pad_token_id] * rest for row, rest in zip(rows, rests, strict=True)],
            "attention_mask": [[1] * len(row) + [0] * rest for row, rest in zip(rows, rests, strict=True)],
        }
        if return_tensors is not None:
            return BatchEncoding({name: _tensor(rows, return_tensors) for name, rows in found.items()})
        return BatchEncoding(
            found if not isinstance(text, str) else {name: rows[0] for name, rows in found.items()}
        )

    def encode(self, text: str, **settings: Any) -> Any:
        """The ids of a text, with its marks."""
        return self(text, **settings).input_ids

    def tokenize(self, text: str) -> list[str]:
        """A text as the vocabulary has it, without marks."""
        return self.convert_ids_to_tokens(self._own.encode(text))

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]:
        entries = {number: entry for entry, number in self._own.vocabulary.items()}
        return [entries[int(each)] for each in ids]

    def decode(self, token_ids: Any, skip_special_tokens: bool = False, **_: Any) -> str:
        """The text of ids, as CLIP reads it: in lower case, with spaces between words."""
        marks = {self.bos_token_id, self.eos_token_id, self.pad_token_id} if skip_special_tokens else set()
        text = "".join(self.convert_ids_to_tokens([each for each in token_ids if int(each) not in marks]))
        signs = {sign: byte for byte, sign in byte_alphabet().items()}
        return bytes(signs[sign] for sign in text).decode("utf-8", "replace").replace(WORD_END, " ").strip()

    def batch_decode(self, sequences: Any, skip_special_tokens: bool = False, **_: Any) -> list[str]:
        return [self.decode(each, skip_special_tokens) for each in sequences]


def _tensor(rows: Sequence[Sequence[int]], kind: str) -> Any:
    if len(set(map(len, rows))) > 1:
        raise InvalidRequest("texts of several lengths make no tensor: give padding=True, or 'max_length'")
    if kind not in ("pt", "np"):
        raise InvalidRequest(f"return_tensors is {kind!r}: choose pt or np")
    tensor = torch.tensor(rows)
    return tensor if kind == "pt" else tensor.numpy()


def tokenizer(of: Tokenizer) -> Any:
    """A tokenizer's face."""
    return face_of(of, _CLIPTokenizer, _own=of)
