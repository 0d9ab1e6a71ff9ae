# SPDX-License-Identifier: GPL-2.0-or-later
"""Metadata of a pool as it lies in a file: looked at, and damaged as a disk would."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import tm

BLOCK = 4096
# What a block's checksum is combined with, by its kind.
SUPERBLOCK, NODE, BITMAP = 160774, 121107, 240779


def _crc32c(data: bytes) -> int:
    """As the kernel has it: not inverted at the end."""
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc


def get(path: Path, number: int) -> bytearray:
    with path.open("rb") as file:
        file.seek(number * BLOCK)
        return bytearray(file.read(BLOCK))


def put(path: Path, number: int, data: bytes, kind: int | None = None) -> None:
    """Write a block; with the checksum of its kind, unless none is named."""
    if kind is not None:
        data = struct.pack("<I", _crc32c(bytes(data[4:])) ^ kind) + data[4:]
    with path.open("r+b") as file:
        file.seek(number * BLOCK)
        file.write(data)


def node(data: bytes) -> tuple[bool, tuple[int, ...], tuple[int, ...]]:
    """A B-tree's node: is it above the leaves, its keys, and their values where those are numbers of 8 bytes."""
    flags, = struct.unpack_from("<I", data, 4)
    entries, most = struct.unpack_from("<2I", data, 16)
    keys = struct.unpack_from(f"<{entries}Q", data, 32)
    return bool(flags & 1), keys, struct.unpack_from(f"<{entries}Q", data, 32 + 8 * most)


def roots(superblock: bytes) -> tuple[int, int]:
    """Of the tree of devices' trees, and of the devices' details."""
    mappings, details = struct.unpack_from("<2Q", superblock, 320)
    return mappings, details


def needs_check(path: Path) -> bool:
    return bool(get(path, 0)[4] & 1)


def set_needs_check(path: Path) -> None:
    data = get(path, 0)
    data[4] |= 1
    put(path, 0, data, SUPERBLOCK)


def leaves(path: Path) -> list[int]:
    """Nodes that map a volume's blocks to the data device's, the fullest first."""
    found = []
    for number in range(1, path.stat().st_size // BLOCK):
        data = get(path, number)
        _csum, flags, where, entries, most, size = struct.unpack("<IIQIII", data[:28])
        values = data[32 + most * 8:32 + most * 8 + entries * 8]
        if flags != 2 or where != number or size != 8 or not entries or len(values) != entries * 8:
            continue
        # In the upper tree values are small numbers of blocks; here the block is above 24 bits of time.
        if max(struct.unpack(f"<{entries}Q", values)) >= 1 << 24 or entries > 8:
            found.append((entries, number))
    return [number for _entries, number in sorted(found, reverse=True)]


def space_map(path: Path) -> int:
    """The block that leads to the counts of metadata blocks, behind a head of 16 bytes."""
    return struct.unpack("<Q", get(path, 0)[192 + 16:192 + 24])[0]


def forget_use(path: Path) -> None:
    """The space map says of the first four blocks of metadata that they are free."""
    number = struct.unpack("<Q", get(path, space_map(path))[16:24])[0]
    data = get(path, number)
    data[16] = 0  # two bits each, behind a head of 16 bytes as well
    put(path, number, data, BITMAP)


def mapped(path: Path) -> dict[int, int]:
    """How many blocks each device maps, as thin_dump has it."""
    text = tm.sh(["thin_dump", path]).out
    found = {}
    for device, body in re.findall(r'<device dev_id="(\d+)"[^>]*>(.*?)</device>', text, re.DOTALL):
        single = len(re.findall(r"<single_mapping ", body))
        ranges = sum(int(n) for n in re.findall(r'<range_mapping [^>]*length="(\d+)"', body))
        found[int(device)] = single + ranges
    return found
