# SPDX-License-Identifier: GPL-2.0-or-later
"""What lies on the devices: the superblock field by field, metadata that the tools wrote and that they
read from a live pool, when it is written, and what a new block holds.

What can be tried with both targets is, and has to be the same but for DIFFERENCES.
"""

import errno
import re
import statistics
import struct
from pathlib import Path

import aio
import target
import thin
import tm

SUITES = ["bookworm"]  # on Debian 13 by its name
LIMIT = 400
PACKAGE = False
MODULE = True
# The debug kernel finds the distribution's target reading the superblock as a bitmap while it has it locked.
ALLOW_LOG = [r"subsequent acquisition attempted here:.*\[dm_thin_pool\]"]

MIB = 1 << 20
SECTOR = thin.SECTOR
BLOCK_BYTES = thin.BLOCK * SECTOR
DIFFERENCES = {
    "version 3": "what a later version of the format means is not known",
    "version 3, read-only": "what a later version of the format means is not known",
}

# The superblock: <offset, format> of each field.
FIELDS = {
    "flags": (4, "<I"), "location": (8, "<Q"), "magic": (32, "<Q"), "version": (40, "<I"), "time": (44, "<I"),
    "transaction_id": (48, "<Q"), "held_root": (56, "<Q"), "data_blocks": (64, "<Q"), "data_used": (72, "<Q"),
    "data_bitmaps": (80, "<Q"), "metadata_blocks": (192, "<Q"), "metadata_bitmaps": (208, "<Q"),
    "mapping_root": (320, "<Q"), "details_root": (328, "<Q"), "data_block_sectors": (336, "<I"),
    "metadata_block_sectors": (340, "<I"), "compat_flags": (352, "<I"), "compat_ro_flags": (356, "<I"),
    "incompat_flags": (360, "<I"),
}


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc


def superblock(disk):
    return bytearray(disk.file.read_bytes()[:4096])


def field(disk, name):
    at, form = FIELDS[name]
    with disk.file.open("rb") as file:
        file.seek(at)
        return struct.unpack(form, file.read(struct.calcsize(form)))[0]


def put(disk, block, checksum=True):
    if checksum:
        block[:4] = struct.pack("<I", crc32c(block[4:]) ^ 160774)
    with disk.file.open("rb+") as file:
        file.write(block)


def a_pool(t, name="pool", **more):
    return thin.Pool(t, thin.Disk(t, "meta", 2 * MIB), thin.Disk(t, "data", 32 * MIB), name, **more)


def end(pool, *devices):
    for device in (*devices, pool):
        device.remove()
    thin.check(pool.metadata)
    pool.metadata.close()
    pool.data.close()


# ---- the superblock ------------------------------------------------------------------------------

# "" is the checksum itself.
CHANGES = [
    ("", 0), ("location", 1), ("magic", 27022011), ("version", 1), ("version", 3), ("flags", 1), ("time", 99),
    ("transaction_id", 1 << 63), ("metadata_blocks", 513), ("data_block_sectors", 256), ("compat_flags", 1),
    ("compat_ro_flags", 1), ("incompat_flags", 1), ("incompat_flags", 1 << 31), ("metadata_bitmaps", 1 << 40),
    ("metadata_bitmaps", 0), ("data_bitmaps", 1 << 40),
]


