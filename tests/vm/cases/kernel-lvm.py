# SPDX-License-Identifier: GPL-2.0-or-later
"""LVM2's own thin commands on top of our thin-pool and thin targets: what people do with pools that
LVM2 keeps has to go on as before. Data is written to and read back over each step, and after each
part thin_check is content with the metadata.

LVM2 works with settings of its own here, on disks in memory, and without udev; dmeventd runs only
where it is tried.
"""

import contextlib
import functools
import os
import random
import signal
import struct
import subprocess
import time
from pathlib import Path

import target
import thin
import tm

SUITES = ["bookworm", "trixie"]
DEFAULT = False  # three minutes
LIMIT = 800
PACKAGE = False
MODULE = True

MIB = 1 << 20
NAME = "thinlab"

SETTINGS = """
devices {
    use_devicesfile = 0
    filter = [ "a|^/dev/loop|", "r|.*|" ]
    external_device_info_source = "none"
    obtain_device_list_from_udev = 0
    multipath_component_detection = 0
    md_component_detection = 0
    scan_lvs = 0
    hints = "none"
}
global {
    use_lvmpolld = 0
    thin_check_options = [ "-q" ]
}
activation {
    udev_sync = 0
    udev_rules = 0
    monitoring = 0
    reserved_memory = 0
    reserved_stack = 0
    thin_pool_autoextend_threshold = 100
}
backup {
    backup = 0
    archive = 0
}
"""


class Vg:
    """A volume group on two disks in memory."""

    def __init__(self, t):
        self.t = t
        self.commands = 0
        self.env = {"LVM_SYSTEM_DIR": str(t.scratch / "lvm"), "LVM_SUPPRESS_FD_WARNINGS": "1"}
        (t.scratch / "lvm").mkdir()
        (t.scratch / "lvm" / "lvm.conf").write_text(SETTINGS)
        self.disks = [thin.Disk(t, f"pv{number}", 512 * MIB) for number in range(2)]
        t.defer(self.sh, "vgremove", "-ff", "-y", NAME)
        self.sh("vgcreate", "-q", "-s", "1m", NAME, *(disk.path for disk in self.disks))

    def sh(self, *argv, check=True):
        self.commands += 1
        return tm.sh(argv, check, env=self.env)

    def refused(self, *argv):
        """What a command says that LVM2 does not carry out."""
        done = self.sh(*argv, check=False)
        self.t.check(done.status != 0, f"{' '.join(argv)} is refused")
        return done.err

    def pool(self, name, *more, data="32m"):
        """A new pool."""
        self.sh("lvcreate", "-q", "-y", "-T", "-L", data, "--poolmetadatasize", "4m", "-c", "64k", *more,
                f"{NAME}/{name}")

    def thin(self, name, pool, size="64m"):
        self.sh("lvcreate", "-q", "-V", size, "-T", f"{NAME}/{pool}", "-n", name)

    def snapshot(self, name, origin, *more):
        """Active at once, which LVM2 leaves to who asks for it."""
        self.sh("lvcreate", "-q", "-s", "-kn", "-n", name, f"{NAME}/{origin}", *more)

    def change(self, name, *more):
        self.sh("lvchange", "-q", "-y", *more, f"{NAME}/{name}")

    def convert(self, *more):
        return self.sh("lvconvert", "-q", "-y", *more)

    def remove(self, *names):
        self.sh("lvremove", "-q", "-f", *(f"{NAME}/{name}" for name in names))

    def off(self):
        self.sh("vgchange", "-q", "-an", NAME)
        self.t.equal([d.name for d in tm.dm_devices()], [], "devices when all is inactive")

    def on(self):
        self.sh("vgchange", "-q", "-ay", NAME)

    def again(self):
        self.off()
        self.on()

    def fields(self, name, *fields):
        """What lvs says of a volume."""
        out = self.sh("lvs", "-a", "--noheadings", "--separator", "|", "-o", ",".join(fields), f"{NAME}/{name}").out
        found = [part.strip() for part in out.strip().split("|")]
        return found[0] if len(fields) == 1 else found

    def names(self):
        return sorted(self.sh("lvs", "--noheadings", "-o", "lv_name", NAME).out.split())

    def of(self, name):
        """A pool's device; without volumes it has the pool's own name."""
        there = {device.name for device in tm.dm_devices()}
        layer = f"{NAME}-{name}-tpool"
        return thin.Device.made_by_others(self.t, layer if layer in there else f"{NAME}-{name}")

    def state(self, name):
        return thin.Status.parse(self.of(name).status(flush=True))

    def check(self, *pools):
        """thin_check is content, LVM2 and the kernel agree, and the pool is as it should be."""
        for name in pools:
            device = self.of(name)
            state = self.state(name)
            self.t.equal((state.mode, state.needs_check), ("rw", False), f"pool {name}")
            transaction, health = self.fields(name, "transaction_id", "lv_health_status")
            self.t.equal((int(transaction), health), (state.transaction_id, ""), f"what lvs says of pool {name}")
            device.suspend()
            try:
                self.metadata_is_good(name)
            finally:
                device.resume()

    def metadata_is_good(self, name):
        copy = self.t.scratch / "metadata"
        tm.sh(["dd", f"if=/dev/mapper/{NAME}-{name}_tmeta", f"of={copy}", "bs=1M", "iflag=direct", "status=none"])
        done = tm.sh(["thin_check", copy], check=False)
        self.t.check(done.status == 0, f"thin_check is content with pool {name}: {done.out}{done.err}")
        copy.unlink()


