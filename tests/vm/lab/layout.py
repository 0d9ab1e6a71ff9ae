# SPDX-License-Identifier: GPL-2.0-or-later
"""Does what kernel/ declares itself agree with the kernel it runs on?

Header packages lack the headers of dm-persistent-data, so kernel/ has declarations of its own: a
member that lies elsewhere in the kernel's structure would corrupt metadata without a word. Here
what those headers declare, as the compiler laid it out, is held against what the kernel tells of
its own types (BTF).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from . import btf
from .util import LabError

# Headers of kernel/ that declare what is the kernel's, and the modules it belongs to.
HEADERS = ("persistent-data.h", "bio-prison.h")
KERNEL_MODULES = ("dm_persistent_data", "dm_bio_prison")
KINDS = {"struct": btf.STRUCT, "union": btf.UNION, "enum": btf.ENUM}
PREFIX = "layout_of_"


@dataclass
class Declared:
    """What a header declares: types as ("struct", name), and functions by name."""
    types: list[tuple[str, str]] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)


def bare(text: str) -> str:
    """A header without comments and preprocessor lines."""
    text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.DOTALL)
    return re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", "", text, flags=re.MULTILINE)


def statements(text: str) -> list[str]:
    """The declarations of a header, each with what is in its braces. A function's body ends one, too."""
    found, depth, begin = [], 0, 0
    for at, char in enumerate(text):
        depth += (char in "{(") - (char in "})")
        inline = char == "}" and depth == 0 and re.match(r"\s*static\s+inline\b", text[begin:at])
        if depth == 0 and (char == ";" or inline):
            found.append(" ".join(text[begin:at + 1].split()))
            begin = at + 1
    return found


def declared(text: str) -> Declared:
    """What a header has to agree with the kernel on: no functions that it defines itself."""
    result = Declared()
    for one in statements(bare(text)):
        kind = re.match(r"(struct|union|enum) (\w+) \{", one)
        if kind:
            result.types.append((kind[1], kind[2]))
        elif not re.match(r"typedef\b|static\b|struct \w+;|union \w+;|enum \w+ ?;", one):
            function = re.search(r"(\w+) ?\(", one)
            if not function:
                raise LabError(f"a declaration the layout check does not understand: {one}")
            result.functions.append(function[1])
    return result


def source(headers: Iterable[str], what: Declared) -> str:
    """A C file that makes the compiler tell of all that was declared."""
    lines = ["// SPDX-License-Identifier: GPL-2.0-only", "#include <linux/module.h>"]
    lines += [f'#include "{name}"' for name in headers]
    for kind, name in what.types:
        lines.append(f"{kind} {name} *{PREFIX}{kind}_{name};")
    for name in what.functions:
        lines.append(f"typeof({name}) *{PREFIX}function_{name};")
    return "\n".join(lines) + "\n"


def moved(text: str) -> str:
    """The header with something moved in each of its structures: the first member to the end, or,
    where there is one only, another put before it. The check has to see every one of them."""
    def move(found: re.Match[str]) -> str:
        head, body = found[1], found[2]
        members = re.findall(r"(?:[^;{]|\{[^}]*\})*;", body)
        if len(members) > 1:
            return head + "".join([*members[1:], members[0]]) + "\n};"
        return f"{head} unsigned long layout_moved; {body} }};"

    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    return re.sub(r"^(struct \w+ \{)((?:[^{}]|\{[^}]*\})*)\};", move, text, flags=re.MULTILINE)


def by_value(types: btf.Btf, number: int) -> tuple[int, str] | None:
    """The named structure (or enum) a member holds, itself or an array of it."""
    number = types.plain(number)
    while number and types.type(number).kind == btf.ARRAY:
        number = types.plain(types.words(number, 3)[0])
    t = types.type(number) if number else None
    if t and t.name and t.kind in (btf.STRUCT, btf.UNION, btf.ENUM):
        return t.kind, t.name
    return None


