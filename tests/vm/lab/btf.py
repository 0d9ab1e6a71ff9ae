# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads BTF, the kernel's own description of its types (Documentation/bpf/btf.rst).

A module's BTF goes on where the kernel's ends: its type numbers and strings begin after those of
its base.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

MAGIC = 0xEB9F
(INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FUNC_PROTO,
 VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64) = range(1, 20)
# What adds nothing to where something lies or how it is passed.
TRANSPARENT = (TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG)
# Bytes after a type's three words: a fixed number, and one for each of its members.
FIXED = {INT: 4, ARRAY: 12, VAR: 4, DECL_TAG: 4}
EACH = {STRUCT: 12, UNION: 12, ENUM: 8, FUNC_PROTO: 8, DATASEC: 12, ENUM64: 12}


class BtfError(Exception):
    """What was read is no BTF, or does not fit its base."""


@dataclass(frozen=True)
class Member:
    name: str
    type: int
    bit_offset: int
    bit_size: int  # 0: not a bit field


@dataclass(frozen=True)
class Type:
    kind: int
    name: str
    size_or_type: int
    flag: bool
    count: int
    at: int  # offset of what follows the three words


class Btf:
    """The types of one kernel or module, looked up by number or by name."""

    def __init__(self, data: bytes, base: Btf | None = None) -> None:
        self.base = base
        self.data = data
        try:
            magic, _, _, header = struct.unpack_from("<HBBI", data)
            type_off, type_len, str_off, str_len = struct.unpack_from("<4I", data, 8)
        except struct.error as err:
            raise BtfError("too short for BTF") from err
        if magic != MAGIC:
            raise BtfError(f"no BTF: it begins with {magic:#x}")
        self.strings = data[header + str_off:header + str_off + str_len]
        self.first_string = base.end_string if base else 0
        self.end_string = self.first_string + str_len
        self.first = base.end if base else 1
        self.at: list[int] = []
        # By kind and name; several types may have one name.
        self.names: dict[tuple[int, str], list[int]] = {}
        at, end = header + type_off, header + type_off + type_len
        while at < end:
            name, info = struct.unpack_from("<2I", data, at)
            kind, count = info >> 24 & 0x1f, info & 0xffff
            if not INT <= kind <= ENUM64:
                raise BtfError(f"kind {kind} is not known")
            if name:
                self.names.setdefault((kind, self._string(name)), []).append(self.first + len(self.at))
            self.at.append(at)
            at += 12 + FIXED.get(kind, 0) + EACH.get(kind, 0) * count
        self.end = self.first + len(self.at)

    def _string(self, offset: int) -> str:
        if offset < self.first_string:
            assert self.base is not None
            return self.base._string(offset)
        offset -= self.first_string
        return self.strings[offset:self.strings.index(b"\0", offset)].decode()

    def _owner(self, number: int) -> Btf:
        if number < self.first and self.base:
            return self.base._owner(number)
        if not self.first <= number < self.end:
            raise BtfError(f"there is no type {number}")
        return self

    def type(self, number: int) -> Type:
        owner = self._owner(number)
        at = owner.at[number - owner.first]
        name, info, rest = struct.unpack_from("<3I", owner.data, at)
        return Type(info >> 24 & 0x1f, owner._string(name), rest, bool(info >> 31), info & 0xffff,
                    at + 12)

    def find(self, kind: int, name: str) -> list[int]:
        """Types of this name: the module's own, or else its base's."""
        own = self.names.get((kind, name), [])
        return own if own or not self.base else self.base.find(kind, name)

    def own_names(self, kind: int) -> set[str]:
        """Names of one kind, without those of the base."""
        return {name for k, name in self.names if k == kind}

    def words(self, number: int, count: int) -> tuple[int, ...]:
        owner = self._owner(number)
        return struct.unpack_from(f"<{count}I", owner.data, owner.at[number - owner.first] + 12)

    def members(self, number: int) -> list[Member]:
        """Of a struct or union."""
        t, found = self.type(number), []
        words = self.words(number, t.count * 3)
        owner = self._owner(number)
        for i in range(0, len(words), 3):
            offset = words[i + 2]
            found.append(Member(owner._string(words[i]), words[i + 1],
                                offset & 0xffffff if t.flag else offset, offset >> 24 if t.flag else 0))
        return found

    def enumerators(self, number: int) -> list[tuple[str, int]]:
        t, owner = self.type(number), self._owner(number)
        step = 3 if t.kind == ENUM64 else 2
        words = self.words(number, t.count * step)
        return [(owner._string(words[i]),
                 words[i + 1] | (words[i + 2] << 32 if step == 3 else 0)) for i in range(0, len(words), step)]

    def plain(self, number: int) -> int:
        """The type behind typedefs and qualifiers; 0 is void."""
        while number:
            t = self.type(number)
            if t.kind not in TRANSPARENT:
                break
            number = t.size_or_type
        return number

    def text(self, number: int, names: bool = True) -> str:
        """A type as far as a caller has to agree on it. Named structures are told by their names,
        those without by what is in them."""
        number = self.plain(number)
        if not number:
            return "void"
        t = self.type(number)
        if t.kind == INT:
            (word,) = self.words(number, 1)
            bits, encoding = word & 0xff, word >> 24
            # What a char's sign is called differs between who writes BTF.
            sign = "" if bits == 8 else "s" if encoding & 1 else "u"
            return f"{sign}{bits}"
        if t.kind == FLOAT:
            return f"float{t.size_or_type * 8}"
        if t.kind == PTR:
            return self.text(t.size_or_type) + " *"
        if t.kind == ARRAY:
            element, _, count = self.words(number, 3)
            return f"{self.text(element)} [{count}]"
        if t.kind == FWD:
            return f"{'union' if t.flag else 'struct'} {t.name}"
        if t.kind in (STRUCT, UNION):
            word = "struct" if t.kind == STRUCT else "union"
            if t.name and names:
                return f"{word} {t.name}"
            inside = "; ".join(f"{m.bit_offset}:{m.bit_size} {self.text(m.type)} {m.name}".rstrip()
                               for m in self.members(number))
            return f"{word} {{ {inside} }}"
        if t.kind in (ENUM, ENUM64):
            if t.name and names:
                return f"enum {t.name}"
            return f"enum:{t.size_or_type} {self.enumerators(number)}"
        if t.kind == FUNC_PROTO:
            words = self.words(number, t.count * 2)
            return f"{self.text(t.size_or_type)} ({', '.join(self.text(n) for n in words[1::2])})"
        if t.kind in (FUNC, VAR):
            return self.text(t.size_or_type)
        raise BtfError(f"type {number} of kind {t.kind} in a place where none is expected")

    def size(self, number: int) -> int:
        """In bytes."""
        number = self.plain(number)
        t = self.type(number)
        if t.kind == PTR:
            return 8
        if t.kind == ARRAY:
            element, _, count = self.words(number, 3)
            return self.size(element) * count
        return t.size_or_type


def section(elf: bytes, wanted: str) -> bytes:
    """The content of a section of a 64-bit little-endian ELF file."""
    if elf[:6] != b"\x7fELF\x02\x01":
        raise BtfError("no ELF file for this kind of machine")
    (table,) = struct.unpack_from("<Q", elf, 40)
    size, count, names = struct.unpack_from("<3H", elf, 58)
    heads = [struct.unpack_from("<2I4Q", elf, table + i * size) for i in range(count)]
    strings = heads[names][4]
    for name, _, _, _, offset, length in heads:
        begin = strings + name
        if elf[begin:elf.index(b"\0", begin)].decode() == wanted:
            return elf[offset:offset + length]
    raise BtfError(f"no section {wanted}")


def undefined_symbols(elf: bytes) -> set[str]:
    """Names that an object or module takes from elsewhere."""
    symbols, strings = section(elf, ".symtab"), section(elf, ".strtab")
    found = set()
    for name, _, _, where, _, _ in struct.iter_unpack("<IBBHQQ", symbols):
        if name and where == 0:
            found.add(strings[name:strings.index(b"\0", name)].decode())
    return found