def superblocks(t):
    """A superblock with one field changed: taken or refused as by the distribution's target."""
    target.use("stock")
    pool = a_pool(t)
    vol = pool.make(0, 8 * MIB)
    thin.fill(vol, 0, 4, 1)
    vol.remove()
    pool.remove()
    meta, data = pool.metadata, pool.data
    good = superblock(meta)
    t.equal(struct.unpack("<I", good[:4])[0], crc32c(good[4:]) ^ 160774, "the checksum")
    whole = meta.file.read_bytes()
    answers = {}
    for which in ("stock", "ours"):
        target.use(which)
        for name, value in CHANGES:
            block = bytearray(good)
            if name:
                struct.pack_into(FIELDS[name][1], block, FIELDS[name][0], value)
            else:
                block[0] ^= 1
            for features in ("", "read_only"):
                text = f"{name or 'checksum'} {value}" + (", read-only" if features else "")
                meta.file.write_bytes(whole)
                put(meta, block, checksum=bool(name))
                before = meta.file.read_bytes()
                try:
                    again = thin.Pool(t, meta, data, features=features)
                except OSError as err:
                    t.equal(meta.file.read_bytes() == before, True, f"{which}: metadata refused for {text} is untouched")
                    answers[which, text] = errno.errorcode[err.errno]
                    continue
                answers[which, text] = again.state()
                again.remove()
                if name in ("compat_flags", "time", "transaction_id"):
                    t.equal(field(meta, name), value, f"{which}: {name} is kept")
    wrong = [f"{text}: ours {answers['ours', text]}, the distribution's {answers['stock', text]}"
             for which, text in answers if which == "ours"
             and (answers["ours", text] != answers["stock", text]) != (text in DIFFERENCES)]
    for line in wrong:
        t.log(line)
    t.equal(len(wrong), 0, "answers that are not as they should be")
    meta.file.write_bytes(whole)
    meta.close()
    data.close()


# In the superblock, behind the roots of the two space maps. The distribution's target writes what its memory
# happened to hold there.
UNUSED = (range(64 + 32, 64 + 128), range(192 + 32, 192 + 128))


def without_unused(metadata):
    found = bytearray(metadata)
    for part in (range(4), *UNUSED):  # the checksum is over all of it
        found[part.start:part.stop] = bytes(len(part))
    return bytes(found)


def as_made(t):
    """New metadata of both targets is the same, byte by byte."""
    made = {}
    for which in ("stock", "ours"):
        target.use(which)
        pool = a_pool(t)
        pool.remove()
        made[which] = pool.metadata.file.read_bytes()
        t.equal((field(pool.metadata, "version"), field(pool.metadata, "magic"), field(pool.metadata, "data_block_sectors"),
                 field(pool.metadata, "metadata_block_sectors"), field(pool.metadata, "metadata_blocks"),
                 field(pool.metadata, "data_blocks")), (2, 27022010, 128, 8, 512, 512), f"{which}: fields")
        thin.check(pool.metadata)
        pool.metadata.close()
        pool.data.close()
    first, second = (without_unused(made[which]) for which in ("ours", "stock"))
    t.equal([at for at in range(len(first)) if first[at] != second[at]] if first != second else [], [],
            "bytes of new metadata that differ")
    t.equal({made["ours"][at] for part in UNUSED for at in part}, {0}, "what ours leaves unused")


# ---- the tools -----------------------------------------------------------------------------------

def devices_in(dump):
    """A dump without the superblock's line."""
    return re.sub(r"<superblock[^>]*>", "", dump)


def metadata_snapshot(t, which):
    """thin_dump and thin_delta read a metadata snapshot of a live pool while that changes."""
    target.use(which)
    pool = a_pool(t)
    vol = pool.make(0, 16 * MIB)
    thin.fill(vol, 3, 20, 1)
    vol.suspend()
    pool.message("create_snap 1 0")
    vol.resume()
    thin.fill(vol, 5, 2, 2)
    wanted = devices_in(thin.dump(pool))
    pool.message("reserve_metadata_snap")
    held = pool.state().held_root
    t.check(held, "the status names its root")
    t.equal(field(pool.metadata, "held_root"), held, "and the superblock")

    def read(*options):
        return tm.sh([*options, pool.metadata.path]).out

    dump = ("thin_dump", "-m")
    t.equal(devices_in(read(*dump)), wanted, "thin_dump -m")
    stop = []

    def work():
        number = 10
        while not stop:
            thin.fill(vol, number % 200, 1, 3)
            pool.message(f"create_thin {number}")
            thin.discard(vol, (number - 3) % 200 * 128, 128)
            pool.message(f"delete {number}")
            number += 1

    busy = thin.Background(work)
    for _ in range(4):
        t.equal(devices_in(read(*dump)), wanted, "thin_dump -m while the pool changes")
        t.check(busy.waits(), "the pool changes meanwhile")
    stop.append(True)
    t.equal(busy.ended(), 0, "the work meanwhile")
    delta = read("thin_delta", "-m", "--thin1", "1", "--thin2", "0")
    t.equal((delta.count("<different"), delta.count("<same"), delta.count("_only")), (1, 2, 0), "thin_delta -m")
    thin.check(pool)
    pool.message("release_metadata_snap")
    t.equal((pool.state().held_root, field(pool.metadata, "held_root")), (None, 0), "after it is released")
    t.check(tm.sh([*dump, pool.metadata.path], check=False).status != 0, "no thin_dump -m any more")
    # One that is held when the pool goes is there when it comes again.
    pool.message("reserve_metadata_snap")
    held, wanted = pool.state().held_root, devices_in(read(*dump))
    vol.remove()
    pool.remove()
    pool = thin.Pool(t, pool.metadata, pool.data)
    t.equal((pool.state().held_root, devices_in(read(*dump))), (held, wanted), "after an activation")
    pool.message("release_metadata_snap")
    end(pool)


