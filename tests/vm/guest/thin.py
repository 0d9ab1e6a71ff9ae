# SPDX-License-Identifier: GPL-2.0-or-later
"""Thin pools without a manager: device-mapper by its control device, on loop devices over tmpfs.

Cases about the kernel's targets want errors as numbers, many tables in a second, and nobody else
who opens their devices. So this talks to /dev/mapper/control itself, and quiet() stops udev. All
failures of the kernel are OSErrors with its errno.

    thin.quiet(t)
    pool = thin.Pool(t, metadata=thin.Disk(t, "meta", 2 << 20), data=thin.Disk(t, "data", 64 << 20))
    pool.message("create_thin 0")
    vol = pool.thin(0, 32 << 20)
    ...
    thin.check(pool)
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import target
import tm

SECTOR = 512
BLOCK = 128  # sectors: the smallest block size, which cases use unless they need another
SHM = Path("/dev/shm/thinlab")

# <linux/dm-ioctl.h>
(CREATE, REMOVE, SUSPEND, STATUS, WAIT, LOAD, CLEAR, TABLE, MESSAGE) = (3, 4, 6, 7, 8, 9, 10, 12, 14)
(F_READ_ONLY, F_SUSPEND, F_TABLE, F_ACTIVE, F_INACTIVE, F_FULL, F_SKIP_LOCKFS, F_NOFLUSH, F_QUERY_INACTIVE,
 F_DATA_OUT) = (1, 2, 16, 32, 64, 256, 1024, 2048, 4096, 65536)
HEADER = struct.Struct("<3I2IIi3IQ128s129s7x")
SPEC = struct.Struct("<QQiI16s")
LIBC = ctypes.CDLL(None, use_errno=True)
BLKDISCARD, BLKGETSIZE64 = 0x1277, 0x80081272


# ---- device-mapper -------------------------------------------------------------------------------

@dataclass
class Target:
    """A line of a table, or of a status."""

    start: int
    sectors: int
    kind: str
    args: str


@dataclass
class Info:
    open_count: int
    flags: int
    event_nr: int
    minor: int
    targets: int

    @property
    def suspended(self) -> bool:
        return bool(self.flags & F_SUSPEND)

    @property
    def live(self) -> bool:
        return bool(self.flags & F_ACTIVE)

    @property
    def waiting(self) -> bool:
        """A table is loaded, and not live yet."""
        return bool(self.flags & F_INACTIVE)


def _ioctl(number: int, name: str, flags: int = 0, data: bytes = b"", count: int = 0,
           event_nr: int = 0, room: int = 16384) -> tuple[Info, bytes]:
    size = HEADER.size + max(room, len(data))
    buffer = bytearray(size)
    HEADER.pack_into(buffer, 0, 4, 0, 0, size, HEADER.size, count, 0, flags, event_nr, 0, 0,
                     name.encode(), b"")
    buffer[HEADER.size:HEADER.size + len(data)] = data
    # Not by fcntl: with so large a buffer it keeps all other threads from running.
    with open("/dev/mapper/control", "rb+", buffering=0) as control:
        if LIBC.ioctl(control.fileno(), ctypes.c_ulong(0xC138FD00 | number),
                      (ctypes.c_char * size).from_buffer(buffer)) < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    got = HEADER.unpack_from(buffer)
    minor = (got[10] & 0xff) | (got[10] >> 12 & 0xfff00)
    return Info(got[6], got[7], got[8], minor, got[5]), bytes(buffer[got[4]:got[3]])



class Device:
    """A device-mapper device. It is removed at the end of the case if it is still there."""

    def __init__(self, t: tm.Case, name: str) -> None:
        self.t = t
        self.name = name
        self.minor = _ioctl(CREATE, name)[0].minor
        self.path = f"/dev/dm-{self.minor}"
        self.there = True
        t.defer(self.remove)

    @classmethod
    def of(cls, t: tm.Case, name: str, *table: Target, read_only: bool = False) -> Device:
        """A device with a live table. Without a trace of it where that fails."""
        device = cls(t, name)
        try:
            device.load(*table, read_only=read_only)
            device.resume()
        except BaseException:
            device.remove()
            raise
        return device

    @classmethod
    def made_by_others(cls, t: tm.Case, name: str) -> Device:
        """One that somebody else made, and takes away."""
        device = cls.__new__(cls)
        device.t = t
        device.name = name
        device.minor = _ioctl(STATUS, name)[0].minor
        device.path = f"/dev/dm-{device.minor}"
        device.there = True
        return device

    def info(self) -> Info:
        return _ioctl(STATUS, self.name)[0]

    def load(self, *table: Target, read_only: bool = False) -> None:
        """Into the waiting slot."""
        data = b""
        for line in table:
            text = line.args.encode() + b"\0"
            text += bytes(-len(text) % 8)
            data += SPEC.pack(line.start, line.sectors, 0, SPEC.size + len(text), line.kind.encode()) + text
        _ioctl(LOAD, self.name, F_READ_ONLY if read_only else 0, data, len(table))

    def clear(self) -> None:
        _ioctl(CLEAR, self.name)

    def suspend(self, flush: bool = True) -> None:
        """With flush, as dmsetup does by default: waits for all I/O, and freezes a file system."""
        _ioctl(SUSPEND, self.name, F_SUSPEND | (0 if flush else F_NOFLUSH | F_SKIP_LOCKFS))

    def resume(self) -> None:
        """Also makes the waiting table live."""
        _ioctl(SUSPEND, self.name)

    def swap(self, *table: Target, flush: bool = True) -> None:
        """Another table; I/O waits meanwhile."""
        self.load(*table)
        self.suspend(flush)
        self.resume()

    def _lines(self, flags: int) -> list[Target]:
        info, data = _ioctl(TABLE, self.name, flags)
        found: list[Target] = []
        at = 0
        for _ in range(info.targets):
            start, sectors, _status, following, kind = SPEC.unpack_from(data, at)
            text = data[at + SPEC.size:].split(b"\0", 1)[0].decode()
            found.append(Target(start, sectors, kind.rstrip(b"\0").decode(), text))
            at = following
        if info.flags & F_FULL:
            raise tm.Failed(f"the status of {self.name} does not fit")
        return found

    def table(self, inactive: bool = False) -> Target:
        """Its first (mostly its only) line."""
        return self._lines(F_TABLE | (F_QUERY_INACTIVE if inactive else 0))[0]

    def status(self, flush: bool = False) -> str:
        """The first line's arguments. With flush a pool commits first."""
        return self._lines(0 if flush else F_NOFLUSH)[0].args

    def message(self, text: str, sector: int = 0) -> str:
        """Its answer, if it has one."""
        info, data = _ioctl(MESSAGE, self.name, 0, struct.pack("<Q", sector) + text.encode() + b"\0")
        return data.split(b"\0", 1)[0].decode() if info.flags & F_DATA_OUT else ""

    def events(self) -> int:
        return self.info().event_nr

    def remove(self) -> None:
        if not self.there:
            return
        _ioctl(REMOVE, self.name)
        self.there = False

    @property
    def size(self) -> int:
        return int(Path(f"/sys/block/dm-{self.minor}/size").read_text()) * SECTOR

    def limit(self, name: str) -> int:
        """One of its queue's limits, as sysfs calls it."""
        return int(Path(f"/sys/block/dm-{self.minor}/queue/{name}").read_text())

    @property
    def node(self) -> str:
        """As tables of others show it."""
        return f"{os.major(os.stat(self.path).st_rdev)}:{self.minor}"