def dev(name):
    return f"/dev/{NAME}/{name}"


def size_of(name):
    with open(dev(name), "rb") as file:
        return file.seek(0, os.SEEK_END) // MIB


@functools.cache
def pattern(seed):
    return random.Random(seed).randbytes(MIB)


def mib_of(seed, at):
    """What belongs to a place in a volume; seed 0: zeroes."""
    return at.to_bytes(8, "little") + pattern(seed)[8:] if seed else bytes(MIB)


def writes(name, *parts):
    """Each part: MiB it is at, MiB, seed."""
    with thin.File(dev(name)) as file:
        for at, mib, seed in parts:
            for number in range(at, at + mib):
                file.write(number * 2048, mib_of(seed, number))
        file.flush()


def holds(t, name, *parts):
    """Each part is what was written with that seed."""
    with thin.File(dev(name), write=False) as file:
        for at, mib, seed in parts:
            wrong = [number for number in range(at, at + mib) if file.read(number * 2048, 2048) != mib_of(seed, number)]
            t.equal(wrong, [], f"MiB of {name} that do not hold {seed or 'zeroes'}")


def features(vg, name):
    """Of the table: block size in sectors, and what follows the number of features."""
    words = vg.of(name).table().args.split()
    vg.t.equal(int(words[4]), len(words[5:]), "number of features")
    return int(words[2]), set(words[5:])


# ---- pools ---------------------------------------------------------------------------------------

