"""CLIP's byte-pair tokenizer: text to the ids a text encoder was trained on.

The algorithm is OpenAI's (Radford et al. 2021, `clip/simple_tokenizer.py`) as `transformers`
applies it today: cut at the marks as they are written; Unicode NFC, whitespace runs to one space,
lower case; split into contractions, runs of letters, single digits and runs of other signs; each
piece as UTF-8 bytes written in a printable alphabet, its last one marked `</w>`; then the merges,
lowest rank first. HTML entities are left as they are.
"""

from __future__ import annotations

import gzip
import json
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from heapq import heappop, heappush
from itertools import pairwise
from pathlib import Path
from typing import Any

import regex

from darkroom.errors import ModelError
from darkroom.files import write_bytes, write_json

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
# Nearly all that Unicode made letters and numbers after version 16: to the reference they are other signs.
_LATE = r"\U00012550-\U00012686\U00018d09-\U000191d2\U0001df2b-\U0001dfff\U000323b0-\U0003fc3f"
_LETTER, _NUMBER = rf"[\p{{L}}--[{_LATE}]]", rf"[\p{{N}}--[{_LATE}]]"
_PIECE = regex.compile(
    r"(?V1)<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    rf"|{_LETTER}+|{_NUMBER}|[^\s{_LETTER}{_NUMBER}]+"
)
# A header line, then more merges than CLIP takes.
_CLIP_MERGES = Path(__file__).parent / "vocabulary" / "bpe_simple_vocab_16e6.txt.gz"
_CLIP_COUNT = 49152 - 256 - 2