def quiet(t: tm.Case) -> None:
    """No udev for as long as the case runs: it would open devices, and cost most of the time."""
    units = ["systemd-udevd-control.socket", "systemd-udevd-kernel.socket", "systemd-udevd.service"]
    tm.settle()
    # Again at last, when what was made by this case is gone.
    t.defer(tm.sh, ["systemctl", "start", *units])
    tm.sh(["systemctl", "stop", *units])


def fails(errno_wanted: int | tuple[int, ...], function: Callable[..., object], *args: object) -> bool:
    """Whether it fails with this errno (one of these)."""
    return error_of(function, *args) in (errno_wanted if isinstance(errno_wanted, tuple) else (errno_wanted,))


def error_of(function: Callable[..., object], *args: object, **named: object) -> int:
    """The errno a call fails with; 0: it does not."""
    try:
        function(*args, **named)
    except OSError as err:
        return err.errno or -1
    return 0


# ---- what pools are on ---------------------------------------------------------------------------

class Disk:
    """A loop device over a sparse file in memory; through(): behind a table that can be made to fail."""

    def __init__(self, t: tm.Case, name: str, size: int, sector: int = SECTOR) -> None:
        SHM.mkdir(exist_ok=True)
        self.t = t
        self.name = name
        self.file = SHM / f"{t.name}-{name}"
        with self.file.open("wb") as file:
            file.truncate(size)
        self.path = self.loop = tm.sh(
            ["losetup", "--find", "--show", "--sector-size", str(sector), self.file]).out.strip()
        self.layer: Device | None = None
        t.defer(self.close)

    def close(self) -> None:
        if self.loop:
            if self.layer:
                self.layer.remove()
            tm.sh(["losetup", "-d", self.loop])
            self.file.unlink()
            self.loop = self.path = ""

    def through(self) -> Disk:
        """From now on the path is that of a linear device on top, for fail() and resize()."""
        self.layer = Device.of(self.t, f"{self.t.name}-{self.name}", self._line("linear"))
        self.path = self.layer.path
        return self

    def _line(self, kind: str, size: int | None = None) -> Target:
        sectors = (size or self.file.stat().st_size) // SECTOR
        args = {"linear": f"{self.loop} 0", "error": "",
                "error_writes": f"{self.loop} 0 0 180 1 error_writes",
                "drop_writes": f"{self.loop} 0 0 180 1 drop_writes"}[kind]
        return Target(0, sectors, "flakey" if kind.endswith("writes") else kind, args)

    def fail(self, how: str = "error") -> None:
        """"error": all I/O fails; "error_writes"; "drop_writes": they vanish. Till heal()."""
        assert self.layer
        self.layer.swap(self._line(how, self.layer.size), flush=False)

    def slow_writes(self, milliseconds: int) -> None:
        """Writes and discards take that long; flushes and reads do not. Till heal()."""
        assert self.layer
        self.layer.swap(Target(0, self.sectors, "delay",
                               f"{self.loop} 0 0 {self.loop} 0 {milliseconds} {self.loop} 0 0"), flush=False)

    def heal(self) -> None:
        assert self.layer
        self.layer.swap(self._line("linear", self.layer.size), flush=False)

    def resize(self, size: int) -> None:
        """Larger, for whoever has it open, too."""
        with self.file.open("rb+") as file:
            file.truncate(size)
        tm.sh(["losetup", "--set-capacity", self.loop])
        if self.layer:
            self.layer.swap(self._line("linear", size), flush=False)

    @property
    def sectors(self) -> int:
        return self.file.stat().st_size // SECTOR


