# SPDX-License-Identifier: GPL-2.0-or-later
"""What our thin-pool target must not do before something else is done: commits and discards, copies
and crashes, suspends that are given up.

Devices below are made slow or are suspended, so that things are in flight for as long as they are
looked at.
"""

import errno
import signal
import subprocess
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
KIB64 = thin.BLOCK * thin.SECTOR


def disks(t, meta=2 * MIB, data=32 * MIB):
    return thin.Disk(t, "meta", meta).through(), thin.Disk(t, "data", data).through()


def end(pool, *devices, clean=True):
    """Everything away, with clean metadata; clean=False: what is left needs a look first."""
    for device in devices:
        device.remove()
    pool.remove()
    if not clean:
        thin.clear_needs_check(pool.metadata)
    thin.check(pool.metadata)
    pool.metadata.close()
    pool.data.close()


def delayed(disk):
    """Writes and discards that are."""
    return int(disk.layer.status().split()[1])


def stack(pid):
    """Where in the kernel a process or thread is."""
    return Path(f"/proc/{pid}/stack").read_text()


def mapped(vol):
    """Its blocks that are, committed or not."""
    return int(vol.status().split()[0]) // thin.BLOCK


def was_shared(pool, vol, blocks):
    """A volume with blocks that a snapshot had, until that was deleted; their data blocks are not next to
    each other."""
    for first in (0, 1):
        with thin.File(vol.path) as file:
            for block in range(first, blocks, 2):
                file.write(block * thin.BLOCK, b"w" * KIB64)
    pool.message("create_snap 99 0")
    pool.message("delete 99")


# ---- commits while freed blocks are being discarded ----------------------------------------------

def commit_waits_for_discards(t):
    """A block that is free, and still being discarded, can be had by nobody: whoever asks for a commit."""
    meta, data = disks(t)
    pool = thin.Pool(t, meta, data)
    vol = pool.make(0, 16 * MIB)
    was_shared(pool, vol, 8)
    for text, ask in (("a status", lambda: pool.status(flush=True)),
                      ("a message", lambda: pool.message("set_transaction_id 0 0")),
                      ("a flush", lambda: thin.flush(vol))):
        data.slow_writes(2000)
        before = mapped(vol)
        discard = thin.Background(thin.discard, vol, (8 - before) * thin.BLOCK, thin.BLOCK)
        tm.wait_for(lambda before=before: mapped(vol) < before and delayed(data), 20, "a block that is unmapped")
        ask()
        t.check(pool.state().data_used == before or not delayed(data), f"{text}: no block is free while it is discarded")
        data.heal()
        t.equal(discard.ended(), 0, "the discard")
        settled = pool.state(flush=True)
        t.equal(settled.data_used, before - 1, "data blocks in use")
    end(pool, vol)


def flush_during_discard(t):
    """A discard of many runs that were shared keeps nobody's flush waiting to its end."""
    meta, data = disks(t)
    pool = thin.Pool(t, meta, data)
    vol, other = pool.make(0, 16 * MIB), pool.make(1, 16 * MIB)
    was_shared(pool, vol, 256)
    thin.fill(other, 0, 1, 1)
    thin.flush(other)
    data.slow_writes(1000)
    discard = thin.Background(thin.discard, vol, thin.BLOCK, 254 * thin.BLOCK)
    tm.wait_for(lambda: mapped(vol) < 256, 20, "the discard is under way")
    thin.fill(other, 1, 1, 1)
    thin.flush(other)
    t.check(discard.waits(), "a flush ended before a discard of 254 runs, which are not all discarded at once")
    data.heal()
    t.equal(discard.ended(60), 0, "the discard")
    t.equal(pool.state(flush=True).data_used, 2 + 2, "data blocks in use")
    end(pool, vol, other)


def side_by_side(t):
    """Runs are discarded next to each other, whether or not a snapshot had them: a data device takes its time for each."""
    meta, data = disks(t)
    pool = thin.Pool(t, meta, data)
    vol = pool.make(0, 16 * MIB)
    was_shared(pool, vol, 64)
    pool.message("create_snap 1 0")
    thin.write(vol, 20 * thin.BLOCK, b"own" * 512)  # one of them is its own, and not shared
    pool.message("delete 1")
    for first, runs, what in ((0, 20, "that were shared"), (20, 1, "of its own"), (21, 43, "that were shared")):
        data.slow_writes(10000)
        discard = thin.Background(thin.discard, vol, first * thin.BLOCK, runs * thin.BLOCK)
        tm.wait_for(lambda runs=runs: delayed(data) == runs, 8, f"all runs {what} at once")
        t.check(discard.waits(), "the discard, while the data device is not done")
        data.heal()
        t.equal(discard.ended(), 0, "the discard")
    t.equal((mapped(vol), pool.state(flush=True).data_used), (0, 0), "what is mapped and in use")
    end(pool, vol)