def create(t, vg):
    """Pools of each kind, their tables, and what lvs says of them."""
    vg.pool("plain")
    vg.thin("a", "plain")
    t.equal(features(vg, "plain"), (128, set()), "features of a plain pool")
    # Both at once; a block size that is no power of two.
    vg.sh("lvcreate", "-q", "-y", "-T", "-L", "30m", "--poolmetadatasize", "2m", "-c", "192k", "-Zn", "--errorwhenfull", "y",
          "--discards", "nopassdown", "-V", "60m", "-n", "b", f"{NAME}/other")
    t.equal(features(vg, "other"), (384, {"skip_block_zeroing", "error_if_no_space", "no_discard_passdown"}),
            "features of the other pool")
    state = vg.state("other")
    t.equal((state.discards, state.no_space, state.data_total, state.metadata_total),
            ("no_discard_passdown", "error_if_no_space", 160, 512), "status of the other pool")
    vg.pool("third", "--discards", "ignore")
    t.equal(features(vg, "third"), (128, {"ignore_discard"}), "features of the third pool")
    for name, seed in (("a", 1), ("b", 2)):
        writes(name, (0, 8, seed), (50, 2, seed + 10))
    vg.again()
    for name, pool, seed, block in (("a", "plain", 1, 64), ("b", "other", 2, 192)):
        holds(t, name, (0, 8, seed), (20, 1, 0), (50, 2, seed + 10))
        state = vg.state(pool)
        t.equal(state.data_used, -(-8 * 1024 // block) + len(range(50 * 1024 // block, -(-52 * 1024 // block))),
                f"blocks in use in pool {pool}")
        said = vg.fields(pool, "data_percent", "metadata_percent")
        t.equal(said, [f"{100 * state.data_used / state.data_total:.2f}",
                           f"{100 * state.metadata_used / state.metadata_total:.2f}"], f"what lvs says of pool {pool}")
        mapped = int(thin.Device.made_by_others(t, f"{NAME}-{name}").status().split()[0])
        t.equal(vg.fields(name, "data_percent", "pool_lv"),
                [f"{100 * mapped * 512 / MIB / size_of(name):.2f}", pool], f"what lvs says of volume {name}")
    vg.check("plain", "other", "third")
    vg.remove("a", "plain", "other", "third")
    t.equal(vg.names(), [], "volumes after all were removed")


def of_volumes(t, vg):
    """A pool made of two volumes that were there, the metadata on a disk of its own."""
    vg.sh("lvcreate", "-q", "-y", "-Wn", "-L", "32m", "-n", "pool", NAME, vg.disks[0].path)
    vg.sh("lvcreate", "-q", "-y", "-Wn", "-L", "4m", "-n", "meta", NAME, vg.disks[1].path)
    vg.convert("--type", "thin-pool", "-c", "128k", "--poolmetadata", f"{NAME}/meta", f"{NAME}/pool")
    vg.thin("v", "pool")
    t.equal([vg.fields(f"pool_{part}", "devices").split("(")[0] for part in ("tdata", "tmeta")],
            [disk.path for disk in vg.disks], "where the pool lies")
    writes("v", (0, 4, 3))
    vg.again()
    holds(t, "v", (0, 4, 3))
    vg.check("pool")
    vg.remove("pool")


# ---- snapshots -----------------------------------------------------------------------------------

def snapshots(t, vg):
    """Snapshots of snapshots, also read-only ones; each keeps what it holds, whoever goes."""
    vg.pool("pool", data="64m")
    vg.thin("a", "pool", "32m")
    writes("a", (0, 8, 1))
    vg.snapshot("b", "a")
    writes("a", (0, 4, 2))
    writes("b", (4, 2, 3), (16, 1, 3))
    vg.snapshot("c", "b")
    writes("b", (5, 2, 4))
    vg.snapshot("d", "c", "-pr")
    writes("c", (7, 1, 5))
    wanted = {
        "a": ((0, 4, 2), (4, 4, 1), (8, 1, 0), (31, 1, 0)),
        "b": ((0, 4, 1), (4, 1, 3), (5, 2, 4), (7, 1, 1), (8, 1, 0), (16, 1, 3)),
        "c": ((0, 4, 1), (4, 2, 3), (6, 1, 1), (7, 1, 5), (16, 1, 3), (17, 1, 0)),
        "d": ((0, 4, 1), (4, 2, 3), (6, 2, 1), (16, 1, 3)),
    }

    def all_hold(names):
        for name in names:
            holds(t, name, *wanted[name])

    all_hold("abcd")
    t.check(thin.error_of(writes, "d", (0, 1, 9)) != 0, "a read-only snapshot takes no write")
    t.equal([vg.fields(name, "origin", "thin_id") for name in "abcd"],
            [["", "1"], ["a", "2"], ["b", "3"], ["c", "4"]], "origins and device numbers")
    vg.check("pool")
    vg.again()
    all_hold("abcd")
    # 8 MiB and what was written after each snapshot.
    t.equal(vg.state("pool").data_used, (8 + 4 + 2 + 1 + 2 + 1) * 16, "blocks in use")
    vg.remove("b")
    all_hold("acd")
    vg.change("d", "-prw")
    writes("d", (0, 1, 9))
    wanted["d"] = ((0, 1, 9), (1, 3, 1), *wanted["d"][1:])
    vg.remove("a")
    all_hold("cd")
    vg.check("pool")
    vg.remove("c", "d")
    t.equal(vg.state("pool").data_used, 0, "blocks in use when all volumes are gone")
    vg.check("pool")
    vg.remove("pool")


def merge(t, vg):
    """A volume goes back to its snapshot: at once, or when it is not in use any more."""
    vg.pool("pool")
    vg.thin("v", "pool")
    writes("v", (0, 4, 1))
    vg.snapshot("s", "v")
    writes("v", (1, 4, 2))
    vg.convert("--merge", f"{NAME}/s")
    t.equal(vg.names(), ["pool", "v"], "volumes after the merge")
    holds(t, "v", (0, 4, 1), (4, 1, 0), (63, 1, 0))
    vg.snapshot("s", "v")
    writes("v", (0, 2, 3))
    with thin.File(dev("v")) as file:
        vg.convert("--merge", f"{NAME}/s")
        file.write(3 * 2048, b"x" * MIB)
        t.equal(file.read(3 * 2048, 1), b"x" * 512, "a write while the merge waits")
        holds(t, "v", (0, 2, 3))
        t.equal(len([d for d in tm.dm_devices() if d.name == f"{NAME}-v"]), 1, "the volume is there")
    vg.change("v", "-an")
    vg.change("v", "-ay")
    holds(t, "v", (0, 4, 1), (4, 1, 0))
    vg.again()
    holds(t, "v", (0, 4, 1))
    t.equal((vg.names(), vg.state("pool").data_used), (["pool", "v"], 4 * 16), "what is left")
    vg.check("pool")
    vg.remove("pool")


def thick_snapshot(t, vg):
    """A snapshot with a size, which has its own space beside the pool: LVM2 moves the volume below another device
    while it is in use, and back."""
    vg.pool("pool")
    vg.thin("v", "pool")
    writes("v", (0, 4, 1))
    writing = thin.Background(writes, "v", (16, 8, 2))
    vg.sh("lvcreate", "-q", "-y", "-s", "-L", "16m", "-n", "s", f"{NAME}/v")
    t.equal(writing.ended(60), 0, "a write meanwhile")
    t.equal(thin.Device.made_by_others(t, f"{NAME}-v-real").table().kind, "thin", "what is below the volume")
    writes("v", (2, 4, 3))
    holds(t, "s", (0, 4, 1), (4, 2, 0))
    holds(t, "v", (0, 2, 1), (2, 4, 3), (16, 8, 2))
    writes("s", (0, 1, 4))
    holds(t, "v", (0, 2, 1))
    vg.again()
    holds(t, "s", (0, 1, 4), (1, 3, 1), (4, 2, 0))
    holds(t, "v", (0, 2, 1), (2, 4, 3), (16, 8, 2))
    writing = thin.Background(writes, "v", (24, 8, 5))
    vg.remove("s")
    t.equal(writing.ended(60), 0, "a write meanwhile")
    holds(t, "v", (0, 2, 1), (2, 4, 3), (16, 8, 2), (24, 8, 5))
    t.equal(thin.Device.made_by_others(t, f"{NAME}-v").table().kind, "thin", "the volume afterwards")
    t.equal(vg.state("pool").data_used, (6 + 16) * 16, "blocks in use")
    vg.check("pool")
    vg.remove("v", "pool")


def external(t, vg):
    """A volume outside of the pool becomes the origin of volumes in it, and is never written."""
    vg.pool("pool")
    vg.sh("lvcreate", "-q", "-y", "-Wn", "-L", "8m", "-n", "v", NAME)
    writes("v", (0, 8, 1))
    vg.convert("--type", "thin", "--thinpool", f"{NAME}/pool", "--originname", "outside", f"{NAME}/v")
    t.equal(vg.fields("v", "origin", "pool_lv"), ["outside", "pool"], "origin and pool")
    t.equal(len(thin.Device.made_by_others(t, f"{NAME}-v").table().args.split()), 3, "words of the table")
    holds(t, "v", (0, 8, 1))
    writes("v", (2, 2, 2))
    vg.sh("lvcreate", "-q", "-s", "--thinpool", f"{NAME}/pool", "-kn", "-n", "second", f"{NAME}/outside")
    writes("second", (6, 1, 3))
    vg.sh("lvextend", "-q", "-L", "16m", f"{NAME}/v")
    holds(t, "v", (8, 1, 0), (15, 1, 0))
    writes("v", (9, 1, 4))
    vg.snapshot("s", "v")
    writes("v", (0, 1, 5))
    vg.again()
    holds(t, "v", (0, 1, 5), (1, 1, 1), (2, 2, 2), (4, 4, 1), (8, 1, 0), (9, 1, 4), (10, 1, 0), (15, 1, 0))
    holds(t, "s", (0, 2, 1), (2, 2, 2), (4, 4, 1), (8, 1, 0), (9, 1, 4), (10, 1, 0), (15, 1, 0))
    holds(t, "second", (0, 6, 1), (6, 1, 3), (7, 1, 1))
    vg.check("pool")
    vg.remove("v", "s", "second")
    vg.change("outside", "-ay")
    holds(t, "outside", (0, 8, 1))
    vg.check("pool")
    vg.remove("outside", "pool")


# ---- sizes ---------------------------------------------------------------------------------------

def sizes(t, vg):
    """Pools and volumes grow in use, what waits for space goes on; volumes shrink."""
    vg.pool("pool", data="16m")
    vg.thin("v", "pool")
    waiting = thin.Background(writes, "v", (0, 24, 1))
    tm.wait_for(lambda: vg.of("pool").status().split()[4] == "out_of_data_space", 30, "out of data space")
    health, attributes, percent = vg.fields("pool", "lv_health_status", "lv_attr", "data_percent")
    t.equal((health, attributes[8], percent), ("out_of_data", "D", "100.00"), "what lvs says without space")
    t.check(waiting.waits(), "the write waits")
    vg.sh("lvextend", "-q", "-L", "+16m", f"{NAME}/pool")
    t.equal(waiting.ended(30), 0, "the write that waited")
    holds(t, "v", (0, 24, 1))
    vg.check("pool")
    vg.sh("lvextend", "-q", "--poolmetadatasize", "+4m", f"{NAME}/pool")
    t.equal((vg.state("pool").metadata_total, vg.state("pool").data_total), (2048, 512), "sizes of the pool")
    # Both in one command.
    vg.sh("lvextend", "-q", "--poolmetadatasize", "+2m", "-L", "+8m", f"{NAME}/pool")
    t.equal((vg.state("pool").metadata_total, vg.state("pool").data_total), (2560, 640), "sizes of the pool")
    vg.sh("lvextend", "-q", "-L", "128m", f"{NAME}/v")
    t.equal(size_of("v"), 128, "size of the volume")
    writes("v", (127, 1, 2))
    vg.sh("lvresize", "-q", "-f", "-y", "-L", "16m", f"{NAME}/v")
    t.equal(size_of("v"), 16, "size of the volume, shrunk")
    vg.again()
    holds(t, "v", (0, 16, 1))
    vg.sh("lvresize", "-q", "-L", "+4m", f"{NAME}/v")
    t.equal(size_of("v"), 20, "size of the volume, larger again")
    writes("v", (16, 4, 3))
    holds(t, "v", (0, 16, 1), (16, 4, 3))
    vg.check("pool")
    vg.remove("pool")
    # Without waiting: an error, and after it was extended none.
    vg.pool("pool", "--errorwhenfull", "y", data="4m")
    vg.thin("v", "pool")
    t.equal(thin.error_of(writes, "v", (0, 8, 1)) != 0, True, "a write without space fails")
    t.equal(vg.fields("pool", "lv_health_status", "lv_when_full"), ["out_of_data", "error"], "what lvs says")
    vg.sh("lvextend", "-q", "-L", "+8m", f"{NAME}/pool")
    writes("v", (0, 8, 1))
    vg.again()
    holds(t, "v", (0, 8, 1))
    vg.check("pool")
    vg.remove("pool")


def trim(t, vg):
    """A file system gives back what was deleted."""
    vg.pool("pool", data="64m")
    vg.thin("v", "pool")
    tm.sh(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard", dev("v")])
    with tm.mounted(dev("v"), t.scratch / "mnt") as point:
        kept = tm.write_pattern(point / "kept", 4, 1)
        tm.write_pattern(point / "gone", 24, 2)
        vg.snapshot("s", "v")
        full = vg.state("pool").data_used
        (point / "gone").unlink()
        os.sync()
        tm.sh(["fstrim", str(point)])
        # The snapshot has it all yet.
        t.check(vg.state("pool").data_used >= full, "blocks that a snapshot uses are kept")
        vg.remove("s")
        left = vg.state("pool").data_used
        t.check(left <= full - 22 * 16, f"{left} blocks are in use of {full}")
        vg.sh("lvextend", "-q", "-L", "96m", f"{NAME}/v")
        tm.sh(["resize2fs", dev("v")])
    tm.sh(["e2fsck", "-fn", dev("v")])
    vg.again()
    with tm.mounted(dev("v"), t.scratch / "mnt") as point:
        t.equal(tm.digest(point / "kept"), kept, "the file that was kept")
    vg.check("pool")
    vg.remove("pool")


# ---- settings ------------------------------------------------------------------------------------

def settings(t, vg):
    """What lvchange changes, of a pool that is active where LVM2 does that, shows in table and status."""
    vg.pool("pool")
    vg.thin("v", "pool")
    writes("v", (0, 4, 1))

    def now(*wanted):
        t.equal(features(vg, "pool")[1], set(wanted), "features")
        state = vg.state("pool")
        t.equal((state.discards, state.no_space),
                (next((word for word in wanted if "discard" in word), "discard_passdown"),
                 "error_if_no_space" if "error_if_no_space" in wanted else "queue_if_no_space"), "status")

    vg.change("pool", "--discards", "nopassdown")
    now("no_discard_passdown")
    vg.change("pool", "--errorwhenfull", "y")
    now("no_discard_passdown", "error_if_no_space")
    vg.change("pool", "-Zn")
    now("no_discard_passdown", "error_if_no_space", "skip_block_zeroing")
    vg.change("pool", "--discards", "passdown")
    vg.change("pool", "--errorwhenfull", "n")
    vg.change("pool", "-Zy")
    now()
    vg.refused("lvchange", "-q", "-y", "--discards", "ignore", f"{NAME}/pool")
    now()
    vg.off()
    vg.change("pool", "--discards", "ignore")
    vg.on()
    now("ignore_discard")
    holds(t, "v", (0, 4, 1))
    t.equal(vg.fields("pool", "discards", "kernel_discards", "zero"), ["ignore", "ignore", "zero"], "what lvs says")
    t.equal(thin.error_of(discard, "v", 0, MIB) != 0, True, "a discard where they are ignored")
    vg.off()
    vg.change("pool", "--discards", "passdown")
    vg.on()
    discard("v", 0, 2 * MIB)
    holds(t, "v", (0, 2, 0), (2, 2, 1))
    t.equal(vg.state("pool").data_used, 2 * 16, "blocks in use")
    # One volume of two, and names.
    vg.thin("w", "pool")
    vg.change("v", "-an")
    t.check(not Path(dev("v")).exists() and Path(dev("w")).exists(), "one of the two is active")
    vg.change("v", "-ay")
    vg.sh("lvrename", "-q", NAME, "v", "renamed")
    vg.sh("lvrename", "-q", NAME, "pool", "new")
    holds(t, "renamed", (0, 2, 0), (2, 2, 1))
    vg.check("new")
    vg.remove("new")


def discard(name, at, length):
    with thin.File(dev(name)) as file:
        file.discard(at // 512, length // 512)


# ---- what goes wrong -----------------------------------------------------------------------------

def repair(t, vg):
    """Metadata that is damaged: LVM2 refuses to activate the pool, repairs it, and all data is there."""
    vg.pool("pool")
    vg.thin("v", "pool")
    writes("v", (0, 8, 1))
    vg.snapshot("s", "v")
    writes("v", (2, 2, 2))
    vg.off()
    # The metadata out, and something else in its place.
    vg.sh("lvcreate", "-q", "-y", "-an", "-Zn", "-Wn", "-L", "4m", "-n", "swap", NAME)
    vg.convert("--thinpool", f"{NAME}/pool", "--poolmetadata", f"{NAME}/swap")
    vg.change("swap", "-ay")
    with open(dev("swap"), "r+b") as file:
        # The index of the counts of data blocks, which a repair makes anew.
        file.seek(64 + 16)
        block, = struct.unpack("<Q", file.read(8))
        file.seek(block * 4096 + 100)
        file.write(b"damaged")
        os.fsync(file.fileno())
    t.check(tm.sh(["thin_check", "-q", dev("swap")], check=False).status != 0, "thin_check sees the damage")
    vg.change("swap", "-an")
    vg.convert("--thinpool", f"{NAME}/pool", "--poolmetadata", f"{NAME}/swap")
    said = vg.refused("lvchange", "-q", "-ay", f"{NAME}/v")
    t.check("repair" in said, f"LVM2 asks for a repair: {said}")
    t.equal([d.name for d in tm.dm_devices()], [], "devices after the refusal")
    vg.convert("--repair", f"{NAME}/pool")
    vg.on()
    holds(t, "v", (0, 2, 1), (2, 2, 2), (4, 4, 1))
    holds(t, "s", (0, 8, 1))
    writes("v", (20, 2, 3))
    vg.check("pool")
    vg.again()
    holds(t, "v", (20, 2, 3))
    t.check("pool_meta0" in vg.names(), "the damaged metadata is kept")
    vg.remove("pool_meta0", "swap", "pool")


def needs_check(t, vg):
    """A metadata device that fails: lvs says so; the next activation checks, clears the flag, and all is well."""
    vg.pool("pool")
    vg.thin("v", "pool")
    writes("v", (0, 4, 1))
    meta = thin.Device.made_by_others(t, f"{NAME}-pool_tmeta")
    good = meta.table()
    meta.swap(thin.Target(0, good.sectors, "error", ""), flush=False)
    t.check(thin.error_of(writes, "v", (8, 1, 2)) != 0, "a write that cannot be committed")
    tm.wait_for(lambda: vg.of("pool").status().split()[4] == "ro", 30, "read-only")
    health, needed, attributes = vg.fields("pool", "lv_health_status", "lv_check_needed", "lv_attr")
    t.equal((health, needed, attributes[8]), ("metadata_read_only", "check needed", "M"), "what lvs says")
    meta.swap(good, flush=False)
    tm.wait_for(lambda: superblock_flags(meta) & 1, 30, "needs_check on the device")
    # LVM2 tries; that it cannot be done is told to it before it gives up anything.
    said = vg.refused("lvextend", "-q", "-L", "+8m", f"{NAME}/pool")
    t.check("not permitted" in said, f"the pool does not grow: {said}")
    t.equal((vg.fields("pool", "lv_size"), vg.of("pool").info().suspended), ("32.00m", False), "the pool after that")
    vg.off()
    vg.sh("vgchange", "-q", "-ay", "--config", 'global { thin_check_options = [ "-q", "--clear-needs-check-flag" ] }',
          NAME)
    holds(t, "v", (0, 4, 1), (8, 1, 0))
    writes("v", (8, 1, 2))
    vg.check("pool")
    vg.remove("pool")


def superblock_flags(meta):
    with thin.File(meta.path, write=False) as file:
        return struct.unpack("<I", file.read(0, 8)[4:8])[0]


# ---- the monitor ---------------------------------------------------------------------------------

@contextlib.contextmanager
def dmeventd(vg):
    """The monitor, with the settings for it."""
    conf = vg.t.scratch / "lvm" / "lvm.conf"
    conf.write_text(SETTINGS.replace("monitoring = 0", "monitoring = 1").replace(
        "autoextend_threshold = 100", "autoextend_threshold = 70\n    thin_pool_autoextend_percent = 50"))
    daemon = subprocess.Popen(["dmeventd", "-f"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, env={**os.environ, **vg.env})
    try:
        tm.wait_for(lambda: Path("/run/dmeventd-server").exists() and Path("/run/dmeventd.pid").exists(), 30, "dmeventd")
        yield
    finally:
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        conf.write_text(SETTINGS)


def autoextend(t, vg):
    """dmeventd hears of the mark that is crossed, and extends."""
    with dmeventd(vg):
        vg.pool("pool", data="16m")
        vg.thin("v", "pool")
        t.equal(vg.fields("pool", "seg_monitor"), "monitored", "the pool is monitored")
        t.check(int(vg.of("pool").table().args.split()[3]) > 0, "the table has a mark")
        writes("v", (0, 14, 1))
        tm.wait_for(lambda: vg.state("pool").data_total > 256, 60, "a larger pool", every=0.5)
        writes("v", (14, 4, 2))
        holds(t, "v", (0, 14, 1), (14, 4, 2))
        vg.check("pool")
        vg.remove("pool")


PARTS = (create, of_volumes, snapshots, merge, thick_snapshot, external, sizes, trim, settings, repair, needs_check, autoextend)


def run(t):
    thin.quiet(t)
    t.defer(target.use, t.target)
    target.use("ours")
    vg = Vg(t)
    for part in PARTS:
        began, commands = time.monotonic(), vg.commands
        part(t, vg)
        t.equal(vg.names(), [], f"volumes left by {part.__name__}")
        t.log(f"{part.__name__}: as it should be, {time.monotonic() - began:.1f} s, {vg.commands - commands} commands")