@dataclass
class Status:
    """A pool's status line, field by field."""

    transaction_id: int
    metadata_used: int
    metadata_total: int
    data_used: int
    data_total: int
    held_root: int | None
    mode: str
    discards: str
    no_space: str
    needs_check: bool
    metadata_mark: int

    @classmethod
    def parse(cls, line: str) -> Status:
        part = line.split()
        if len(part) != 9:
            raise tm.Failed(f"no status of a pool: {line!r}")
        meta, data = part[1].split("/"), part[2].split("/")
        return cls(int(part[0]), int(meta[0]), int(meta[1]), int(data[0]), int(data[1]),
                   None if part[3] == "-" else int(part[3]), part[4], part[5], part[6],
                   {"needs_check": True, "-": False}[part[7]], int(part[8]))


class Pool(Device):
    """A live thin pool, and what is below it."""

    def __init__(self, t: tm.Case, metadata: Disk, data: Disk, name: str = "pool", block: int = BLOCK,
                 low_water: int = 0, features: str = "", sectors: int | None = None) -> None:
        super().__init__(t, f"{t.name}-{name}")
        self.metadata = metadata
        self.data = data
        self.block = block
        self.low_water = low_water
        self.features = features
        try:
            self.load(self.line(sectors))
            self.resume()
        except BaseException:
            self.remove()
            raise

    def line(self, sectors: int | None = None, features: str | None = None,
             low_water: int | None = None) -> Target:
        """Its table, or one like it."""
        names = (self.features if features is None else features).split()
        mark = self.low_water if low_water is None else low_water
        return Target(0, sectors or self.data.sectors // self.block * self.block, "thin-pool",
                      f"{self.metadata.path} {self.data.path} {self.block} {mark} "
                      + " ".join([str(len(names)), *names]))

    def change(self, sectors: int | None = None, features: str | None = None,
               low_water: int | None = None) -> None:
        """Another table, as a manager does it."""
        self.swap(self.line(sectors or self.table().sectors, features, low_water))
        self.features = self.features if features is None else features
        self.low_water = self.low_water if low_water is None else low_water

    def state(self, flush: bool = False) -> Status:
        return Status.parse(self.status(flush))

    def mode(self) -> str:
        line = self.status()
        return "Fail" if line.strip() == "Fail" else Status.parse(line).mode

    def thin(self, device_id: int, size: int, name: str | None = None, origin: str = "") -> Device:
        """A live thin device."""
        return Device.of(self.t, name or f"{self.name}-{device_id}",
                         Target(0, size // SECTOR, "thin", f"{self.path} {device_id} {origin}".strip()))

    def make(self, device_id: int, size: int) -> Device:
        """A new thin device."""
        self.message(f"create_thin {device_id}")
        return self.thin(device_id, size)


# ---- metadata, as the tools see it ---------------------------------------------------------------

def _copy(pool: Pool | Disk, tool: str, *args: str) -> tm.Result:
    """Run a tool on a copy of the metadata; of a live pool after a commit, at rest."""
    live = isinstance(pool, Pool) and pool.there
    disk = pool.metadata if isinstance(pool, Pool) else pool
    copy = disk.t.scratch / "metadata-copy"
    if live:
        pool.suspend(flush=False)
    try:
        tm.sh(["cp", "--sparse=always", disk.file, copy])
    finally:
        if live:
            pool.resume()
    try:
        return tm.sh([tool, *args, copy], check=False)
    finally:
        copy.unlink()


def check(pool: Pool | Disk) -> None:
    """thin_check is content."""
    done = _copy(pool, "thin_check")
    if done.status != 0:
        raise tm.Failed(f"thin_check of {pool.name}: {done.out}{done.err}")


def check_fails(disk: Disk) -> bool:
    return _copy(disk, "thin_check").status != 0


def dump(pool: Pool | Disk) -> str:
    done = _copy(pool, "thin_dump")
    if done.status != 0:
        raise tm.Failed(f"thin_dump of {pool.name}: {done.err}")
    return done.out


def flags(disk: Disk) -> int:
    """Of the superblock that is on the device; bit 0: needs_check."""
    with disk.file.open("rb") as file:
        return struct.unpack("<I", file.read(8)[4:])[0]


def clear_needs_check(disk: Disk) -> None:
    """What an administrator does after a look. With nobody using the metadata."""
    tm.sh(["thin_check", "--clear-needs-check-flag", disk.path])


# ---- I/O -----------------------------------------------------------------------------------------

class File:
    """Direct I/O to a device, in sectors. Its errors are OSErrors."""

    def __init__(self, path: str, write: bool = True, sync: bool = False) -> None:
        self.fd = os.open(path, (os.O_RDWR if write else os.O_RDONLY) | os.O_DIRECT | (os.O_SYNC if sync else 0))

    def __enter__(self) -> File:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def write(self, sector: int, data: bytes) -> None:
        with contextlib.closing(mmap.mmap(-1, len(data))) as buffer:
            buffer[:] = data
            if os.pwritev(self.fd, [buffer], sector * SECTOR) != len(data):
                raise tm.Failed(f"short write at sector {sector}")

    def read(self, sector: int, sectors: int) -> bytes:
        with contextlib.closing(mmap.mmap(-1, sectors * SECTOR)) as buffer:
            if os.preadv(self.fd, [buffer], sector * SECTOR) != sectors * SECTOR:
                raise tm.Failed(f"short read at sector {sector}")
            return buffer[:]

    def discard(self, sector: int, sectors: int) -> None:
        fcntl.ioctl(self.fd, BLKDISCARD, struct.pack("<QQ", sector * SECTOR, sectors * SECTOR))

    def flush(self) -> None:
        os.fsync(self.fd)


def write(device: Device, sector: int, data: bytes) -> None:
    with File(device.path) as file:
        file.write(sector, data)


def read(device: Device, sector: int, sectors: int) -> bytes:
    with File(device.path, write=False) as file:
        return file.read(sector, sectors)


def discard(device: Device, sector: int, sectors: int) -> None:
    with File(device.path) as file:
        file.discard(sector, sectors)


def flush(device: Device) -> None:
    with File(device.path) as file:
        file.flush()


def fill(device: Device, first: int, blocks: int, value: int, block: int = BLOCK) -> None:
    """Write whole blocks, each of one byte's value."""
    with File(device.path) as file:
        for number in range(first, first + blocks):
            file.write(number * block, bytes([value]) * block * SECTOR)


class Background:
    """A call in a thread, for I/O that waits. done(): its errno, or None while it waits."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.errno: int | None = None
        self.error: Exception | None = None
        self.thread = threading.Thread(target=self._run, args=(function, args), daemon=True)
        self.thread.start()

    def _run(self, function: Callable[..., object], args: tuple[object, ...]) -> None:
        try:
            self.errno = error_of(function, *args)
        except Exception as err:
            self.error = err

    def waits(self) -> bool:
        return self.thread.is_alive()

    def ended(self, limit: float = 20) -> int:
        """Its errno, once it has ended."""
        limit *= tm.PATIENCE
        self.thread.join(limit)
        if self.thread.is_alive():
            raise tm.Failed(f"I/O has not ended within {limit:g} s")
        if self.error:
            raise self.error
        assert self.errno is not None
        return self.errno


class KernelLog:
    """What the kernel says from now on."""

    def __init__(self) -> None:
        self.fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.fd, 0, os.SEEK_END)

    def new(self) -> list[str]:
        """Lines since the last look."""
        lines = []
        with contextlib.suppress(BlockingIOError):
            while True:
                lines.append(os.read(self.fd, 8192).decode(errors="replace").partition(";")[2].splitlines()[0])
        return lines

    def close(self) -> None:
        os.close(self.fd)


# ---- the module ----------------------------------------------------------------------------------

def parameter(name: str) -> Path:
    """A module parameter's file, of whichever target is in use."""
    which = target.current()
    return Path("/sys/module") / target.MODULES[which or "stock"] / "parameters" / name


@contextlib.contextmanager
def no_space_timeout(seconds: int) -> Iterator[None]:
    path = parameter("no_space_timeout")
    before = path.read_text()
    path.write_text(f"{seconds}\n")
    try:
        yield
    finally:
        path.write_text(before)