def copy_before_discard(t):
    """A device has a copy of a shared block, not committed; the other discards the block. If the copy is
    taken back, the first still has what it had."""
    for attempt in range(3):
        meta, data = disks(t)
        pool = thin.Pool(t, meta, data)
        vol = pool.make(0, 16 * MIB)
        thin.fill(vol, 0, 4, 1)
        pool.message("create_snap 1 0")
        snap = pool.thin(1, 16 * MIB)
        with thin.File(snap.path) as file:
            thin.flush(vol)
            file.write(0, b"\2" * 512)  # a copy
            thin.discard(vol, 0, thin.BLOCK)  # the last user of the old block
            meta.fail("error_writes")
            # One more change, so that a commit fails even if one came in between.
            t.check(thin.error_of(thin.fill, snap, 20, 1, 3) in (0, errno.EIO), "another change")
            t.equal(thin.error_of(file.flush), errno.EIO, "a flush that cannot be")
        tm.wait_for(lambda pool=pool: pool.mode() == "ro", 20, "read-only")
        got = thin.read(snap, 0, thin.BLOCK)
        t.check(got[512:] == b"\1" * (KIB64 - 512) and got[:512] in (b"\1" * 512, b"\2" * 512),
                f"what was durable is there, attempt {attempt}")
        meta.heal()
        tm.wait_for(lambda meta=meta: thin.flags(meta) & 1, 20, "needs_check on the device")
        end(pool, vol, snap, clean=False)


# ---- metadata that only seems to be used up ------------------------------------------------------

def room_by_commit(t):
    """What a transaction takes of metadata, and its commit gives back, is no reason to give up."""
    meta, data = disks(t, meta=256 << 10)
    pool = thin.Pool(t, meta, data)
    number = 0
    while (s := pool.state(flush=True)).metadata_total - s.metadata_used > 16:
        pool.message(f"create_thin {number}")
        number += 1
    vols = [pool.thin(n, 16 * MIB) for n in range(number)]
    t.check(number > 20, f"{number} volumes, each with a block of metadata to be replaced")
    files = [thin.File(vol.path) for vol in vols]
    for change in (lambda file: file.write(0, b"x" * KIB64), lambda file: file.write(9 * 128, b"x" * KIB64),
                   lambda file: file.discard(9 * 128, 128)):
        for file in files:
            t.equal(thin.error_of(change, file), 0, "a change")
        pool.message(f"create_thin {number}")
        pool.message(f"delete {number}")
    for file in files:
        file.flush()
        file.close()
    state = pool.state(flush=True)
    t.equal((state.mode, state.needs_check, state.data_used), ("rw", False, number), "the pool")
    end(pool, *vols)


def shared_commits(t):
    """Flushes that come while a commit is under way share the next one."""
    meta, data = disks(t)
    pool = thin.Pool(t, meta, data)
    vol = pool.make(0, 16 * MIB)
    thin.fill(vol, 0, 1, 1)
    thin.flush(vol)
    superblocks = [metadata.get(meta.file, 0)]  # no two commits leave the same
    meta.slow_writes(300)

    def durable(block):
        with thin.File(vol.path) as file:
            file.write(block * 128, b"x" * 512)
            file.flush()

    waiting = [thin.Background(durable, 10)]
    tm.wait_for(lambda: delayed(meta), 20, "a commit is under way")
    waiting += [thin.Background(durable, 20 + n) for n in range(12)]

    def all_ended():
        if (now := metadata.get(meta.file, 0)) != superblocks[-1]:
            superblocks.append(now)
        return not any(w.waits() for w in waiting)

    tm.wait_for(all_ended, 60, "13 flushes")
    t.equal([w.ended() for w in waiting], [0] * 13, "what came of them")
    t.check(2 <= len(superblocks) <= 6, f"{len(superblocks) - 1} commits for 13 flushes")
    meta.heal()
    end(pool, vol)


