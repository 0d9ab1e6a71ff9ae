# SPDX-License-Identifier: GPL-2.0-or-later
"""What our thin-pool target does when things go wrong: errors of the metadata and the data device,
metadata that fills up, data space that runs out, tables that are refused; and that it never says
twice, or not at all, what it has to say once.

Each fault is provoked; ends are thin_check and the data that had been made durable.
"""

import errno
import itertools
import os
import time
from pathlib import Path

import aio
import metadata
import target
import thin
import tm

SUITES = ["bookworm"]  # on Debian 13 by its name
LIMIT = 400
PACKAGE = False
MODULE = True

MIB = 1 << 20
KIB64 = thin.BLOCK * thin.SECTOR


def disks(t, meta=2 * MIB, data=32 * MIB):
    return thin.Disk(t, "meta", meta).through(), thin.Disk(t, "data", data).through()


def disks_of(t, number):
    """Those of one pool among several."""
    return thin.Disk(t, f"meta{number}", 2 * MIB).through(), thin.Disk(t, f"data{number}", 32 * MIB)


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


def causes(pool, since=0):
    return [tuple(line.split()[2:]) for line in pool.message(f"events {since}").split("\n")[1:]]


def newest(pool):
    return int(pool.message("events 0").split()[0])


def name(code):
    return errno.errorcode.get(code, str(code)) if code else "success"


def sure(t, code, wanted, text):
    t.equal(name(code), wanted, text)


def settled(pool):
    """The worker has seen what was done: its turn is over when a message is answered, or a commit made."""
    pool.status(flush=True)


# ---- modes over suspends -------------------------------------------------------------------------

def mode_over_suspend(t):
    """Row 1: a resume with the same table keeps every mode."""
    meta, data = disks(t)
    pool = thin.Pool(t, meta, data, features="error_if_no_space")
    vol = pool.make(0, 64 * MIB)

    def keeps(mode):
        since = newest(pool)
        for flush in (True, False):
            t.equal(pool.mode(), mode, "the mode before")
            pool.suspend(flush)
            t.equal(pool.mode(), mode, "the mode while suspended")
            pool.resume()
            t.equal(pool.mode(), mode, "the mode after a resume")
        t.equal([c for c in causes(pool, since) if c[0] == "mode"], [], f"changes of {mode}")

    keeps("rw")
    sure(t, thin.error_of(thin.fill, vol, 0, 513, 1), "ENOSPC", "a write without space")
    keeps("out_of_data_space")
    pool.change(features="read_only")
    keeps("ro")
    pool.change(features="")
    t.equal(pool.mode(), "out_of_data_space", "asked to be writable again")
    pool.metadata.fail()
    t.check(thin.error_of(pool.message, "create_thin 1") != 0, "a message that cannot be committed")
    keeps("ro")
    t.check(pool.state().needs_check, "needs_check is shown")
    pool.metadata.heal()
    keeps("ro")
    end(pool, vol, clean=False)


# ---- marks ---------------------------------------------------------------------------------------

