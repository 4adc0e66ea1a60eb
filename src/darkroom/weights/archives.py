"""The members of a zip archive, where they lie in the file, without unpacking any.

torch.save writes zip archives whose members are stored uncompressed. The central directory is read here rather than
by `zipfile`, which lists any number of members before one can object. Layout: PKWARE's APPNOTE.TXT, sections 4.3
to 4.5.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from darkroom.weights.mapped import MOST_TENSORS, Mapped, short

_END, _END64, _LOCATOR = b"PK\5\6", b"PK\6\6", b"PK\6\7"
_STORED, _DEFLATED = 0, 8
_MOST_DIRECTORY = 16_000_000
_MOST_INFLATED, _MOST_RATIO = 32_000_000, 200


@dataclass(frozen=True, slots=True)
class Member:
    """One member: `size` bytes that take `packed` in the file, behind a header at byte `header`; all of it before
    byte `limit`."""

    name: str
    compressed: bool
    header: int
    packed: int
    size: int
    limit: int


def read_members(file: Mapped) -> dict[str, Member]:
    """The members of an archive by name. Raises ModelError where the archive is cut short, damaged or dishonest."""
    try:
        start, size, number = _directory(file)
        if size > _MOST_DIRECTORY or number > MOST_TENSORS:
            raise ValueError(f"{number} members")
        found = sorted(_entries(file.read(start, size), number), key=lambda member: member.header)
    except (ValueError, struct.error) as error:
        raise file.error(f"has a damaged zip directory ({error}): fetch it anew") from error
    members: dict[str, Member] = {}
    for member, limit in zip(found, [*(m.header for m in found[1:]), start], strict=True):
        name = member.name
        if name in members:
            raise file.error(f"holds the member {short(name)} twice: it is damaged or malicious")
        if ".." in name.split("/") or name.startswith("/") or "\\" in name or "\0" in name:
            raise file.error(f"holds a member of the name {short(name)}: it is malicious, delete it")
        # The header repeats the name, and may be longer still: `offset` sees that.
        if member.header + 30 + len(name.encode()) + member.packed > limit:
            raise file.error(
                f"holds the member {short(name)}, which overlaps another: it is damaged or malicious"
            )
        members[name] = Member(name, member.compressed, member.header, member.packed, member.size, limit)
    return members


def offset(file: Mapped, member: Member) -> int:
    """Where the bytes of a member begin. Read when they are needed: it costs a visit to that part of the file."""
    head = file.data[member.header : member.header + 30]
    signature, _, name, extra = struct.unpack("<4s22s2H", head)
    begin: int = member.header + 30 + name + extra
    same = file.data[member.header + 30 : member.header + 30 + name] == member.name.encode()
    if signature != b"PK\3\4" or not same or begin + member.packed > member.limit:
        raise file.error(f"has a damaged zip member {short(member.name)}: fetch it anew")
    return begin


def contents(file: Mapped, member: Member) -> bytes:
    """A small member unpacked. Raises ModelError for one that would unfold to more than it could honestly be."""
    begin = offset(file, member)
    if max(member.size, member.packed) > _MOST_INFLATED or member.size > _MOST_RATIO * member.packed:
        raise file.error(
            f"holds {short(member.name)} of {member.packed} bytes, which unpacks to {member.size}: it is malicious"
        )
    packed = file.read(begin, member.packed)
    if not member.compressed:
        return packed
    try:
        inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, member.size + 1)
    except zlib.error as error:
        raise file.error(f"has a damaged zip member {short(member.name)} ({error}): fetch it anew") from error
    if len(inflated) != member.size:
        raise file.error(
            f"holds {short(member.name)}, which does not unpack to the size it claims: fetch it anew"
        )
    return inflated


def _directory(file: Mapped) -> tuple[int, int, int]:
    """Where the central directory begins, its size, and how many members it lists."""
    tail = file.read(max(0, file.size - 22 - 0xFFFF), min(file.size, 22 + 0xFFFF))
    at = tail.rfind(_END)
    if at < 0 or len(tail) - at < 22:
        raise file.error("lacks the end of its zip archive: the download is incomplete, fetch it anew")
    end = file.size - len(tail) + at
    number, size, start, comment = struct.unpack("<10xHIIH", tail[at : at + 22])
    if end + 22 + comment != file.size:
        raise ValueError("bytes follow its end")
    if tail[max(at - 20, 0) : at][:4] == _LOCATOR:
        (end,) = struct.unpack("<8xQ4x", tail[at - 20 : at])
        if end > file.size - 56:
            raise ValueError("its end lies elsewhere")
        signature, number, size, start = struct.unpack("<4s28xQQQ", file.read(end, 56))
        if signature != _END64:
            raise ValueError("its end lies elsewhere")
    if start + size != end:
        raise ValueError("it does not reach its end")
    return start, size, number


def _entries(raw: bytes, number: int) -> Iterator[Member]:
    at = 0
    for _ in range(number):
        signature, flags, method, packed, size, name_size, extra_size, comment_size, header = (
            struct.unpack_from("<4s4xHH8xII3H8xI", raw, at)
        )
        at += 46
        name = raw[at : at + name_size].decode("utf-8")
        extra = raw[at + name_size : at + name_size + extra_size]
        at += name_size + extra_size + comment_size
        if signature != b"PK\1\2":
            raise ValueError("an entry is none")
        if flags & 1:
            raise ValueError(f"{short(name)} is encrypted")
        if method not in (_STORED, _DEFLATED):
            raise ValueError(f"{short(name)} is packed by method {method}")
        size, packed, header = _wide(extra, size, packed, header)
        if method == _STORED and size != packed:
            raise ValueError(f"{short(name)} has two sizes")
        yield Member(name, method == _DEFLATED, header, packed, size, 0)
    if at != len(raw):
        raise ValueError("more or less than it lists")


def _wide(extra: bytes, *values: int) -> Iterator[int]:
    """Numbers of 32 bits, those of 64 in their place from the extra field where they did not fit."""
    wide = b""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        if kind == 1:
            wide = extra[4 : 4 + size]
        extra = extra[4 + size :]
    for value in values:
        if value == 0xFFFFFFFF:
            (value,), wide = struct.unpack_from("<Q", wide), wide[8:]
        yield value