def restored(t):
    """What thin_restore and thin_repair write is taken, and holds the same."""
    target.use("ours")
    pool = a_pool(t, features="no_discard_passdown")
    vol = pool.make(0, 16 * MIB)
    for number in range(6):
        thin.fill(vol, number * 7, 5, number + 1)
    vol.suspend()
    pool.message("create_snap 9 0")
    vol.resume()
    thin.fill(vol, 2, 20, 100)
    discarded = 30
    thin.discard(vol, discarded * 128, 128)
    pool.message("set_transaction_id 0 77")
    content = {number: None for number in (0, 9)}
    vol.remove()

    def look(pool):
        found = {}
        for number in content:
            device = pool.thin(number, 16 * MIB)
            found[number] = thin.read(device, 0, 64 * 128)
            device.remove()
        return found

    content = look(pool)
    used = pool.state(flush=True).data_used
    pool.remove()
    dumped = thin.dump(pool.metadata)
    text = t.scratch / "dump.xml"
    text.write_text(dumped)
    for tool in (["thin_restore", "-i", text], ["thin_repair", "-i", pool.metadata.path]):
        fresh = thin.Disk(t, "fresh", 4 * MIB)
        tm.sh([*tool, "-o", fresh.path])
        thin.check(fresh)
        again = thin.Pool(t, fresh, pool.data, features="no_discard_passdown")
        state = again.state()
        t.equal((state.mode, state.transaction_id, state.data_used), ("rw", 77, used), f"status after {tool[0]}")
        t.check(look(again) == content, f"all data is there after {tool[0]}")
        t.equal(devices_in(thin.dump(again)), devices_in(dumped), f"thin_dump after {tool[0]}")
        vol = again.thin(0, 16 * MIB)
        t.equal(thin.read(vol, discarded * 128, 128), bytes(BLOCK_BYTES), "a hole")
        # Counts of blocks are right, too: what is shared is copied, what is free can be had.
        again.message("create_snap 10 9")
        thin.fill(vol, 40, 4, 50)
        t.equal(again.state(flush=True).data_used, used + 4, "blocks in use")
        again.message("delete 10")
        thin.check(again)
        vol.remove()
        again.remove()
        fresh.close()
    pool.metadata.close()
    pool.data.close()


# ---- when it is written --------------------------------------------------------------------------

def writes_of(disk):
    return int(Path(f"/sys/block/{Path(disk.loop).name}/stat").read_text().split()[4])


def commits(t):
    """Each flush and FUA write is a commit, else each second with a change; without one there is none."""
    target.use("ours")
    pool = a_pool(t)
    vol = pool.make(0, 16 * MIB)
    used = lambda: field(pool.metadata, "data_used")  # noqa: E731
    t.equal(used(), 0, "blocks in use at first")
    with thin.File(vol.path) as file:
        for number in range(5):
            file.write(number * 2 * 128, b"x" * 512)
            file.flush()
            t.equal(used(), 2 * number + 1, "blocks in use on the device after a flush")
            aio.write_fua(vol.path, (number * 2 + 1) * 128, b"x" * 4096)
            t.equal(used(), 2 * number + 2, "blocks in use on the device after a FUA write")
        file.write(20 * 128, b"x" * 512)
        tm.wait_for(lambda: used() == 11, 20, "a commit without being asked")
        pool.status(flush=True)  # it is over
        before = writes_of(pool.metadata)
        file.write(20 * 128 + 8, b"y" * 512)
        file.flush()
        t.equal(writes_of(pool.metadata), before, "writes of metadata for a write in place")
    # Time passes by the commits of another pool.
    clock = thin.Pool(t, thin.Disk(t, "meta2", 2 * MIB), thin.Disk(t, "data2", 8 * MIB), "clock")
    ticking = clock.make(0, 8 * MIB)
    for number in range(4):
        thin.fill(ticking, number, 1, 1)
        tm.wait_for(lambda number=number: field(clock.metadata, "data_used") == number + 1, 20, "a commit of the other pool")
    t.equal(writes_of(pool.metadata), before, "writes of metadata at rest")
    end(clock, ticking)
    end(pool, vol)