# ---- space that was just added ----------------------------------------------------------------------

def each_block_once(t):
    """Blocks that were free before the pool grew, and blocks that came with that, are given out once each."""
    meta, data = disks(t)
    pool = thin.Pool(t, meta, data, sectors=64 * thin.BLOCK)
    vol = pool.make(0, 32 * MIB)
    for _ in range(3):
        size = pool.state(flush=True).data_total
        thin.fill(vol, 0, size, 1)
        thin.discard(vol, 0, 20 * thin.BLOCK)
        t.equal(pool.state(flush=True).data_used, size - 20, "20 blocks are free")
        with thin.File(vol.path) as file:
            pool.message(f"grow_data {size + 40}")
            for block in range(60):
                file.write((300 + block) * thin.BLOCK, bytes([100 + block]) * KIB64)
        for block in range(60):
            t.equal(thin.read(vol, (300 + block) * thin.BLOCK, thin.BLOCK), bytes([100 + block]) * KIB64, f"block {block}")
        t.equal(thin.read(vol, 20 * thin.BLOCK, thin.BLOCK), b"\1" * KIB64, "what was there")
        t.equal(pool.state(flush=True).data_used, size + 40, "all in use")
        thin.check(pool)
        thin.discard(vol, 300 * thin.BLOCK, 60 * thin.BLOCK)
        t.equal(pool.state(flush=True).data_used, size - 20, "given back")
    end(pool, vol)


# ---- who may have a device -----------------------------------------------------------------------

def names(t):
    """A thin device by two names at once, as LVM2 has it on the way to a snapshot of its own kind: what one
    writes is there by the other, and no block is mapped twice. A pool's metadata is not its data."""
    meta, data = disks(t)
    pool = thin.Pool(t, meta, data)
    vol = pool.make(0, 16 * MIB)
    other = pool.thin(0, 16 * MIB, "other")
    both = (vol, other)

    def at_once(seed):
        """Each of 16 blocks, by both, in different parts of it: the first to come maps it, or copies it."""
        data.slow_writes(30)
        writers = [thin.Background(thin.write, both[number % 2], block * 128 + number * 8, bytes([seed + number]) * 4096)
                   for block in range(16) for number in range(4)]
        t.equal([writer.ended() for writer in writers], [0] * 64, "writes by both names")
        data.heal()
        for device in both:
            for block in range(16):
                for number in range(4):
                    t.equal(thin.read(device, block * 128 + number * 8, 8), bytes([seed + number]) * 4096,
                            f"block {block}, part {number}, by {device.name}")

    at_once(1)
    t.equal(pool.state(flush=True).data_used, 16, "data blocks in use")
    vol.suspend()
    pool.message("create_snap 1 0")
    vol.resume()
    at_once(11)
    t.equal(pool.state(flush=True).data_used, 32, "data blocks in use, the snapshot's among them")
    thin.discard(other, 0, 128)
    t.equal(thin.read(vol, 0, 128), bytes(KIB64), "what was discarded by the other name")
    # What waits for a block that the other name is mapping is given back by a suspend without flush.
    data.slow_writes(5000)
    maps = thin.Background(thin.write, vol, 60 * 128, b"\3" * 4096)
    tm.wait_for(lambda: delayed(data), 20, "the block is zeroed, slowly")
    waits = thin.Background(thin.write, other, 60 * 128 + 8, b"\4" * 4096)
    tm.wait_for(lambda: "blkdev_direct_IO" in stack(waits.thread.native_id), 20, "a write on its way")
    other.suspend(flush=False)
    t.check(maps.waits(), "the suspend did not wait for the other")
    other.resume()
    data.heal()
    t.equal((maps.ended(), waits.ended()), (0, 0), "both writes")
    t.equal(thin.read(vol, 60 * 128, 16), b"\3" * 4096 + b"\4" * 4096, "what they wrote")
    # One of them goes while the other is written to.
    write = thin.Background(thin.write, vol, 40 * 128, b"\5" * 32768)
    other.remove()
    t.equal(write.ended(), 0, "the write meanwhile")
    t.equal(thin.read(vol, 40 * 128, 64), b"\5" * 32768, "what it wrote")
    # Two lines of one table: both are the beginning of it.
    two = thin.Device.of(t, "two-lines", *(thin.Target(start, 8192, "thin", f"{pool.path} 0") for start in (0, 8192)))
    thin.write(two, 8192 + 50 * 128, b"\6" * 4096)
    t.equal(thin.read(two, 50 * 128, 8), b"\6" * 4096, "what was written in the second line")
    two.remove()
    # Another table of the same mapped device.
    vol.swap(vol.table())
    thin.fill(vol, 0, 1, 1)
    vol.remove()
    vol = pool.thin(0, 16 * MIB, "again")
    t.equal(thin.read(vol, 0, 1), b"\1" * 512, "by another name, once the first is gone")
    one = thin.Device(t, "one-disk")
    t.equal(thin.error_of(one.load, thin.Target(0, 16384, "thin-pool", f"{data.layer.path} {data.layer.node} 128 0")),
            errno.EINVAL, "metadata and data by two names of one device")
    one.remove()
    end(pool, vol)