@cache
def byte_alphabet() -> dict[int, str]:
    """GPT-2's printable stand-in for each byte: itself where printable, else a sign from U+0100 on."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


@dataclass(frozen=True)
class Added:
    """A token that was added to a vocabulary: wherever a text holds its content it is that one id.

    normalized: found in the text as CLIP reads it, whatever its case; else exactly as it is written. single_word: only
    where no letter or digit is beside it.
    """

    content: str
    id: int
    normalized: bool = True
    single_word: bool = False

    def pattern(self) -> str:
        content = regex.escape(normal(self.content) if self.normalized else self.content)
        return rf"(?<!\w){content}(?!\w)" if self.single_word else content


def normal(text: str) -> str:
    """A text as CLIP reads it: Unicode NFC, whitespace runs to one space, lower case."""
    text = unicodedata.normalize("NFC", text)
    # Letter by letter: str.lower() would look at the neighbours of a Greek sigma, the reference does not.
    return "".join(character.lower() for character in regex.sub(r"\s+", " ", text))


def pieces(text: str) -> list[str]:
    """The words a text is cut into before any merge."""
    lowered = normal(text)
    # A mark that is one only now, in lower case, is text like any other.
    return [
        part
        for piece in _PIECE.findall(lowered)
        for part in ((piece[:2], piece[2:-2], piece[-2:]) if piece in (START, END) else (piece,))
    ]


def _symbols(piece: str) -> tuple[str, ...]:
    alphabet = byte_alphabet()
    symbols = [alphabet[byte] for byte in piece.encode("utf-8", "surrogatepass")]
    return (*symbols[:-1], symbols[-1] + WORD_END)


def _merge(symbols: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    merged: list[str] = []
    i = 0
    while i < len(symbols):
        if symbols[i : i + 2] == pair:
            merged.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            merged.append(symbols[i])
            i += 1
    return tuple(merged)


def _entries(merges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """A vocabulary in CLIP's order: bytes, bytes at a word's end, merges, the two marks."""
    alphabet = list(byte_alphabet().values())
    entries = alphabet + [sign + WORD_END for sign in alphabet] + ["".join(pair) for pair in merges]
    return {entry: i for i, entry in enumerate([*entries, START, END])}


@cache
def _clip_merges() -> tuple[tuple[str, str], ...]:
    lines = gzip.decompress(_CLIP_MERGES.read_bytes()).decode("utf-8").split("\n", _CLIP_COUNT + 1)
    return tuple((left, right) for left, right in map(str.split, lines[1 : _CLIP_COUNT + 1]))


@lru_cache(maxsize=4)  # The encoders of a model have one vocabulary, and so have most models.
def _tables(
    first: bytes, second: bytes | None = None
) -> tuple[dict[str, int], list[tuple[str, str]], list[Added]]:
    """Vocabulary, merges and what was added, of `vocab.json` and `merges.txt`, or of a `tokenizer.json`."""
    values = json.loads(first)
    if second is not None:
        lines = second.decode("utf-8").splitlines()
        rows = [line.split() for line in lines if line and not line.startswith("#version")]
        return values, [(left, right) for left, right in rows], []
    model = values["model"]
    rows = [row.split() if isinstance(row, str) else row for row in model["merges"]]
    added = [_added(each, each["id"]) for each in values.get("added_tokens") or ()]
    return model["vocab"], [(left, right) for left, right in rows], added


def _added(values: Mapping[str, Any], number: int) -> Added:
    normalized = bool(values.get("normalized", not values.get("special", False)))
    return Added(values["content"], int(number), normalized, bool(values.get("single_word", False)))


def _added_beside(folder: Path, config: Mapping[str, Any]) -> Iterator[Added]:
    """What was added to a vocabulary, by the files beside it: as releases of transformers before 5 write them."""
    for number, values in (config.get("added_tokens_decoder") or {}).items():
        yield _added(values, number)
    if (file := folder / "added_tokens.json").is_file():
        for content, number in json.loads(file.read_text("utf-8")).items():
            yield Added(content, int(number))


class _Marks:
    """Finds some marks in texts: the leftmost, of several there the longest."""

    def __init__(self, marks: Sequence[Added]) -> None:
        self._ids = {normal(mark.content) if mark.normalized else mark.content: mark.id for mark in marks}
        longest = sorted(marks, key=lambda mark: len(mark.content), reverse=True)
        self._at = regex.compile(f"({'|'.join(mark.pattern() for mark in longest)})") if marks else None

    def split(self, text: str) -> list[tuple[str, int | None]]:
        """The text in parts, each with its id where it is a mark."""
        if self._at is None:
            return [(text, None)]
        parts = self._at.split(text)
        return [(part, self._ids[part] if i % 2 else None) for i, part in enumerate(parts)]


class Tokenizer:
    """Text to ids. `length` counts the two end marks (77 for every CLIP).

    The marks are `<|startoftext|>`, `<|endoftext|>`, the padding and whatever was added to the vocabulary (pivotal
    tuning). Each is one id wherever a text holds it: padded with "!", as the published OpenCLIP folders are, "!!!" is
    three paddings, as in the reference.
    """

    def __init__(
        self,
        vocabulary: dict[str, int],
        merges: Sequence[tuple[str, str]],
        length: int = 77,
        pad: str = END,
        added: Sequence[Added] = (),
    ) -> None:
        self._words = vocabulary
        vocabulary = vocabulary | {each.content: each.id for each in added}
        for needed in (START, END, pad):
            if needed not in vocabulary:
                raise ModelError(f"the tokenizer's vocabulary has no {needed!r}: it is not a CLIP vocabulary")
        self.vocabulary = vocabulary
        self.merges = list(merges)
        self.length = length
        self.start, self.end, self.pad = vocabulary[START], vocabulary[END], vocabulary[pad]
        self._pad = pad
        self.added = tuple(added)
        own = {START, END, pad} - {each.content for each in added}
        marks = [*(Added(mark, vocabulary[mark], normalized=False) for mark in own), *added]
        self._exact = _Marks([mark for mark in marks if not mark.normalized])
        self._normal = _Marks([mark for mark in marks if mark.normalized])
        self._ranks = {pair: rank for rank, pair in enumerate(self.merges)}
        self._ids_of = lru_cache(maxsize=65536)(self._ids)

    def encode(self, text: str) -> list[int]:
        """The ids of a text, without end marks, padding or limit."""
        ids: list[int] = []
        for part, mark in self._exact.split(text):
            if mark is not None:
                ids.append(mark)
                continue
            for words, word in self._normal.split(normal(part) if self.added else part):
                if word is not None:
                    ids.append(word)
                else:
                    ids += [i for piece in pieces(words) for i in self._ids_of(piece)]
        return ids

    def __call__(self, text: str) -> list[int]:
        """The first `length` ids of a text, marked and padded; what does not fit is left out."""
        return self.framed(self.encode(text)[: self.length - 2])

    def framed(self, ids: Sequence[int]) -> list[int]:
        """Ids with the marks around them, padded to `length`."""
        framed = [self.start, *ids, self.end]
        return framed + [self.pad] * (self.length - len(framed))

    def _ids(self, piece: str) -> tuple[int, ...]:
        """Merges by a queue of what can be merged: n log n for a piece of n bytes, however long."""
        symbols = [*_symbols(piece), ""]  # What no merge knows: the end, before the beginning, merged away.
        end = len(symbols) - 1
        before, after = [*range(-1, end)], [*range(1, end + 1), end]
        queue: list[tuple[int, int, str]] = []

        def consider(i: int) -> None:
            left, right = symbols[i], symbols[after[i]]
            if (left, right) in self._ranks:
                heappush(queue, (self._ranks[left, right], i, left + right))

        for i in range(end):
            consider(i)
        while queue:
            _, i, merged = heappop(queue)
            j = after[i]
            if symbols[i] + symbols[j] != merged or (symbols[i], symbols[j]) not in self._ranks:
                continue  # One of the two has been merged with another since.
            symbols[i], symbols[j] = merged, ""
            after[i], before[after[j]] = after[j], i
            consider(before[i])
            consider(i)
        return tuple(self.vocabulary.get(symbol, self.end) for symbol in symbols if symbol)

    @classmethod
    def clip(cls, pad: str = END) -> Tokenizer:
        """CLIP's own tokenizer, of 49,408 entries, from the merges that OpenAI published.

        `pad` is "!" for the OpenCLIP encoders of Stable Diffusion 2, XL and 3.
        """
        return cls(_entries(_clip_merges()), _clip_merges(), pad=pad)

    @classmethod
    def train(cls, texts: Iterable[str], size: int, length: int = 77) -> Tokenizer:
        """Learn `size` vocabulary entries from texts (Sennrich et al. 2016), all bytes included."""
        smallest = len(_entries(()))
        words = Counter(piece for text in texts for piece in pieces(text))
        split = {word: _symbols(word) for word in words}
        merges: list[tuple[str, str]] = []
        while smallest + len(merges) < size:
            pairs: defaultdict[tuple[str, str], int] = defaultdict(int)
            for word, count in words.items():
                for pair in pairwise(split[word]):
                    pairs[pair] += count
            if not pairs:
                break
            best = max(pairs, key=lambda pair: (pairs[pair], pair))
            merges.append(best)
            split = {word: _merge(symbols, best) for word, symbols in split.items()}
        return cls(_entries(merges), merges, length)

    @classmethod
    def load(cls, folder: Path | str) -> Tokenizer:
        """Read a Hugging Face tokenizer folder: `vocab.json` + `merges.txt`, or `tokenizer.json` alone."""
        folder = Path(folder)
        try:
            names = ("vocab.json", "merges.txt") if (folder / "vocab.json").exists() else ("tokenizer.json",)
            vocabulary, merges, added = _tables(*((folder / name).read_bytes() for name in names))
            config: dict[str, Any] = {}
            for name in ("tokenizer_config.json", "special_tokens_map.json"):  # The latter has the last word.
                if (folder / name).exists():
                    config |= json.loads((folder / name).read_text("utf-8"))
            # Of several that say something of one token, the first.
            by_content = {each.content: each for each in reversed([*added, *_added_beside(folder, config)])}
            added = [each for each in by_content.values() if each.content not in (START, END)]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(f"cannot read the tokenizer in {folder}: {error}") from error
        pad = config.get("pad_token", END)
        pad = pad.get("content", END) if isinstance(pad, dict) else pad
        length = min(int(config.get("model_max_length", 77)), 77)
        return cls(vocabulary, merges, length, pad or END, added)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        merges = [list(pair) for pair in self.merges]
        values = {"vocabulary": self._words, "merges": merges, "length": self.length, "pad": self._pad}
        return values | ({"added": [asdict(each) for each in self.added]} if self.added else {})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Tokenizer:
        """The inverse of `to_dict`. Raises ModelError where something is missing."""
        try:
            merges = [(left, right) for left, right in values["merges"]]
            added = [Added(**each) for each in values.get("added", ())]
            return cls(values["vocabulary"], merges, int(values["length"]), values["pad"], added)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"a vocabulary cannot be read: {error!r}") from error

    def is_clip(self, pad: str = END) -> bool:
        """Whether it is CLIP's own, padded so."""
        return self._pad == pad and len(self.vocabulary) == 49_408 and self.merges == list(_clip_merges())

    def save(self, folder: Path | str) -> None:
        """Write the folder `transformers.CLIPTokenizer` reads."""
        folder = Path(folder)
        lines = ["#version: 0.2", *(" ".join(pair) for pair in self.merges)]
        write_bytes(folder / "merges.txt", ("\n".join(lines) + "\n").encode())
        write_json(folder / "vocab.json", self._words)
        marks = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": self._pad}
        write_json(folder / "special_tokens_map.json", marks)
        config = {"model_max_length": self.length, "tokenizer_class": "CLIPTokenizer", "do_lower_case": True}
        if self.added:
            write_json(folder / "added_tokens.json", {each.content: each.id for each in self.added})
            config["added_tokens_decoder"] = {str(each.id): _decoder(each) for each in self.added}
        write_json(folder / "tokenizer_config.json", config | marks)


def _decoder(added: Added) -> dict[str, Any]:
    """A token in the words of transformers' tokenizer_config.json."""
    fields = {name: value for name, value in asdict(added).items() if name != "id"}
    return fields | {"lstrip": False, "rstrip": False, "special": not added.normalized}