# ---- what a new block holds ----------------------------------------------------------------------

def zeroing(t, which):
    """Zeroes, unless a write covers it or the table says to skip that."""
    target.use(which)
    for features in ("", "skip_block_zeroing"):
        pool = a_pool(t, features=features)
        pool.data.file.write_bytes(b"\xaa" * (32 * MIB))
        vol = pool.make(0, 16 * MIB)
        rest = b"\xaa" if features else b"\0"
        thin.write(vol, 4, b"x" * 1024)
        t.equal(thin.read(vol, 0, 128), rest * 2048 + b"x" * 1024 + rest * (BLOCK_BYTES - 3072),
                f"{which}: a block that was written in part, {features or 'zeroed'}")
        thin.write(vol, 128, b"y" * BLOCK_BYTES)
        t.equal(thin.read(vol, 128, 128), b"y" * BLOCK_BYTES, f"{which}: a block that was written whole")
        t.equal(thin.read(vol, 256, 128), bytes(BLOCK_BYTES), f"{which}: a hole, {features or 'zeroed'}")
        # A copy covers it all.
        vol.suspend()
        pool.message("create_snap 1 0")
        vol.resume()
        thin.write(vol, 128, b"z" * 512)
        t.equal(thin.read(vol, 128, 128), b"z" * 512 + b"y" * (BLOCK_BYTES - 512), f"{which}: a copy")
        end(pool, vol)


def keeps_its_place(t, which):
    """What is allocated below stays so: zeroes are written to a new block, not asked of the disk, which may punch a hole."""
    target.use(which)
    for sectors in (128, 384, 16 * 2048):
        block = sectors * SECTOR
        meta, data = thin.Disk(t, "meta", 2 * MIB), thin.Disk(t, "data", 4 * block)
        data.file.write_bytes(b"\xaa" * (4 * block))
        allocated = data.file.stat().st_blocks
        t.equal(allocated, 4 * sectors, "sectors allocated at first")
        origin = thin.Disk(t, "origin", block + 5 * SECTOR)
        origin.file.write_bytes(b"o" * (block + 5 * SECTOR))
        pool = thin.Pool(t, meta, data, block=sectors, features="no_discard_passdown")
        pool.message("create_thin 0")
        vol = pool.thin(0, 8 * block, origin=origin.path)
        wanted = {0: b"o" * block, 1: b"o" * (5 * SECTOR) + bytes(block - 5 * SECTOR), 2: bytes(block)}
        for number, content in wanted.items():
            thin.write(vol, number * sectors + 64, b"w" * 1024)
            content = content[:64 * SECTOR] + b"w" * 1024 + content[64 * SECTOR + 1024:]
            t.check(thin.read(vol, number * sectors, sectors) == content, f"{which}: block {number} of {sectors} sectors")
        thin.flush(vol)
        t.equal(data.file.stat().st_blocks, allocated, f"{which}: sectors allocated in the end, blocks of {sectors}")
        end(pool, vol)
        origin.close()