# ---- suspends that are given up ------------------------------------------------------------------

def interrupted_suspend(t):
    """A suspend without flush that is interrupted while it waits leaves the device as it was."""
    meta, data = disks(t)
    pool = thin.Pool(t, meta, data)
    vol = pool.make(0, 16 * MIB)
    thin.fill(vol, 0, 4, 1)
    for _ in range(2):
        thin.flush(vol)  # or the worker would wait for the data device, too
        data.layer.suspend(flush=False)
        write = thin.Background(thin.fill, vol, 0, 1, 2)
        tm.wait_for(lambda write=write: "blkdev_direct_IO" in stack(write.thread.native_id), 20, "a write on its way")
        suspend = subprocess.Popen(["dmsetup", "suspend", "--noflush", "--nolockfs", vol.name],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        tm.wait_for(lambda pid=suspend.pid: "dm_wait_for" in stack(pid), 20,
                    "the suspend waits for it")
        suspend.send_signal(signal.SIGKILL)
        suspend.wait(20)
        t.check(not vol.info().suspended, "the suspend was given up")
        data.layer.resume()
        t.equal(write.ended(), 0, "the write")
        t.equal(thin.error_of(thin.fill, vol, 1, 1, 3), 0, "a write in place after it")
        t.equal(thin.error_of(thin.fill, vol, 9, 1, 3), 0, "a write to a hole")
        t.equal(thin.error_of(thin.flush, vol), 0, "a flush")
        t.equal(thin.read(vol, 0, 1) + thin.read(vol, 128, 1), b"\2" * 512 + b"\3" * 512, "what was written")
        vol.suspend(flush=False)
        vol.resume()
        t.equal(thin.error_of(thin.fill, vol, 1, 1, 4), 0, "a write after a suspend that was not")
    # A pool that is suspended, and then its volume, with I/O coming all the time: none of it is lost.
    stop = []

    def hammer():
        block = 0
        with thin.File(vol.path) as file:
            while not stop:
                file.write(block % 64 * 128, bytes([block % 251]) * 512)
                block += 1

    def hammer_durable(first):
        block = first
        with thin.File(vol.path) as file:
            while not stop:
                file.write(block % 64 * 128, bytes([block % 251]) * 512)
                file.flush()
                file.discard(block % 64 * 128, 128)
                block += 1

    writers = [thin.Background(hammer) for _ in range(4)] + [thin.Background(hammer_durable, 64 + n) for n in range(2)]
    for _ in range(20):
        pool.suspend(flush=False)
        vol.suspend(flush=False)
        t.check(vol.info().suspended, "the volume is suspended while its pool is")
        vol.resume()
        pool.resume()
    stop.append(True)
    t.equal([writer.ended() for writer in writers], [0] * 6, "writers")
    end(pool, vol)


PARTS = {
    "commit_waits_for_discards": commit_waits_for_discards, "flush_during_discard": flush_during_discard,
    "side_by_side": side_by_side, "shared_commits": shared_commits,
    "copy_before_discard": copy_before_discard, "room_by_commit": room_by_commit,
    "each_block_once": each_block_once, "names": names,
    "interrupted_suspend": interrupted_suspend,
}


def run(t):
    thin.quiet(t)
    t.defer(target.use, t.target)
    target.use("ours")
    for text, part in PARTS.items():
        began = time.monotonic()
        part(t)
        t.log(f"{text}: as it should be, {time.monotonic() - began:.1f} s")
