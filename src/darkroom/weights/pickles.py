"""Reading pickles without running them.

A pickle is a program for a small stack machine. Python's own reader imports whatever the program names and calls it,
which is how a downloaded checkpoint takes over a computer. This reader knows the opcodes torch.save has written
since Python 2 (protocols 1 to 5; described in CPython's Lib/pickletools.py) and the few names that make tensors and
plain containers, each of which stands for a function of `unpickled`. Any other name becomes an `Opaque`: calling it,
giving it state or items leaves a mark on the stand-in and does nothing else. Nothing is imported and nothing is
called, so nothing can happen; a file that names what only an attack would is refused all the same, to say so.
"""

from __future__ import annotations

import gc
import mmap
import struct
from collections.abc import Callable
from typing import Any

from darkroom.errors import ModelError
from darkroom.weights.mapped import short
from darkroom.weights.unpickled import DTYPES, MAKERS, Opaque, Storage, StoredTensor, as_key, dangerous

# In bytes, roughly what the values made take; 750,000 opcodes. A checkpoint with its optimiser's state uses a fifth.
_BUDGET = 48_000_000
_LONGEST_LINE = 4096


class Machine:
    """Reads the pickles that follow one another in `data[start:end]`, one a call of `run`.

    `stored` turns what torch calls a persistent id into a Storage; `error` makes the ModelError of a message.
    """

    def __init__(
        self,
        data: bytes | mmap.mmap,
        start: int,
        end: int,
        stored: Callable[[Any], Storage | Opaque],
        error: Callable[[str], ModelError],
    ) -> None:
        self.data = data
        self.at = start
        self.end = end
        self.stored = stored
        self.error = error
        self.budget = _BUDGET
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """The value of the next pickle. Raises ModelError where it is damaged, too large or dangerous."""
        self.stack, self.marked, self.memo = [], [], {}
        begin = self.at
        # Nothing made here dies before the end: looking for what did would take most of the time.
        collecting = gc.isenabled()
        gc.disable()
        try:
            while (code := self.opcode()) != _STOP:
                if code not in _OPERATIONS:
                    raise ValueError(f"opcode 0x{code:02x}, which torch.save never writes")
                _OPERATIONS[code](self)
            return self.stack.pop()
        except ModelError:
            raise
        except (ArithmeticError, LookupError, AttributeError, TypeError, ValueError, struct.error) as error:
            raise self.error(
                f"has a damaged pickle, {self.at - begin} bytes in ({short(str(error))}): fetch it anew"
            ) from error
        finally:
            if collecting:
                gc.enable()

    def opcode(self) -> int:
        self.spend(64)
        if self.at >= self.end:
            raise ValueError("it has no end")
        self.at += 1
        return self.data[self.at - 1]

    def spend(self, nbytes: int) -> None:
        self.budget -= nbytes
        if self.budget < 0:
            raise self.error("holds a pickle of more parts than any model has: it is damaged or malicious")

    def take(self, size: int) -> bytes:
        """The next bytes of the pickle."""
        if not 0 <= size <= self.end - self.at:
            raise ValueError(f"{short(size)} bytes where {self.end - self.at} are left")
        if size > 8:
            self.spend(size)
        self.at += size
        return self.data[self.at - size : self.at]

    def encoded(self, size: int) -> bytes:
        """The bytes of a text: one rare sign in it, and Python keeps every sign of it in four bytes."""
        raw = self.take(size)
        if not raw.isascii():
            self.spend(3 * size)
        return raw

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def line(self) -> str:
        end = self.data.find(b"\n", self.at, min(self.end, self.at + _LONGEST_LINE))
        if end < 0:
            raise ValueError("a line without an end")
        return self.take(end + 1 - self.at)[:-1].decode("utf-8")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, size: int) -> list[Any]:
        """The last values of the stack, which must be there."""
        if size > len(self.stack):
            raise IndexError("the stack is empty")
        values = self.stack[len(self.stack) - size :]
        del self.stack[len(self.stack) - size :]
        return values

    def since_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.marked.pop()
        return values

    def mark(self) -> None:
        self.marked.append(self.stack)
        self.stack = []

    def drop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.since_mark()

    def remember(self, key: int) -> None:
        self.memo[key] = self.stack[-1]

    def name(self, module: Any, name: Any) -> None:
        """What a name stands for: a type of numbers, or an Opaque, which `call` may know. Nothing is looked up."""
        if not (isinstance(module, str) and isinstance(name, str)):
            raise TypeError("a name that is no text")
        # Of the checks, as a pickle names a thing once and remembers it; of the text, which a name of its own may be.
        self.spend(1024 + 4 * (len(module) + len(name)))
        full = f"{module}.{name}"
        if dangerous(module, name):
            raise self.refusal(full)
        self.push(DTYPES.get(full) or Opaque(full))

    def attribute(self, owner: Any, name: Any, *_: Any) -> None:
        """getattr: how protocols before 4 spell a nested class or a method, and Python 3.11 an enumeration's member."""
        if not isinstance(owner, Opaque):
            raise TypeError("an attribute of what has none")
        self.name(owner.name, name)
        # Of a module that another has imported: torch.serialization's os, then that one's execv.
        if dangerous(owner.name.rpartition(".")[2], name):
            raise self.refusal(f"{owner.name}.{name}")

    def refusal(self, name: str) -> ModelError:
        return self.error(
            f"is refused, it calls on {short(name)}, as attacks do and no honest checkpoint does. Nothing of it "
            "was run: delete the file, or get the model as safetensors from somebody you trust"
        )

    def call(self, function: Any, args: Any) -> None:
        """The value of a known name's function, else an Opaque of that name."""
        if not isinstance(function, Opaque) or not isinstance(args, tuple):
            raise TypeError("a call of what is no function")
        if function.name in ("builtins.getattr", "__builtin__.getattr"):
            self.attribute(*args)
            return
        if function.name not in MAKERS:
            self.push(Opaque(function.name, args))
            return
        for value in args:  # Making a value out of others copies them, however often the pickle asks for it.
            size = len(value) if isinstance(value, str | bytes | list | tuple | dict | set | frozenset) else 0
            self.spend(4 * size if isinstance(value, str | bytes) else 128 * size)
        self.push(MAKERS[function.name](*args))

    def build(self) -> None:
        """Give an object its state: only an Opaque takes it, nothing called __setstate__ is."""
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Opaque):
            target.state = state
        elif not isinstance(target, dict | list | set | StoredTensor):
            raise TypeError("state for what has none")

    def put(self, pairs: list[Any]) -> None:
        """Put keys and values into the dict on top of the stack."""
        target = self.stack[-1]
        if isinstance(target, Opaque):
            target = target.contents()
        if not isinstance(target, dict):
            raise TypeError("keys for what has none")
        target.update(zip(map(as_key, pairs[::2]), pairs[1::2], strict=True))

    def append(self, values: list[Any]) -> None:
        """Add values to the list on top of the stack; those of some unknown kind of list are let go."""
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(values)
        elif not isinstance(target, Opaque):
            raise TypeError("values for what is no list")

    def add(self, values: list[Any]) -> None:
        """Add values to the set on top of the stack."""
        target = self.stack[-1]
        if isinstance(target, set):
            target.update(map(as_key, values))
        elif not isinstance(target, Opaque):
            raise TypeError("values for what is no set")

    def instance(self) -> None:
        """OBJ: a class and its arguments since the mark."""
        function, *args = self.since_mark()
        self.call(function, tuple(args))

    def instance_by_name(self) -> None:
        """INST: a class named in two lines, its arguments since the mark."""
        args = self.since_mark()
        self.name(self.line(), self.line())
        self.call(self.stack.pop(), tuple(args))

    def new_set(self) -> None:
        self.spend(192)
        self.push(set())

    def frozen_set(self) -> None:
        self.spend(192)
        self.push(frozenset(map(as_key, self.since_mark())))

    def integer(self) -> None:
        """INT: a number in a line; 00 and 01 are False and True."""
        line = self.line()
        self.push(line == "01" if line in ("00", "01") else int(line))


