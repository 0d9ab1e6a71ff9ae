# SPDX-License-Identifier: GPL-2.0-or-later
"""What lies on the devices: the superblock field by field, metadata that the tools wrote and that they
read from a live pool, and what a new block holds.

What can be tried with both targets is, and has to be the same but for DIFFERENCES.
"""

import errno
import re
import struct

import target
import thin
import tm

SUITES = ["bookworm"]  # on Debian 13 by its name
LIMIT = 200
PACKAGE = False
MODULE = True

MIB = 1 << 20
BLOCK_BYTES = thin.BLOCK * thin.SECTOR
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
    t.equal([number for number in range(512)
             if made["ours"][number * 4096:][:4096] != made["stock"][number * 4096:][:4096]], [],
            "blocks of new metadata that differ")


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


def run(t):
    thin.quiet(t)
    t.defer(target.use, t.target)
    superblocks(t)
    as_made(t)
    t.log("superblocks of every kind are taken or refused as by the distribution's target")
    for which in ("stock", "ours"):
        metadata_snapshot(t, which)
        zeroing(t, which)
    t.log("metadata snapshots can be read while the pool changes; new blocks hold zeroes")
    restored(t)
    t.log("what the tools wrote is taken")