def marks(t):
    """Row 2: one event per crossing; hovering at the mark, none; far above and down again, one more."""
    meta, data = disks(t, data=16 * MIB)  # 256 blocks
    pool = thin.Pool(t, meta, data, low_water=64)
    vol = pool.make(0, 32 * MIB)
    settled(pool)

    def said():
        pool.status(flush=True)
        return [c[0] for c in causes(pool)].count("data_low"), pool.events()

    low, dm_before = said()
    t.equal(low, 0, "with all free")
    thin.fill(vol, 0, 191, 1)
    t.equal(said()[0], 0, "65 free, mark 64")
    thin.fill(vol, 191, 1, 1)
    tm.wait_for(lambda: said()[0] == 1, 10, "64 free")
    t.equal(said()[1], dm_before + 1, "device-mapper events")
    for _ in range(20):  # hovers
        thin.discard(vol, 191 * 128, 128)
        tm.wait_for(lambda: pool.state(flush=True).data_used == 191, 10, "a block given back")
        thin.fill(vol, 191, 1, 1)
        tm.wait_for(lambda: pool.state(flush=True).data_used == 192, 10, "a block taken")
    thin.fill(vol, 192, 30, 1)
    t.equal(said(), (1, dm_before + 1), "hovering at the mark, then far below it")
    thin.discard(vol, 0, 150 * 128)
    tm.wait_for(lambda: pool.state(flush=True).data_used == 72, 10, "far above the mark")
    t.equal(said(), (1, dm_before + 1), "rising says nothing")
    thin.fill(vol, 0, 120, 1)
    tm.wait_for(lambda: said()[0] == 2, 10, "falls again")
    t.equal(said(), (2, dm_before + 2), "once more")
    pool.suspend()
    pool.resume()
    tm.wait_for(lambda: said()[0] == 3, 10, "a resume arms it again")
    # In one step from above to nothing is a crossing, too.
    thin.discard(vol, 0, 256 * 128)
    tm.wait_for(lambda: pool.state(flush=True).data_used == 0, 10, "empty")
    before = said()[0]
    with thin.File(vol.path) as file:
        file.write(0, b"x" * (8 * MIB))
        file.write(8 * MIB // 512, b"x" * (8 * MIB))
    tm.wait_for(lambda: said()[0] == before + 1, 10, "in one step")

    # Metadata, by a mark that moves.
    since = newest(pool)
    state = pool.state(flush=True)
    pool.message(f"set_metadata_low_water {state.metadata_total - state.metadata_used}")
    tm.wait_for(lambda: ("metadata_low",) in [c[:1] for c in causes(pool, since)], 10, "metadata is low")
    for _ in range(5):
        pool.message("create_thin 9")
        pool.message("delete 9")
    settled(pool)
    t.equal([c[0] for c in causes(pool, since)].count("metadata_low"), 1, "hovering at the metadata's mark")
    end(pool, vol)


def metadata_mark(t):
    """Row 2 for metadata, by volumes that are made and deleted: down, far up, down again, a resume."""
    meta, data = disks(t)
    pool = thin.Pool(t, meta, data)
    state = pool.state(flush=True)
    pool.message(f"set_metadata_low_water {state.metadata_total - state.metadata_used - 120}")

    def said():
        pool.status(flush=True)
        return [c[0] for c in causes(pool)].count("metadata_low"), pool.events()

    low, dm_before = said()
    t.equal(low, 0, "above the mark")

    def fall():
        for number in range(250):
            pool.message(f"create_thin {number}")

    fall()  # a block for each
    t.equal(said(), (1, dm_before + 1), "below the mark")
    for number in range(250):
        pool.message(f"delete {number}")
    t.equal(said(), (1, dm_before + 1), "above the mark again")
    fall()
    t.equal(said(), (2, dm_before + 2), "below it once more")
    pool.suspend()
    pool.resume()
    tm.wait_for(lambda: said()[0] == 3, 10, "a resume arms it again")
    end(pool)


# ---- metadata that fills up ----------------------------------------------------------------------

def full_metadata(t, size):
    """Row 3: the pool ends read-only with needs_check, never in Fail, whatever the size."""
    meta, data = disks(t, meta=size, data=256 * MIB)
    pool = thin.Pool(t, meta, data)
    vol = pool.make(0, 64 << 30)
    durable = b"d" * KIB64
    with thin.File(vol.path) as file:
        file.write(0, durable)
        file.flush()
    # Volumes take a block each. When only the reserve is left a message is refused, and nothing is lost.
    number = 1
    while not (code := thin.error_of(pool.message, f"create_thin {number}")):
        number += 1
    sure(t, code, "ENOSPC", f"volume {number}")
    state = pool.state()
    t.equal((state.mode, state.needs_check, state.metadata_used), ("rw", False, state.metadata_total), "all in use")
    sure(t, thin.error_of(pool.message, "create_snap 5000 0"), "ENOSPC", "a snapshot")
    # What frees space is let through, and what LVM2 says after it, though that freed too little.
    pool.message("set_transaction_id 0 1")
    pool.message(f"delete {number - 1}")
    pool.message(f"delete {number - 2}")
    t.equal(pool.mode(), "rw", "the mode after deletes")
    pool.message(f"create_thin {number - 1}")

    def scatter():
        with thin.File(vol.path) as file:
            for block in range(1, 200000):
                file.write(block * 40009 * 128 % (vol.size // 512 // 128 * 128), b"s" * 4096)

    t.check(thin.error_of(scatter) in (errno.ENOSPC, errno.EIO), "in the end a write finds no metadata")
    state = pool.state()
    t.equal((state.mode, state.needs_check), ("ro", True), f"{size >> 10} KiB of metadata, full")
    t.equal(thin.flags(meta) & 1, 1, "needs_check on the device")
    t.equal(thin.read(vol, 0, 128), durable, "what was durable before")
    thin.write(vol, 0, durable)
    t.check(thin.error_of(thin.write, vol, 129, b"x" * 512) != 0, "no write to a hole")
    t.check(thin.error_of(pool.message, "create_thin 9999") != 0, "no message")
    lost = name(thin.error_of(thin.flush, vol))
    t.check(lost in ("success", "EIO"), "fsync")
    end(pool, vol, clean=False)


def metadata_mark_under_load(t):
    """Row 2 for metadata: what a transaction takes, and gives back when it is committed, is no crossing."""
    meta, data = disks(t, meta=256 << 10)
    pool = thin.Pool(t, meta, data)
    vol = pool.make(0, 64 << 30)
    free = lambda: (s := pool.state(flush=True)).metadata_total - s.metadata_used  # noqa: E731
    number = 1
    while free() > 14:
        pool.message(f"create_thin {number}")
        number += 1
    since = newest(pool)
    pool.message(f"set_metadata_low_water {free() - 2}")
    with thin.File(vol.path) as file:
        for block in range(20):
            file.write(block * 128, b"s" * 512)
            pool.status()
            file.flush()
    settled(pool)
    said = [c for c in causes(pool, since) if c[0] == "metadata_low"]
    t.check(len(said) <= 1, f"at most one event, not {said}")
    end(pool, vol)


def no_room_to_grow(t):
    """More data space needs metadata to write that down: without, the pool goes on as it is, and with more
    metadata in the same resume it grows."""
    meta, data = disks(t, meta=256 << 10, data=256 * MIB)
    pool = thin.Pool(t, meta, data, sectors=64 * 128)
    vol = pool.make(0, 16 * MIB)
    thin.fill(vol, 0, 4, 1)
    number = 1
    while not thin.error_of(pool.message, f"create_thin {number}"):
        number += 1
    pool.change(sectors=4000 * 128)
    state = pool.state()
    t.equal((pool.info().suspended, state.mode, state.needs_check, state.data_total), (False, "rw", False, 64),
            "after a resume that could not grow it")
    t.check("data space is not grown from 64 to 4000 blocks: too little metadata is left" in tm.sh(["dmesg"]).out, "the log says so")
    sure(t, thin.error_of(pool.message, "grow_data 4000"), "ENOSPC", "the message")
    t.equal(thin.read(vol, 0, 4), b"\1" * 2048, "what was written")
    meta.resize(MIB)
    pool.change(sectors=4000 * 128)
    state = pool.state()
    t.equal((state.mode, state.metadata_total, state.data_total), ("rw", 256, 4000), "grown, both in one resume")
    end(pool, vol)


def growth_not_committed(t):
    """The metadata device takes no more writes when the pool is grown: it comes up, read-only."""
    for what in ("data", "metadata"):
        meta, data = disks(t, meta=MIB)
        pool = thin.Pool(t, meta, data, sectors=64 * 128)
        vol = pool.make(0, 16 * MIB)
        thin.fill(vol, 0, 4, 1)
        thin.flush(vol)
        if what == "metadata":
            meta.resize(2 * MIB)
        meta.fail("error_writes")
        pool.change(sectors=128 * 128 if what == "data" else 64 * 128)
        state = pool.state()
        t.equal((pool.info().suspended, state.mode, state.needs_check), (False, "ro", True), f"{what} grown")
        t.equal(thin.read(vol, 0, 4), b"\1" * 2048, "what was written")
        meta.heal()
        tm.wait_for(lambda meta=meta: thin.flags(meta) & 1, 20, "needs_check on the device")
        end(pool, vol, clean=False)


# ---- data that runs out --------------------------------------------------------------------------

def out_of_data(t):
    """Row 4 and 7: what waits, what fails, and for how long; and nothing is aborted."""
    meta, data = disks(t, data=8 * MIB)  # 128 blocks
    with thin.no_space_timeout(0):  # never
        pool = thin.Pool(t, meta, data, sectors=64 * 128)
        vol = pool.make(0, 64 * MIB)
        thin.fill(vol, 0, 64, 5)
        waiting = [thin.Background(thin.fill, vol, 100 + n, 1, 9) for n in range(3)]
        tm.wait_for(lambda: pool.mode() == "out_of_data_space", 20, "out of data space")
        t.check(not pool.state().needs_check, "no check is needed")
        # What is mapped is served, and durable.
        thin.fill(vol, 3, 1, 6)
        thin.flush(vol)
        t.equal(thin.read(vol, 3 * 128, 1), b"\6" * 512, "a mapped block")
        t.equal(thin.read(vol, 90 * 128, 1), bytes(512), "a hole")
        # Space by a larger table: what waited goes on.
        pool.change(sectors=65 * 128)
        tm.wait_for(lambda: sum(not w.waits() for w in waiting) == 1, 20, "one block for one of three")
        # ... and by a discard.
        thin.discard(vol, 0, 128)
        tm.wait_for(lambda: sum(not w.waits() for w in waiting) == 2, 20, "another")
        t.equal([w.ended() for w in waiting if not w.waits()], [0, 0], "both succeed")
        # A table that wants no waiting ends it.
        pool.change(features="error_if_no_space")
        sure(t, max(w.ended() for w in waiting), "ENOSPC", "the third")
        sure(t, thin.error_of(thin.fill, vol, 120, 1, 9), "ENOSPC", "another write")
        t.equal(pool.mode(), "out_of_data_space", "the mode")
        pool.change(features="")
        waiting = thin.Background(thin.fill, vol, 110, 1, 9)
        tm.wait_for(lambda: pool.mode() == "out_of_data_space", 20, "out of data space")
        t.check(waiting.waits(), "it waits again")
        # Read-only: nothing can come of waiting.
        pool.change(features="read_only")
        sure(t, waiting.ended(), "EIO", "a write that waited when the pool became read-only")
        pool.change(features="")
    with thin.no_space_timeout(1):
        since = newest(pool)
        pool.suspend()
        pool.resume()
        sure(t, thin.Background(thin.fill, vol, 111, 1, 9).ended(), "ENOSPC", "a write that waited a second")
        t.check(("no_space_timeout", "0") in causes(pool, since), "the event of it")
        t.equal(pool.state().no_space, "error_if_no_space", "the status after the time-out")
        # From then on nothing waits, until there was space.
        sure(t, thin.error_of(thin.fill, vol, 112, 1, 9), "ENOSPC", "the next")
        pool.change(sectors=66 * 128)
        tm.wait_for(lambda: pool.mode() == "rw", 20, "space")
        thin.fill(vol, 112, 1, 9)
        sure(t, thin.Background(thin.fill, vol, 113, 1, 9).ended(), "ENOSPC", "a write that waited anew")
    # A suspend without flush gives back what waits; a flush one lets no data be lost either.
    with thin.no_space_timeout(0):
        pool.change(sectors=66 * 128)
        pool.suspend()
        pool.resume()
        end_of_wait = thin.Background(thin.fill, vol, 114, 1, 9)
        tm.wait_for(lambda: pool.mode() == "out_of_data_space", 20, "out of data space")
        vol.suspend(flush=False)
        t.check(end_of_wait.waits(), "it waits in device-mapper")
        pool.change(sectors=67 * 128)
        vol.resume()
        sure(t, end_of_wait.ended(), "success", "the write that was given back")
    t.equal(thin.read(vol, 114 * 128, 128), b"\x09" * KIB64, "what it wrote")
    end(pool, vol)


def full_and_unused(t):
    """Row 7: the time that I/O may wait begins when it has to, not when a pool that is full is activated or resumed."""
    metas, datas = zip(*(disks_of(t, number) for number in range(2)))
    with thin.no_space_timeout(1):
        pools = [thin.Pool(t, meta, data, f"pool{n}", sectors=16 * 128) for n, (meta, data) in enumerate(zip(metas, datas))]
        vols = [pool.make(0, 8 * MIB) for pool in pools]
        for vol in vols:
            thin.fill(vol, 0, 16, 1)
            thin.flush(vol)
        for n in (0, 1):
            vols[n].remove()
            pools[n].remove()
            pools[n] = thin.Pool(t, metas[n], datas[n], f"pool{n}", sectors=16 * 128)
            vols[n] = pools[n].thin(0, 8 * MIB)
        quiet, other = pools
        for _ in range(2):
            # When a write to the other has waited as long as it may, as much time has gone by for the first.
            since = newest(quiet)
            sure(t, thin.Background(thin.fill, vols[1], 20, 1, 9).ended(), "ENOSPC", "a write to the other")
            t.equal((quiet.state().no_space, causes(quiet, since)), ("queue_if_no_space", []), "where nobody waited")
            began = time.monotonic()
            sure(t, thin.Background(thin.fill, vols[0], 20, 1, 9).ended(), "ENOSPC", "a write that waited")
            t.check(time.monotonic() - began > 0.9, "it waited for all of the time")
            t.equal(quiet.state().no_space, "error_if_no_space", "the status after the time-out")
            for pool in pools:
                pool.suspend()
                pool.resume()
            t.equal([pool.state().no_space for pool in pools], ["queue_if_no_space"] * 2, "after a resume")
    for pool, vol in zip(pools, vols):
        end(pool, vol)


def full_then_broken(t):
    """Rows 4 and 7: running out of data commits what there is; an error of the metadata then ends the waiting."""
    meta, data = disks(t, data=4 * MIB)
    with thin.no_space_timeout(0):
        pool = thin.Pool(t, meta, data)
        vol = pool.make(0, 16 * MIB)
        thin.fill(vol, 0, 64, 1)  # never flushed
        waiting = [thin.Background(thin.fill, vol, 70 + n, 1, 1) for n in range(3)]
        tm.wait_for(lambda: pool.mode() == "out_of_data_space", 20, "out of data space")
        meta.fail("error_writes")
        t.check(all(w.waits() for w in waiting), "they wait")
        t.check(thin.error_of(pool.message, "create_thin 1") != 0, "a message that cannot be committed")
        t.equal([name(w.ended()) for w in waiting], ["EIO"] * 3, "what waited")
        t.equal((pool.mode(), pool.state().needs_check), ("ro", True), "the pool")
        vol.remove()
        pool.remove()
    meta.heal()
    thin.check(meta)
    pool = thin.Pool(t, meta, data)
    vol = pool.thin(0, 16 * MIB)
    t.check(thin.read(vol, 0, 64 * 128) == b"\1" * (64 * KIB64), "what was written before space ran out")
    t.equal(pool.state().data_used, 64, "blocks in use")
    end(pool, vol)


# ---- tables that are refused ---------------------------------------------------------------------

def failed_tables(t):
    """Row 5: a thin device that cannot be made leaves the pool as it was; one of a pool in Fail is -EINVAL."""
    meta, data = disks(t)
    pool = thin.Pool(t, meta, data)
    pool.message("create_thin 0")
    for args in ("7", "x", "0 /dev/none", "0 " + pool.path):
        number, _, origin = args.partition(" ")
        t.check(thin.error_of(pool.thin, number, MIB, "no", origin) != 0, f"thin device {args} cannot be made")
        t.equal(pool.info().open_count, 0, f"users of the pool after {args}")
    pool.suspend()
    sure(t, thin.error_of(pool.thin, 0, MIB, "no"), "EINVAL", "one of a suspended pool")
    pool.resume()
    t.equal(pool.info().open_count, 0, "users of the pool")
    vol = pool.thin(0, MIB)
    thin.fill(vol, 0, 2, 1)
    vol.remove()
    end(pool)


# ---- errors of the metadata device ---------------------------------------------------------------

def lose_a_write(t, how):
    """A pool whose metadata fails after a write was acknowledged, and before it was committed; and the
    metadata as it was committed last. A commit may come in between, so it is tried until it did not."""
    for _ in range(20):
        meta, data = disks(t)
        pool = thin.Pool(t, meta, data, features="no_discard_passdown")
        vol, other = pool.make(0, 16 * MIB), pool.make(1, 16 * MIB)
        thin.fill(vol, 0, 3, 1)
        bystander = thin.File(vol.path)
        bystander.flush()
        good = thin.dump(meta)
        thin.fill(vol, 3, 1, 1)
        bystander.flush()
        meta.fail(how)
        if not thin.error_of(thin.fill, vol, 10, 4, 2):
            return pool, vol, other, bystander, good
        bystander.close()
        meta.heal()
        end(pool, vol, other, clean=False)
    raise tm.Failed("no write was acknowledged in twenty times")


def metadata_errors(t, how):
    """Row 7: the transaction is taken back, read-only, needs_check; fsync fails until a reload."""
    pool, vol, other, bystander, good = lose_a_write(t, how)
    meta = pool.metadata
    sure(t, thin.error_of(bystander.flush), "EIO", "fsync of what cannot be committed")
    state = tm.wait_for(lambda: (s := pool.state()).mode == "ro" and s, 20, "read-only")
    t.check(state.needs_check, "needs_check is shown")
    for _ in range(3):
        sure(t, thin.error_of(bystander.flush), "EIO", "each fsync after it")
        if how == "error_writes":
            sure(t, thin.error_of(aio.write_fua, vol.path, 128, b"\1" * 512), "EIO", "each FUA write, of a block that is there")
    sure(t, thin.error_of(thin.flush, other), "success", "fsync of a volume that lost nothing")
    if how == "error_writes":
        t.equal(thin.read(vol, 0, 1), b"\1" * 512, "what was durable")
    t.check(thin.error_of(thin.fill, vol, 20, 1, 1) != 0, "a write to a hole")
    t.check(thin.error_of(pool.message, "create_thin 2") != 0, "a message")
    t.check(thin.error_of(thin.discard, vol, 0, 128) != 0, "a discard that frees nothing is not acknowledged")
    t.equal(thin.flags(meta) & 1, 0, "needs_check cannot be on the device yet")
    meta.heal()
    tm.wait_for(lambda: thin.flags(meta) & 1, 20, "needs_check on the device as soon as it takes a write")
    # All that is there of the lost transaction is the flag.
    dumped = thin.dump(meta).replace(' flags="1"', ' flags="0"')
    t.equal((dumped.count("<device"), 'mapped_blocks="4"' in dumped, 'mapped_blocks="8"' in dumped),
            (good.count("<device"), True, False), "the metadata of the last commit")
    sure(t, thin.error_of(bystander.flush), "EIO", "fsync after the device is well again")
    t.equal(thin.read(vol, 0, 4 * 128), b"\1" * (4 * KIB64), "what was durable")
    t.equal(thin.read(vol, 10 * 128, 1), bytes(512), "what was lost")
    thin.fill(vol, 1, 1, 9)  # in place
    sure(t, thin.error_of(bystander.flush), "EIO", "fsync of a write in place")
    sure(t, thin.error_of(aio.write_fua, vol.path, 128, b"\x09" * 512), "EIO", "a FUA write in place")
    sure(t, thin.error_of(aio.write_fua, other.path, 0, b"x" * 512), "EIO", "a FUA write to a hole of the other volume")
    bystander.close()
    t.check(("needs_check", "1") in causes(pool), "the event of it")
    # Neither more space nor a table that asks for it helps.
    pool.change(features="")
    t.equal((pool.state().mode, pool.state().needs_check), ("ro", True), "a table that asks for write mode")
    pool.data.resize(64 * MIB)
    t.check(thin.error_of(pool.message, "grow_data 1024") == errno.EPERM, "no growth with needs_check")
    pool.metadata.resize(4 * MIB)
    sure(t, thin.error_of(pool.message, "grow_metadata 1024"), "EPERM", "no growth of metadata")
    sure(t, thin.error_of(pool.load, pool.line(1024 * 128)), "EPERM", "a longer table, when it is loaded")
    pool.clear()
    pool.suspend()
    pool.resume()
    t.equal((pool.state().data_total, pool.state().metadata_total), (512, 512), "sizes")
    t.check(thin.error_of(thin.fill, vol, 20, 1, 1) != 0, "a write to a hole")
    # The volume loaded again knows what is there.
    vol.remove()
    vol = pool.thin(0, 16 * MIB)
    sure(t, thin.error_of(thin.flush, vol), "success", "fsync of the volume loaded again")
    sure(t, thin.error_of(aio.write_fua, vol.path, 128, b"\x09" * 512), "success", "a FUA write of it")
    # Loaded by whoever comes next: read-only until it was looked at.
    vol.remove()
    other.remove()
    pool.remove()
    pool = thin.Pool(t, meta, pool.data, sectors=512 * 128)
    t.equal((pool.state().mode, pool.state().needs_check), ("ro", True), "activated again")
    pool.remove()
    thin.clear_needs_check(meta)
    pool = thin.Pool(t, meta, pool.data, sectors=512 * 128)
    t.equal((pool.state().mode, pool.state().needs_check), ("rw", False), "after a clean check")
    vol = pool.thin(0, 16 * MIB)
    thin.fill(vol, 20, 1, 1)
    thin.flush(vol)
    end(pool, vol)


def damaged(t):
    """Committed metadata that is damaged when a transaction has to be taken back: Fail. All I/O fails, also what
    waited; nothing can be made of the pool (rows 4, 5); and once it is taken down and repaired, all is there."""
    meta, data = disks(t, data=4 * MIB)
    with thin.no_space_timeout(0):
        pool = thin.Pool(t, meta, data)
        vol = pool.make(0, 16 * MIB)
        thin.fill(vol, 0, 64, 1)
        thin.flush(vol)
        waiting = thin.Background(thin.fill, vol, 100, 1, 1)
        tm.wait_for(lambda: pool.mode() == "out_of_data_space", 20, "out of data space")
        since = newest(pool)
        meta.fail("error_writes")
        with meta.file.open("rb+") as file:
            # Where the counts of metadata blocks are; see the superblock's layout.
            file.seek(192 + 16)
            at = int.from_bytes(file.read(8), "little") * 4096
            file.seek(at)
            good = file.read(4096)
            file.seek(at)
            file.write(b"damaged" + good[7:])
        t.check(thin.error_of(pool.message, "create_thin 5") != 0, "a message that cannot be committed")
        t.equal((pool.status().strip(), vol.status().strip()), ("Fail", "Fail"), "both statuses")
        sure(t, waiting.ended(), "EIO", "the write that waited")
    t.check(("mode", "Fail") in causes(pool, since), "the event of it")
    for _ in range(2):
        sure(t, thin.error_of(thin.read, vol, 0, 1), "EIO", "a read")
        sure(t, thin.error_of(thin.fill, vol, 0, 1, 1), "EIO", "a write in place")
        sure(t, thin.error_of(thin.fill, vol, 101, 1, 1), "EIO", "a write to a hole")
        sure(t, thin.error_of(thin.flush, vol), "EIO", "a flush")
        t.check(thin.error_of(thin.discard, vol, 0, 128) != 0, "a discard")
        for text in ("create_thin 6", "delete 0", "set_transaction_id 0 1", "grow_data 64", "grow_metadata 512"):
            t.check(thin.error_of(pool.message, text) != 0, f"{text} fails")
        sure(t, thin.error_of(pool.thin, 0, MIB, "no"), "EINVAL", "a thin device")
        sure(t, thin.error_of(pool.load, pool.line()), "EINVAL", "another table")
        t.equal(pool.info().open_count, 1, "users of the pool")
        pool.suspend()
        pool.resume()
        t.equal(pool.mode(), "Fail", "the mode after a resume")
    vol.remove()
    pool.remove()
    meta.heal()
    t.check(thin.check_fails(meta), "thin_check sees the damage")
    with meta.file.open("rb+") as file:
        file.seek(at)
        file.write(good)
    thin.clear_needs_check(meta)
    pool = thin.Pool(t, meta, data)
    vol = pool.thin(0, 16 * MIB)
    t.equal(thin.read(vol, 0, 64 * 128), b"\1" * (64 * KIB64), "what was durable")
    end(pool, vol)


def data_errors(t):
    """A block that cannot be zeroed, copied or written is not mapped; the pool goes on."""
    meta, data = disks(t)
    pool = thin.Pool(t, meta, data)
    vol = pool.make(0, 16 * MIB)
    thin.fill(vol, 0, 2, 1)
    vol.suspend()
    pool.message("create_snap 1 0")
    vol.resume()
    used = pool.state(flush=True).data_used
    data.fail("error_writes")
    sure(t, thin.error_of(thin.write, vol, 5 * 128, b"x" * 512), "EIO", "a write to a hole")
    sure(t, thin.error_of(thin.fill, vol, 6, 1, 1), "EIO", "a whole block to a hole")
    sure(t, thin.error_of(thin.write, vol, 0, b"x" * 512), "EIO", "a write to a shared block")
    sure(t, thin.error_of(thin.fill, vol, 1, 1, 1), "EIO", "a whole shared block")
    data.heal()
    t.equal(thin.read(vol, 0, 2 * 128), b"\1" * (2 * KIB64), "what was there")
    t.equal(thin.read(vol, 5 * 128, 256), bytes(2 * KIB64), "the holes")
    state = pool.state(flush=True)
    if state.mode == "rw":
        t.equal(state.data_used, used, "data blocks in use")
        thin.fill(vol, 5, 1, 1)
        end(pool, vol)
    else:
        end(pool, vol, clean=False)
    t.equal((state.mode, state.needs_check), ("rw", False), "the pool")


def zero_errors(t):
    """The end of a large block cannot be zeroed, which is done step by step: the write fails, and the block is free again."""
    block = 16 * MIB
    meta, data = thin.Disk(t, "meta", 2 * MIB), thin.Disk(t, "data", 2 * block).through()
    data.file.write_bytes(b"\xaa" * (2 * block))
    pool = thin.Pool(t, meta, data, block=block // 512)
    vol = pool.make(0, 4 * block)
    used = pool.state(flush=True).data_used
    end_of_block, end_of_disk = block // 512 - 2048, 2 * block // 512 - 2048
    for bad in (end_of_block, 0):
        data.layer.swap(*(thin.Target(begin, 2048, "error", "") if begin in (bad, bad + block // 512) else
                          thin.Target(begin, 2048, "linear", f"{data.loop} {begin}")
                          for begin in range(0, end_of_disk + 2048, 2048)), flush=False)
        sure(t, thin.error_of(thin.write, vol, 4096, b"x" * 512), "EIO", f"a write, {bad} cannot be zeroed")
        t.equal(pool.state(flush=True).data_used, used, "data blocks in use")
    data.heal()
    thin.write(vol, 4096, b"x" * 512)
    t.check(thin.read(vol, 0, block // 512) == bytes(MIB * 2) + b"x" * 512 + bytes(block - 2 * MIB - 512), "the block")
    t.equal((pool.mode(), pool.state(flush=True).data_used), ("rw", used + 1), "the pool")
    end(pool, vol)


def slowly_zeroed(t):
    """A large block is zeroed in steps: suspends come in between, and a pool that goes read-only meanwhile does not go on."""
    block = 16 * MIB
    meta, data = thin.Disk(t, "meta", 2 * MIB).through(), thin.Disk(t, "data", 5 * block).through()
    data.file.write_bytes(b"\xaa" * (5 * block))
    pool = thin.Pool(t, meta, data, block=block // 512)
    vol, other = pool.make(0, 4 * block), pool.make(1, block)
    thin.flush(vol)

    def written():
        return int(Path(f"/sys/block/{Path(data.loop).name}/stat").read_text().split()[6])  # sectors

    data.slow_writes(20)
    writes = [thin.Background(thin.write, vol, number * block // 512 + 4096, b"x" * 512) for number in range(3)]
    rounds = 0
    while any(write.waits() for write in writes) or rounds < 4:
        pool.suspend(flush=rounds % 2 == 0)
        vol.suspend(flush=False)
        pool.resume()
        vol.resume()
        rounds += 1
    t.equal([name(write.ended()) for write in writes], ["success"] * 3, "writes to blocks that are slowly zeroed")
    for number in range(3):
        t.check(thin.read(vol, number * block // 512, block // 512) ==
                bytes(2 * MIB) + b"x" * 512 + bytes(block - 2 * MIB - 512), f"block {number}, after {rounds} suspends")
    thin.flush(vol)

    # A step takes two seconds; a snapshot is what cannot be committed meanwhile.
    data.slow_writes(2000)
    before = written()
    late = thin.Background(thin.write, vol, 3 * block // 512 + 4096, b"x" * 512)
    tm.wait_for(lambda: written() > before, 20, "a part of it is zeroed")
    meta.fail("error_writes")
    t.check(thin.error_of(pool.message, "create_snap 2 1") != 0 or pool.mode() == "ro", "a commit that fails")
    sure(t, late.ended(), "EIO", "the write, the pool being read-only")
    t.equal(pool.mode(), "ro", "the pool")
    t.check(written() - before < block // 512, "zeroing ended before the block did")
    meta.heal()
    data.heal()
    end(pool, vol, other, clean=False)


# ---- sizes ---------------------------------------------------------------------------------------

def scsi_disk(t, mebibytes):
    """A disk in memory that can be told to refuse commands."""
    tm.sh(["modprobe", "sd_mod"])  # udev would
    tm.sh(["modprobe", "scsi_debug", f"dev_size_mb={mebibytes}", "delay=0"])

    def gone():
        return tm.sh(["rmmod", "scsi_debug"], check=False).status == 0

    t.defer(lambda: tm.wait_for(gone, 20, "the disk can be taken away"))
    found = Path("/sys/bus/pseudo/drivers/scsi_debug")
    tm.wait_for(lambda: list(found.glob("adapter*/host*/target*/*/block/sd*")), 20, "the disk is there")
    return next(found.glob("adapter*/host*/target*/*/block/sd*")).name


def refused_zeroes(t):
    """A disk that says it can write zeroes by itself, and would refuse when it is asked, gets them sent: no write fails."""
    disk = scsi_disk(t, 32)
    limit = Path(f"/sys/block/{disk}/queue/write_zeroes_max_bytes")
    origin = thin.Disk(t, "origin", KIB64 + KIB64 // 2)
    thin.write(origin, 0, b"o" * (KIB64 + KIB64 // 2))
    meta = thin.Disk(t, "meta", 2 * MIB)
    with Path(f"/dev/{disk}").open("wb", buffering=0) as file:
        for _ in range(32):
            file.write(b"x" * MIB)
        os.fsync(file.fileno())
    data = thin.Device.of(t, f"{t.name}-scsi", thin.Target(0, 65536, "linear", f"/dev/{disk} 0"))
    pool = thin.Device.of(t, f"{t.name}-pool", thin.Target(0, 65536, "thin-pool", f"{meta.path} {data.path} 128 0"))
    pool.message("create_thin 0")
    vol = thin.Device.of(t, f"{t.name}-vol", thin.Target(0, 32768, "thin", f"{pool.path} 0 {origin.path}"))
    said = int(limit.read_text())
    t.check(said > 0, "the disk says that it writes zeroes")
    Path("/sys/module/scsi_debug/parameters/write_same_length").write_text("0\n")
    # Some at once; the one in block 1 is filled from the origin, too.
    writes = [thin.Background(thin.write, vol, block * 128 + 8, b"w" * 512) for block in range(1, 9)]
    t.equal([name(write.ended()) for write in writes], ["success"] * 8, "writes")
    t.equal(int(limit.read_text()), said, "the disk was not asked, and had not to refuse")
    for block in range(1, 9):
        before = bytearray(b"o" * (KIB64 // 2) + bytes(KIB64 // 2) if block == 1 else bytes(KIB64))
        before[8 * 512:9 * 512] = b"w" * 512
        t.check(thin.read(vol, block * 128, 128) == before, f"block {block}")
    vol.remove()
    pool.remove()
    thin.check(meta)
    data.remove()
    meta.close()
    origin.close()


def oversized(t):
    """Row 8: more metadata than the format knows is taken, the rest unused; also when it grows to that."""
    limit = 33292800 // 8
    warned = "the rest of it goes unused"
    # One warning when the table is loaded, and one when it grows to that.
    for first, grow, warnings in ((20 << 30, None, 1), (4 * MIB, "table", 2), (4 * MIB, "resume", 1), (4 * MIB, "message", 1)):
        meta, data = thin.Disk(t, "meta", first).through(), thin.Disk(t, "data", 8 * MIB).through()
        tm.sh(["dmesg", "-C"])
        pool = thin.Pool(t, meta, data)
        if grow:
            meta.resize(20 << 30)
        if grow == "table":
            pool.change()
        elif grow == "resume":
            pool.suspend()
            pool.resume()
        elif grow:
            pool.message(f"grow_metadata {limit}")
        t.equal(pool.state().metadata_total, limit, "blocks in use of 20 GiB")
        t.equal(tm.sh(["dmesg"]).out.count(warned), warnings, f"warnings, grown by {grow}")
        vol = pool.make(0, MIB)
        thin.fill(vol, 0, 3, 1)
        thin.check(pool)
        vol.remove()
        pool.remove()
        pool = thin.Pool(t, meta, data)
        t.equal((pool.mode(), pool.state().data_used), ("rw", 3), "activated again")
        end(pool)


def two_pools(t):
    """Two at once do not know of each other; and removal goes in any order that the users allow."""
    pools = []
    for number in range(2):
        meta, data = disks_of(t, number)
        pools.append(thin.Pool(t, meta, data, f"pool{number}"))
    vols = [pool.make(0, 8 * MIB) for pool in pools] + [pool.make(1, 8 * MIB) for pool in pools]
    for number, vol in enumerate(vols):
        thin.fill(vol, number, 8, number + 1)
    for number, vol in enumerate(vols):
        t.equal(thin.read(vol, number * 128, 8 * 128), bytes([number + 1]) * 8 * KIB64, f"volume {number}")
    t.check(thin.error_of(pools[0].remove) == errno.EBUSY, "a pool with volumes stays")
    pools[1].suspend()
    thin.fill(vols[0], 20, 2, 1)  # the other goes on
    pools[1].resume()
    # All at the same time; and what befalls one is no matter of the other.
    writers = [thin.Background(thin.fill, vol, 30, 40, 10 + number) for number, vol in enumerate(vols)]
    t.equal([name(w.ended(60)) for w in writers], ["success"] * 4, "four writers")
    pools[1].metadata.fail("error_writes")
    t.check(thin.error_of(pools[1].message, "create_thin 9") != 0, "a message to the pool with an error")
    thin.fill(vols[0], 70, 40, 10)
    thin.flush(vols[0])
    pools[1].metadata.heal()
    tm.wait_for(lambda: thin.flags(pools[1].metadata) & 1, 20, "needs_check of the one")
    t.equal([(p.mode(), p.state().needs_check) for p in pools], [("rw", False), ("ro", True)], "modes")
    t.equal(thin.read(vols[0], 30 * 128, 80 * 128), b"\x0a" * (80 * KIB64), "what was written to the other")
    t.equal(thin.read(vols[2], 30 * 128, 40 * 128), b"\x0c" * (40 * KIB64), "its second volume")
    for vol in vols:
        vol.remove()
    end(pools[0])
    end(pools[1], clean=False)


def orders(t):
    """Two volumes of each of two pools, and then the pools, away in every order."""
    places = [disks_of(t, number) for number in range(2)]
    for number, order in enumerate(itertools.permutations(range(4))):
        pools = [thin.Pool(t, meta, data, f"pool{which}") for which, (meta, data) in enumerate(places)]
        make = thin.Pool.make if number == 0 else thin.Pool.thin
        vols = [make(pools[n % 2], n // 2, MIB) for n in range(4)]
        for vol in vols:
            thin.fill(vol, number % 16, 1, number + 1)
        for n in order:
            t.check(thin.error_of(pools[n % 2].remove) == errno.EBUSY, "a pool with volumes stays")
            vols[n].remove()
        for pool in pools if number % 2 else reversed(pools):
            pool.remove()
    for meta, data in places:
        thin.check(meta)
        meta.close()
        data.close()


def shrunk(t):
    """Devices that became smaller: the resume fails, the pool stays suspended, and goes on once they are back."""
    meta, data = disks(t)
    pool = thin.Pool(t, meta, data)
    vol = pool.make(0, 16 * MIB)
    thin.fill(vol, 0, 3, 1)
    pool.suspend()
    meta.layer.swap(meta._line("linear", MIB), flush=False)
    for _ in range(2):
        sure(t, thin.error_of(pool.resume), "EINVAL", "a resume with less of a metadata device")
        t.check(pool.info().suspended, "the pool stays suspended")
    meta.layer.swap(meta._line("linear", 2 * MIB), flush=False)
    pool.resume()
    t.equal((pool.mode(), pool.state().metadata_total), ("rw", 512), "after the resume")
    thin.fill(vol, 3, 3, 1)
    # A table longer than the data device does not become live, and the one there was goes on.
    pool.load(pool.line(64 * MIB // 512))
    pool.suspend()
    sure(t, thin.error_of(pool.resume), "EINVAL", "a resume with a table longer than the data device")
    pool.resume()
    t.equal((pool.mode(), pool.state().data_total, pool.table().sectors), ("rw", 512, 32 * MIB // 512), "the pool after it")
    vol.remove()
    pool.remove()
    meta.layer.swap(meta._line("linear", MIB), flush=False)
    sure(t, thin.error_of(thin.Pool, t, meta, data), "EINVAL", "an activation with less of a metadata device")
    meta.layer.swap(meta._line("linear", 2 * MIB), flush=False)
    pool = thin.Pool(t, meta, data)
    vol = pool.thin(0, 16 * MIB)
    t.equal(thin.read(vol, 0, 6 * 128), b"\1" * (6 * KIB64), "what was written")
    end(pool, vol)


def removal(t):
    """With I/O that waits, and in each mode; orders() has the orders."""
    for queued in (False, True):
        meta, data = disks(t, data=4 * MIB)
        with thin.no_space_timeout(0):
            pool = thin.Pool(t, meta, data, features="" if queued else "error_if_no_space")
            vol = pool.make(0, 16 * MIB)
            thin.fill(vol, 0, 64, 1)
            waiting = thin.Background(thin.fill, vol, 70, 1, 1)
            if queued:
                tm.wait_for(lambda: pool.mode() == "out_of_data_space", 20, "out of data space")
                # The table below it ends: the I/O fails with it, and all can go.
                vol.load(thin.Target(0, 16 * MIB // 512, "error", ""))
                vol.suspend(flush=False)
                vol.resume()
            t.check(waiting.ended() != 0, "the write that waited")
            end(pool, vol)
    # A suspended pool, and one whose table was never resumed.
    meta, data = disks(t)
    pool = thin.Pool(t, meta, data)
    vol = pool.make(0, MIB)
    thin.fill(vol, 0, 1, 1)
    pool.load(pool.line())
    pool.suspend()
    vol.remove()
    end(pool)
    # Read-only, because it was asked for and because of an error that lasts.
    meta, data = disks(t)
    pool = thin.Pool(t, meta, data)
    vol = pool.make(0, MIB)
    thin.fill(vol, 0, 1, 1)
    pool.change(features="read_only")
    end(pool, vol)
    meta, data = disks(t)
    pool = thin.Pool(t, meta, data)
    vol = pool.make(0, MIB)
    meta.fail()
    t.check(thin.error_of(pool.message, "create_thin 1") != 0, "a message that cannot be committed")
    vol.remove()
    pool.remove()
    meta.heal()
    end(pool)


def replaced(t):
    """Another target in the place of a pool in use, as a removal by force leaves it: nothing of what
    was below it is used any more. And the pool again."""
    meta, data = disks(t)
    pool = thin.Pool(t, meta, data)
    vol = pool.make(0, 16 * MIB)
    pool.message("create_thin 1")
    thin.fill(vol, 0, 4, 1)
    line = pool.table()
    pool.load(thin.Target(0, line.sectors, "error", ""))
    pool.suspend(flush=False)
    pool.resume()
    t.equal((meta.layer.info().open_count, data.layer.info().open_count), (0, 0), "users of what was below")
    t.equal(vol.status().strip(), "Fail", "the volume's status")
    sure(t, thin.error_of(pool.thin, 1, MIB, "no"), "EIO", "another thin device")
    waiting = thin.Background(thin.fill, vol, 1, 5, 2)
    pool.swap(line)
    sure(t, waiting.ended(), "success", "a write meanwhile, in the end")
    t.equal(pool.mode(), "rw", "the pool, back again")
    t.equal(thin.read(vol, 0, 6 * 128), b"\1" * KIB64 + b"\2" * 5 * KIB64, "the data")
    # Metadata that others changed meanwhile is not written over with what the pool remembers.
    thin.flush(vol)
    pool.load(thin.Target(0, line.sectors, "error", ""))
    pool.suspend(flush=False)
    pool.resume()
    known = metadata.get(meta.file, 0)
    metadata.set_needs_check(meta.file)
    sure(t, thin.error_of(pool.load, line), "ESTALE", "the pool, where others say that it needs a check")
    metadata.put(meta.file, 0, bytes(metadata.BLOCK))
    sure(t, thin.error_of(pool.load, line), "ESTALE", "the pool, where there is nothing any more")
    metadata.put(meta.file, 0, known)
    pool.load(line)
    pool.clear()
    dump = t.scratch / "dump"
    tm.sh(["thin_dump", meta.path, "-o", dump])
    dump.write_text(dump.read_text().replace('transaction="0"', 'transaction="7"', 1))
    tm.sh(["thin_restore", "-i", dump, "-o", meta.path])
    sure(t, thin.error_of(pool.load, line), "ESTALE", "the pool, with other metadata")
    t.check("the metadata was changed while the pool was not there" in tm.sh(["dmesg"]).out, "the log says why")
    vol.load(thin.Target(0, 32768, "error", ""))
    vol.suspend(flush=False)
    vol.resume()
    vol.remove()
    pool.remove()
    pool = thin.Pool(t, meta, data)
    t.equal(pool.state().transaction_id, 7, "made again, it has what was written")
    vol = pool.thin(0, 16 * MIB)
    t.equal(thin.read(vol, 0, 6 * 128), b"\1" * KIB64 + b"\2" * 5 * KIB64, "the data")
    end(pool, vol)


def grown_while_suspended(t):
    """By a message; and then made read-only. It is durable all the same."""
    meta, data = disks(t)
    pool = thin.Pool(t, meta, data, sectors=100 * 128)
    pool.suspend()
    pool.message("grow_data 120")
    pool.load(pool.line(sectors=120 * 128, features="read_only"))
    pool.resume()
    t.equal((pool.mode(), pool.state().data_total), ("ro", 120), "the pool")
    pool.remove()
    sure(t, thin.error_of(thin.Pool, t, meta, data, "short", sectors=100 * 128), "EINVAL", "a table as before")
    end(thin.Pool(t, meta, data, sectors=120 * 128))


# Each with what is provoked; kernel-long.py has those that take long.
PARTS = {
    "mode_over_suspend": mode_over_suspend, "marks": marks, "out_of_data": out_of_data,
    "full_and_unused": full_and_unused, "full_then_broken": full_then_broken,
    "failed_tables": failed_tables,
    "metadata_mark": metadata_mark, "no_room_to_grow": no_room_to_grow,
    "growth_not_committed": growth_not_committed, "metadata_mark_under_load": metadata_mark_under_load,
    "full_metadata, small": lambda t: full_metadata(t, 256 << 10),
    "metadata_errors, no writes": lambda t: metadata_errors(t, "error_writes"),
    "metadata_errors, nothing": lambda t: metadata_errors(t, "error"),
    "damaged": damaged, "shrunk": shrunk, "data_errors": data_errors, "zero_errors": zero_errors,
    "slowly_zeroed": slowly_zeroed, "refused_zeroes": refused_zeroes,
    "two_pools": two_pools, "orders": orders, "removal": removal,
    "replaced": replaced, "grown_while_suspended": grown_while_suspended,
}


def run(t):
    thin.quiet(t)
    t.defer(target.use, t.target)
    target.use("ours")
    for text, part in PARTS.items():
        began = time.monotonic()
        part(t)
        t.log(f"{text}: as it should be, {time.monotonic() - began:.1f} s")