Operation = Callable[[Machine], None]


def _constant(value: Any) -> Operation:
    return lambda m: m.push(value)


def _number(form: str) -> Operation:
    return lambda m: m.push(m.number(form))


def _text(form: str) -> Operation:
    return lambda m: m.push(m.encoded(m.number(form)).decode("utf-8", "surrogatepass"))


def _bytes(form: str) -> Operation:
    return lambda m: m.push(m.take(m.number(form)))


def _old_text(form: str) -> Operation:
    """Python 2's str, which is text or bytes."""

    def push(m: Machine) -> None:
        raw = m.encoded(m.number(form))
        try:
            m.push(raw.decode("utf-8"))
        except UnicodeDecodeError:
            m.push(raw.decode("latin1"))

    return push


def _known_protocol(number: int) -> None:
    if number > 5:
        raise ValueError(f"protocol {number}")


def _within(m: Machine, size: int) -> None:
    if size > m.end - m.at:
        raise ValueError(f"a frame of {size} bytes where {m.end - m.at} are left")


# Constants, numbers, texts, containers, memo, objects, and the frame of it all, with pickletools' names.
_BY_BYTE: dict[bytes, Operation] = {
    b"N": _constant(None),  # NONE
    b"\x88": _constant(True),  # NEWTRUE
    b"\x89": _constant(False),  # NEWFALSE
    b"I": Machine.integer,  # INT
    b"J": _number("<i"),  # BININT
    b"K": _number("B"),  # BININT1
    b"M": _number("<H"),  # BININT2
    b"G": _number(">d"),  # BINFLOAT
    b"L": lambda m: m.push(int(m.line().removesuffix("L"))),  # LONG
    b"\x8a": lambda m: m.push(int.from_bytes(m.take(m.number("B")), "little", signed=True)),  # LONG1
    b"X": _text("<I"),  # BINUNICODE
    b"\x8c": _text("B"),  # SHORT_BINUNICODE
    b"\x8d": _text("<Q"),  # BINUNICODE8
    b"U": _old_text("B"),  # SHORT_BINSTRING
    b"T": _old_text("<i"),  # BINSTRING
    b"C": _bytes("B"),  # SHORT_BINBYTES
    b"B": _bytes("<I"),  # BINBYTES
    b"\x8e": _bytes("<Q"),  # BINBYTES8
    b"\x96": lambda m: m.push(bytearray(m.take(m.number("<Q")))),  # BYTEARRAY8
    b")": _constant(()),  # EMPTY_TUPLE
    b"t": lambda m: m.push(tuple(m.since_mark())),  # TUPLE
    b"\x85": lambda m: m.push((m.stack.pop(),)),  # TUPLE1
    b"\x86": lambda m: m.push(tuple(m.pop(2))),  # TUPLE2
    b"\x87": lambda m: m.push(tuple(m.pop(3))),  # TUPLE3
    b"]": lambda m: m.push([]),  # EMPTY_LIST
    b"a": lambda m: m.append(m.pop(1)),  # APPEND
    b"e": lambda m: m.append(m.since_mark()),  # APPENDS
    b"}": lambda m: m.push({}),  # EMPTY_DICT
    b"s": lambda m: m.put(m.pop(2)),  # SETITEM
    b"u": lambda m: m.put(m.since_mark()),  # SETITEMS
    b"\x8f": Machine.new_set,  # EMPTY_SET
    b"\x90": lambda m: m.add(m.since_mark()),  # ADDITEMS
    b"\x91": Machine.frozen_set,  # FROZENSET
    b"(": Machine.mark,  # MARK
    b"0": Machine.drop,  # POP
    b"1": lambda m: m.since_mark().clear(),  # POP_MARK
    b"2": lambda m: m.push(m.stack[-1]),  # DUP
    b"q": lambda m: m.remember(m.number("B")),  # BINPUT
    b"r": lambda m: m.remember(m.number("<I")),  # LONG_BINPUT
    b"\x94": lambda m: m.remember(len(m.memo)),  # MEMOIZE
    b"h": lambda m: m.push(m.memo[m.number("B")]),  # BINGET
    b"j": lambda m: m.push(m.memo[m.number("<I")]),  # LONG_BINGET
    b"c": lambda m: m.name(m.line(), m.line()),  # GLOBAL
    b"\x93": lambda m: m.name(*m.pop(2)),  # STACK_GLOBAL
    b"R": lambda m: m.call(*m.pop(2)),  # REDUCE
    b"\x81": lambda m: m.call(*m.pop(2)),  # NEWOBJ
    b"\x92": lambda m: m.call(*m.pop(3)[:2]),  # NEWOBJ_EX
    b"o": Machine.instance,  # OBJ
    b"i": Machine.instance_by_name,  # INST
    b"b": Machine.build,  # BUILD
    b"Q": lambda m: m.push(m.stored(m.stack.pop())),  # BINPERSID
    b"\x80": lambda m: _known_protocol(m.number("B")),  # PROTO
    b"\x95": lambda m: _within(m, m.number("<Q")),  # FRAME
}
_OPERATIONS = {code[0]: operation for code, operation in _BY_BYTE.items()}
_STOP = b"."[0]