def one_type(ours: btf.Btf, mine: int, theirs: btf.Btf, its: int) -> list[str]:
    """What differs between two structures of one name, member by member."""
    a, b = ours.type(mine), theirs.type(its)
    if a.kind in (btf.ENUM, btf.ENUM64):
        same = sorted(ours.enumerators(mine)) == sorted(theirs.enumerators(its))
        return [] if same and a.size_or_type == b.size_or_type else ["its values differ"]
    found = []
    if a.size_or_type != b.size_or_type:
        found.append(f"{a.size_or_type} bytes here, {b.size_or_type} in the kernel")
    # Those without names are told apart by their place.
    here = {m.name or f"(the {n}. without name)": m for n, m in enumerate(ours.members(mine), 1)}
    there = {m.name or f"(the {n}. without name)": m for n, m in enumerate(theirs.members(its), 1)}
    for name in [*here, *(n for n in there if n not in here)]:
        if name not in there:
            found.append(f"the kernel has no member {name}")
        elif name not in here:
            found.append(f"the kernel has a member {name}, too")
        else:
            m, k = here[name], there[name]
            if (m.bit_offset, m.bit_size) != (k.bit_offset, k.bit_size):
                found.append(f"{name} lies at {m.bit_offset / 8:g} here, at {k.bit_offset / 8:g} in the kernel")
            if ours.text(m.type) != theirs.text(k.type):
                found.append(f"{name} is {ours.text(m.type)} here, {theirs.text(k.type)} in the kernel")
    return found


@dataclass
class Result:
    types: int = 0  # that agree
    functions: int = 0
    wrong: dict[str, list[str]] = field(default_factory=dict)
    untold: list[str] = field(default_factory=list)  # functions the kernel's BTF does not have


def find(where: Sequence[btf.Btf], kind: int, name: str) -> list[tuple[btf.Btf, int]]:
    """Types of a name in several modules; what is the kernel's own is found in each, so once is enough."""
    for types in where:
        found = types.find(kind, name)
        if found:
            return [(types, number) for number in found]
    return []


def compare(ours: btf.Btf, theirs: Sequence[btf.Btf], what: Declared) -> Result:
    """All that was declared, and what is in it, against the kernel's modules."""
    result = Result()
    waiting = [(KINDS[kind], name) for kind, name in what.types]
    seen = set(waiting)
    while waiting:
        kind, name = waiting.pop(0)
        mine, its = ours.find(kind, name), find(theirs, kind, name)
        label = f"{next(word for word, k in KINDS.items() if k == kind)} {name}"
        if not mine:
            raise LabError(f"the compiler said nothing of {label}")
        if not its:
            result.wrong[label] = ["the kernel has none of this name"]
            continue
        # Where the kernel has several of one name, one of them has to be it.
        found = min((one_type(ours, mine[0], types, number) for types, number in its), key=len)
        if found:
            result.wrong[label] = found
        else:
            result.types += 1
        if kind != btf.ENUM:
            for member in ours.members(mine[0]):
                inside = by_value(ours, member.type)
                if inside and inside not in seen:
                    seen.add(inside)
                    waiting.append(inside)
    for name in what.functions:
        variable = (ours.find(btf.VAR, f"{PREFIX}function_{name}") or [0])[0]
        if not variable:
            raise LabError(f"the compiler said nothing of {name}()")
        pointer = ours.type(ours.plain(ours.type(variable).size_or_type))
        mine_text = ours.text(pointer.size_or_type)
        its = find(theirs, btf.FUNC, name)
        if not its:
            result.untold.append(name)
        elif mine_text in (texts := [types.text(number) for types, number in its]):
            result.functions += 1
        else:
            result.wrong[f"{name}()"] = [f"{mine_text} here, {' or '.join(texts)} in the kernel"]
    return result


def declared_in(directory: Path) -> Declared:
    """What all of our headers there declare together."""
    total = Declared()
    for name in HEADERS:
        if (directory / name).exists():
            one = declared((directory / name).read_text())
            total.types += one.types
            total.functions += one.functions
    return total
