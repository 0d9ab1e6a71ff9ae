# SPDX-License-Identifier: GPL-2.0-or-later
"""A sector of the metadata that the disk cannot read any more, which is how disks mostly fail.

The kernel calls that error ENODATA, as its B-trees call a key that is not there. So what must be
seen: a mapping that cannot be read is no hole, nothing is mapped in its place or taken back by
halves, and the pool is served and mended as with any other error of the device.
"""

import errno
import struct
import time
from pathlib import Path

import metadata
import target
import thin
import tm

SUITES = ["bookworm", "trixie"]
LIMIT = 240
PACKAGE = False
MODULE = True

MIB = 1 << 20
BYTES = thin.BLOCK * thin.SECTOR
META = 4096                     # bytes, of a block of metadata
BLOCKS = 1100                   # that are mapped: several leaves
VOLUME = 128 * MIB
DRIVER = Path("/sys/bus/pseudo/drivers/scsi_debug")
PARAMETERS = Path("/sys/module/scsi_debug/parameters")


class BadDisk:
    """A disk in memory of which a part can become unreadable: what is written there is not lost."""

    def __init__(self, t):
        before = set(Path("/sys/block").iterdir())
        tm.sh(["modprobe", "sd_mod"])  # udev would, but rests
        tm.sh(["modprobe", "scsi_debug", "dev_size_mb=8", "delay=0", "sector_size=512"])
        t.defer(self.close)
        found = tm.wait_for(lambda: set(Path("/sys/block").glob("sd*")) - before, 20, "the disk is there")
        self.t = t
        self.name = "unreadable"
        self.path = f"/dev/{found.pop().name}"
        self.file = Path(self.path)
        tm.wait_for(self.file.exists, 20, "its node is there")

    @property
    def sectors(self):
        return int(Path(f"/sys/block/{self.file.name}/size").read_text())

    def fail(self, first, last):
        """Blocks of metadata, from and to."""
        per_block = META // thin.SECTOR
        (PARAMETERS / "medium_error_start").write_text(f"{first * per_block}\n")
        (PARAMETERS / "medium_error_count").write_text(f"{(last - first + 1) * per_block}\n")
        (DRIVER / "opts").write_text("2\n")
        code = thin.error_of(self.block, first)
        self.t.check(code == errno.ENODATA, f"a bad sector is ENODATA, not {code}")

    def heal(self):
        (DRIVER / "opts").write_text("0\n")

    def block(self, number):
        with thin.File(self.path, write=False) as file:
            return file.read(number * META // thin.SECTOR, META // thin.SECTOR)

    def close(self):
        if DRIVER.exists():
            self.heal()
            tm.sh(["modprobe", "-r", "scsi_debug"])


def node(disk, number):
    """A B-tree's node: its keys, and their values as numbers."""
    return metadata.node(disk.block(number))[1:]


def root_of(disk, device):
    """The root of a device's own tree. Committed, and with one level above it."""
    keys, roots = node(disk, metadata.roots(disk.block(0))[0])
    return roots[keys.index(device)]


class Pool:
    """With one volume that is mapped from its beginning, and nothing of it in memory."""

    def __init__(self, t, disk):
        self.disk = disk
        self.data = thin.Disk(t, "data", 2 * VOLUME)
        pool = thin.Pool(t, disk, self.data, features="skip_block_zeroing")
        vol = pool.make(0, VOLUME)
        with thin.File(vol.path) as file:
            for number in range(BLOCKS):
                file.write(number * thin.BLOCK, self.content(number))
            file.flush()
        vol.remove()
        pool.remove()
        self.root = root_of(disk, 0)
        self.first, self.leaves = node(disk, self.root)
        t.check(len(self.leaves) > 3, f"{len(self.leaves)} leaves")
        self.t = t
        self.up()

    @staticmethod
    def content(number):
        return struct.pack("<Q", number + 1) * 512

    def up(self):
        self.pool = thin.Pool(self.t, self.disk, self.data, features="skip_block_zeroing")
        self.vol = self.pool.thin(0, VOLUME)

    def read(self, number):
        return thin.read(self.vol, number * thin.BLOCK, 8)

    def still_there(self, number):
        self.t.equal(self.read(number)[:16], self.content(number)[:16], f"block {number}")

    def down(self, flagged=False):
        self.vol.remove()
        self.pool.remove()
        self.disk.heal()
        self.t.equal(bool(thin.flags(self.disk) & 1), flagged, "needs_check on the disk")
        if flagged:
            thin.clear_needs_check(self.disk)
        thin.check(self.disk)

    def end(self):
        self.down()
        self.data.close()
        with self.disk.file.open("rb+") as file:
            file.write(bytes(META))


def no_hole(t, disk):
    """Reads and writes of what cannot be looked up fail, and change nothing."""
    p = Pool(t, disk)
    bad = p.first[1]
    used = p.pool.state().data_used
    disk.fail(p.leaves[1], p.leaves[1])
    for _ in range(2):
        t.equal(thin.error_of(p.read, bad), errno.EIO, "a read of a mapped block")
        t.equal(thin.error_of(thin.write, p.vol, bad * thin.BLOCK + 8, b"x" * 4096), errno.EIO, "a write to it")
        t.equal(thin.error_of(thin.fill, p.vol, bad + 1, 1, 7), errno.EIO, "a write of a whole block")
        p.still_there(0)
    state = p.pool.state(flush=True)
    t.equal((state.mode, state.data_used), ("rw", used), "the pool")
    disk.heal()
    for number in (bad, bad + 1, BLOCKS - 1):
        p.still_there(number)
    t.equal(p.read(BLOCKS + 5), bytes(4096), "a hole")
    p.end()


def holes(t, disk):
    """What really is a hole stays one, wherever it lies in the tree."""
    p = Pool(t, disk)
    p.pool.message("create_thin 1")
    empty = p.pool.thin(1, VOLUME)
    t.equal(thin.read(empty, 0, 8), bytes(4096), "of an empty volume")
    # The first of all, the first of a leaf, one in it.
    gone = (0, 1, p.first[1], p.first[1] + 1, p.first[2] + 7)
    for number in gone:
        thin.discard(p.vol, number * thin.BLOCK, thin.BLOCK)
    for _ in range(2):
        for number in gone:
            t.equal(p.read(number), bytes(4096), f"block {number}, discarded")
        p.still_there(2)
        empty.remove()
        p.down()
        p.up()
        empty = p.pool.thin(1, VOLUME)
    for number in gone:
        thin.fill(p.vol, number, 1, 9)
        t.equal(p.read(number), b"\x09" * 4096, f"block {number}, written again")
    t.equal(p.pool.state(flush=True).data_used, BLOCKS, "blocks in use")
    empty.remove()
    p.end()


def whole_removal(t, disk):
    """A discard next to what cannot be read is done, or fails as a whole; never by halves."""
    p = Pool(t, disk)
    last = p.first[1] - 1  # of the first leaf; the next one's neighbour cannot be read
    disk.fail(p.leaves[2], p.leaves[2])
    thin.discard(p.vol, last * thin.BLOCK, thin.BLOCK)
    p.pool.status(flush=True)
    t.equal(p.pool.mode(), "rw", "the pool after a discard that needs none of it")
    p.down()
    p.up()
    t.equal(p.read(last), bytes(4096), "what was discarded")
    disk.fail(p.leaves[2], p.leaves[2])
    t.equal(thin.error_of(thin.discard, p.vol, (last + 1) * thin.BLOCK, thin.BLOCK), errno.EIO, "a discard of the next")
    t.equal(p.pool.mode(), "ro", "the pool after it")
    p.down(flagged=True)
    p.up()
    for number in (last - 1, last + 2, p.first[2], BLOCKS - 1):
        p.still_there(number)
    p.end()


def abort(t, disk):
    """What was committed cannot be read when a transaction is taken back: not damage, so it is tried again."""
    p = Pool(t, disk)
    index = struct.unpack_from("<Q", disk.block(0), 192 + 16)[0]  # of the metadata's space map
    p.vol.remove()
    disk.fail(*sorted((index, p.root)))
    t.check(thin.error_of(p.pool.message, "delete 0") != 0, "a volume that cannot be read is not deleted")
    t.equal((p.pool.mode(), p.pool.state().needs_check), ("ro", True), "the pool")
    disk.heal()

    def opened():
        if thin.error_of(lambda: setattr(p, "vol", p.pool.thin(0, VOLUME))):
            return False
        return True

    tm.wait_for(opened, 20, "the metadata is read again")
    for number in (0, BLOCKS - 1):
        p.still_there(number)
    p.down(flagged=True)
    p.up()
    p.end()


PARTS = {"no_hole": no_hole, "holes": holes, "whole_removal": whole_removal, "abort": abort}


def run(t):
    thin.quiet(t)
    t.defer(target.use, t.target)
    target.use("ours")
    disk = BadDisk(t)
    for text, part in PARTS.items():
        began = time.monotonic()
        part(t, disk)
        t.log(f"{text}: as it should be, {time.monotonic() - began:.1f} s")