def cost_of_flushes(t):
    """What a write and a flush after it send to the disks, counted: no more than with the distribution's target."""
    def requests(disk):
        stat = Path(f"/sys/block/{Path(disk.loop).name}/stat").read_text().split()
        return int(stat[4]) + int(stat[15])  # writes, and flushes, which may be among those, too

    def sent(which):
        target.use(which)
        pool = a_pool(t)
        for disk in (pool.data, pool.metadata):  # requests that happen to lie side by side are not to count as one
            setting = Path(f"/sys/block/{Path(disk.loop).name}/queue/nomerges")
            t.defer(setting.write_text, setting.read_text())
            setting.write_text("2\n")
        vol = pool.make(0, 32 * MIB)
        thin.fill(vol, 0, 8, 1)
        vol.suspend()
        pool.message("create_snap 1 0")
        vol.resume()
        block = iter(range(8, 512))
        shared = iter(range(8))
        writes = {
            "a new block": lambda: thin.fill(vol, next(block), 1, 2),
            "a part of a new block": lambda: thin.write(vol, next(block) * 128, b"x" * 512),
            "in place": lambda: thin.write(vol, 8 * 128, b"y" * 512),
            "a part of a shared block": lambda: thin.write(vol, next(shared) * 128, b"z" * 512),
            "nothing": lambda: None}
        usual = {}
        for text, write in writes.items():
            counts = []
            for _ in range(7):  # now and then the commit of each second comes in between, or a count is late
                thin.flush(vol)
                before = [requests(disk) for disk in (pool.data, pool.metadata)]
                write()
                thin.flush(vol)
                after = [requests(disk) for disk in (pool.data, pool.metadata)]
                counts.append([b - a for a, b in zip(before, after)])
            usual[text] = [statistics.median_low(column) for column in zip(*counts)]
        end(pool, vol)
        return usual

    stock, ours = sent("stock"), sent("ours")
    for text, counts in ours.items():
        t.log(f"{text}, then a flush: {counts[0]} to data and {counts[1]} to metadata; "
              f"the distribution's {stock[text][0]} and {stock[text][1]}")
    for text, counts in ours.items():
        t.check(counts[0] <= stock[text][0] and counts[1] <= stock[text][1],
                f"{text}, then a flush: {counts} requests, the distribution's {stock[text]}")
    t.check(0 < ours["nothing"][0] == ours["in place"][0] - 1, "flushes and writes are counted")


def block_sizes(t):
    """Of every kind, the largest, too: written, shared, copied, discarded, by turns with the other target."""
    for sectors, data in ((384, 33 * MIB), (1152, 33 * MIB), (2048, 32 * MIB), (2097152, 3 << 30)):
        large = sectors > 4096
        meta, disk = thin.Disk(t, "meta", 2 * MIB), thin.Disk(t, "data", data)
        target.use("ours")
        more = {"block": sectors, "features": "skip_block_zeroing" if large else ""}
        pool = thin.Pool(t, meta, disk, "sizes", **more)
        blocks = data // 512 // sectors
        t.equal(pool.state().data_total, blocks, f"blocks of {sectors} sectors")
        size = blocks * sectors * 512
        vol = pool.make(0, size)
        wanted = {}

        def written(device, sector, value, wanted=wanted):
            thin.write(device, sector, bytes([value]) * 1024)
            wanted[sector] = value

        def holds(device, wanted):
            for sector, value in wanted.items():
                t.equal(set(thin.read(device, sector, 2)), {value}, f"blocks of {sectors} sectors: sector {sector}")

        for number in range(min(3, blocks)):
            written(vol, number * sectors + sectors // 2, number + 1)
        written(vol, sectors - 1, 9)  # over the edge
        vol.suspend()
        pool.message("create_snap 1 0")
        vol.resume()
        kept = dict(wanted)
        if not large:  # a copy would take as much memory
            written(vol, 10, 20)
        snap = pool.thin(1, size)
        holds(vol, wanted)
        holds(snap, kept)
        if not large:
            t.equal(thin.read(vol, 20, 20), bytes(20 * 512), "the rest of a block")
        thin.discard(vol, sectors, 2 * sectors - 1)
        kept_by_vol = {sector: value for sector, value in wanted.items() if not sectors <= sector < 2 * sectors}
        kept_by_vol.pop(sectors - 1)  # a half of it is left
        t.equal(thin.read(vol, sectors, 2), bytes(1024), "a block given back")
        for which in ("stock", "ours"):
            for device in (snap, vol, pool):
                device.remove()
            thin.check(meta)
            target.use(which)
            pool = thin.Pool(t, meta, disk, "sizes", **more)
            vol, snap = pool.thin(0, size), pool.thin(1, size)
            holds(vol, kept_by_vol)
            holds(snap, kept)
        end(pool, vol, snap)


LIMITS = ("logical_block_size", "physical_block_size", "minimum_io_size", "optimal_io_size", "discard_granularity",
          "max_sectors_kb", "dma_alignment", "write_zeroes_max_bytes", "max_hw_sectors_kb")


def stacking(t):
    """A data device with sectors of 4 KiB shows through, as its other limits do."""
    found = {}
    for which in ("stock", "ours"):
        target.use(which)
        pool = thin.Pool(t, thin.Disk(t, "meta", 2 * MIB), thin.Disk(t, "data", 32 * MIB, sector=4096), "stacking")
        vol = pool.make(0, 16 * MIB)
        t.equal((vol.limit("logical_block_size"), pool.limit("logical_block_size")), (4096, 4096), "sector size")
        t.equal(thin.error_of(thin.write, vol, 1, b"x" * 512), errno.EINVAL, "a write of half a KiB")
        thin.write(vol, 8, b"x" * 4096)
        found[which] = {(name, limit): device.limit(limit) for name, device in (("pool", pool), ("volume", vol))
                        for limit in LIMITS if Path(f"/sys/block/dm-{device.minor}/queue/{limit}").exists()}
        # On top of a volume another device, and another pool.
        top = thin.Device.of(t, "top", thin.Target(0, 8 * 2048, "linear", f"{vol.path} 0"))
        t.equal((top.limit("logical_block_size"), top.limit("discard_granularity")), (4096, BLOCK_BYTES), "a device on top")
        inner = thin.Device(t, "inner")
        small = thin.Disk(t, "small", 2 * MIB)
        inner.load(thin.Target(0, 8 * 2048, "thin-pool", f"{small.path} {top.path} 128 0"))
        inner.resume()
        inner.message("create_thin 0")
        inmost = thin.Device.of(t, "inmost", thin.Target(0, 8 * 2048, "thin", f"{inner.path} 0"))
        thin.fill(inmost, 3, 4, 5)
        t.equal(set(thin.read(inmost, 3 * 128, 4 * 128)), {5}, "a pool in a pool")
        used = pool.state(flush=True).data_used
        thin.discard(inmost, 3 * 128, 4 * 128)
        inner.status(flush=True)
        t.equal(pool.state(flush=True).data_used, used - 4, "a discard goes through both")
        inmost.remove()
        inner.remove()
        thin.check(small)
        small.close()
        top.remove()
        end(pool, vol)
    t.equal(found["ours"], found["stock"], "limits")


def miscounted(t):
    """A superblock that says there is space where there is none: I/O does not wait for ever."""
    meta, data = thin.Disk(t, "meta", 2 * MIB), thin.Disk(t, "data", 4 * MIB)
    pool = thin.Pool(t, meta, data)
    vol = pool.make(0, 8 * MIB)
    thin.fill(vol, 0, 64, 1)
    vol.remove()
    pool.remove()
    good = superblock(meta)
    wrong = bytearray(good)
    struct.pack_into("<Q", wrong, FIELDS["data_used"][0], 60)
    put(meta, wrong)
    pool = thin.Pool(t, meta, data)
    vol = pool.thin(0, 8 * MIB)
    waiting = thin.Background(thin.fill, vol, 64, 1, 1)
    t.equal(waiting.ended(), errno.ENOSPC, "a write that finds no block")
    t.equal(thin.read(vol, 0, 64 * 128), b"\1" * 64 * BLOCK_BYTES, "what was there")
    vol.remove()
    pool.remove()
    put(meta, good)
    end(pool)


def run(t):
    thin.quiet(t)
    t.defer(target.use, t.target)
    superblocks(t)
    as_made(t)
    t.log("superblocks of every kind are taken or refused as by the distribution's target")
    for which in ("stock", "ours"):
        metadata_snapshot(t, which)
        zeroing(t, which)
        keeps_its_place(t, which)
    t.log("metadata snapshots can be read while the pool changes; new blocks hold zeroes")
    restored(t)
    commits(t)
    cost_of_flushes(t)
    t.log("what the tools wrote is taken; commits come when they have to, and only then")
    target.use("ours")
    miscounted(t)
    t.log("space that is not there is not waited for")
