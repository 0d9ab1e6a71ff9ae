# SPDX-License-Identifier: GPL-2.0-or-later
"""200 pools at once: no more threads, little memory, little CPU, and an answer as fast as with one.

What else the host does shows in every time. So the answer is held against the floor's (a program that
only loads and resumes), measured in turns with it, and told; that each answer comes, and what the daemon
takes of threads, memory and CPU at rest, is what can fail.
"""

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import time
from collections import Counter
from pathlib import Path

import pools
import tm
from contract import api

LIMIT = 600
POOLS = 200
ROUNDS = 4  # of one pool, which doubles each time
IDLE_SECONDS = 60  # two rounds of samples
TRIES = 3
CPU_LIMIT = 1.0  # percent of a core, at rest
RESIDENT_LIMIT = 48 * 1024  # KiB
MIB = pools.MIB
BLOCK = 65536


def threads(pid):
    return Counter(Path(task, "comm").read_text().strip() for task in Path(f"/proc/{pid}/task").iterdir())


def resident_kib(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def cpu_seconds(pid):
    part = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(part[11]) + int(part[12])) / os.sysconf("SC_CLK_TCK")


def all_done(replies):
    """Wait for operations that were begun side by side."""
    for reply in replies:
        operation = api("GET", f"{reply.headers['location']}?wait=300", limit=330, expect=200).body
        if operation["status"] != "done":
            raise tm.Failed(f"{operation}")


def body(t, name):
    return {"name": name, "data_size": 16 * MIB, "metadata_size": 512 * 1024,
            "backing": {"kind": "file", "directory": str(t.scratch / name), "sparse": True},
            "policy": {"data": {"step_min": MIB, "step_percent": 1}}}


def make(t, name):
    pools.change("POST", "/v1/pools", body(t, name))
    return pools.volume(name, "v", 1024)


def write_blocks(device, first, count):
    tm.sh(["dd", "if=/dev/zero", f"of={device}", "bs=64k", f"count={count}", f"seek={first}", "oflag=direct",
           "status=none"])


class Floor:
    """A thin pool that is nobody's, made larger by a program that does nothing else."""

    STEP = 64  # blocks
    MARK = 32

    def __init__(self, t):
        self.program = t.tool("floor")
        self.total, self.used = 2 * self.STEP, 0
        sectors = BLOCK // 512
        parts = {"data": MIB * 1024, "meta": MIB * 4}
        for part, size in parts.items():
            path = t.scratch / f"floor-{part}"
            path.touch()
            os.truncate(path, size)
            loop = tm.sh(["losetup", "--find", "--show", "--direct-io=on", str(path)]).out.strip()
            t.defer(tm.sh, ["losetup", "--detach", loop])
            self.make(t, f"floor-{part}", f"0 {size // 512} linear {loop} 0")
        self.make(t, "floor-pool", f"0 {self.total * sectors} thin-pool /dev/mapper/floor-meta "
                  f"/dev/mapper/floor-data {sectors} {self.MARK} 1 no_discard_passdown")
        tm.sh(["dmsetup", "message", "floor-pool", "0", "create_thin 1"])
        self.make(t, "floor-volume", f"0 {2048 * 1024} thin /dev/mapper/floor-pool 1")

    @staticmethod
    def make(t, name, table):
        tm.sh(["dmsetup", "create", name, "--table", table])
        t.defer(tm.sh, ["dmsetup", "remove", "--retry", name])

    def round(self):
        """Microseconds from the event to the larger table."""
        larger = self.total + self.STEP
        process = subprocess.Popen([self.program, "floor-pool", "data", str(larger * BLOCK // 512)],
                                   stdout=subprocess.PIPE, text=True)
        try:
            if process.stdout.readline() != "ready\n":
                raise tm.Failed("the floor program is not ready")
            count = self.total - self.used - self.MARK + 1
            write_blocks("/dev/mapper/floor-volume", self.used, count)
            out, _ = process.communicate(timeout=30)
        finally:
            process.kill()
            process.wait()
        self.used += count
        self.total = larger
        return json.loads(out)["seen_to_live_ms"] * 1000


def reactions(name, device, floor):
    """Write over the mark again and again; what the daemon says it took, and the floor after each."""
    took, floors, at = [], [], 0
    for _ in range(ROUNDS):
        before = pools.last_seq()
        while True:
            status = tm.thin_status(f"{name}:_pool")
            mark = int(tm.sh(["dmsetup", "table", f"{name}:_pool"]).out.split()[6])
            blocks = max(1, status.data_total - status.data_used - mark + 1)
            write_blocks(device, at, blocks)
            at += blocks
            if tm.thin_status(f"{name}:_pool").data_used + mark >= status.data_total:
                break  # else the mark was moved in between
        event = pools.wait_event("extended", before, 10, pool=name)
        took.append(event["data"]["reaction_usec"])
        floors.append(floor.round())
    return took, floors


class Answers:
    """Answers to low water, and how long the floor took in the same minute."""

    def __init__(self):
        self.own, self.floor = [], []

    def measure(self, name, device, floor):
        own, floors = reactions(name, device, floor)
        self.own += own
        self.floor += floors

    def to_floor(self):
        return statistics.median(self.own) / statistics.median(self.floor)

    def __str__(self):
        return f"{statistics.median(self.own) / 1000:.1f} ms ({statistics.median(self.floor) / 1000:.1f} ms the floor)"


@contextlib.contextmanager
def without_udev():
    """For 200 pools' devices udev and systemd take longer than all the rest, and are not what is looked at."""
    units = ["systemd-udevd-control.socket", "systemd-udevd-kernel.socket", "systemd-udevd.service"]
    tm.sh(["systemctl", "stop", *units])
    try:
        yield
    finally:
        tm.sh(["systemctl", "start", *units])


def remove(names):
    """Some side by side: with the last user of a loop device the kernel waits long for each."""
    shares = [share for share in (names[n::16] for n in range(16)) if share]
    running = [subprocess.Popen(["dmsetup", "remove", "--noudevsync", *share]) for share in shares]
    if any([process.wait(120) for process in running]):
        raise tm.Failed("dmsetup remove failed")


def sweep(t):
    """All pools away, behind the daemon's back: one by one takes as long as making them did."""
    began = time.monotonic()
    tm.sh(["systemctl", "stop", "thinmgrd"], limit=120)
    names = [d.name for d in tm.dm_devices(tm.PREFIX)]
    volumes = [n for n in names if ":_" not in n]
    heads = [n for n in names if n.endswith(":_pool")]
    if volumes:
        tm.sh(["dmsetup", "remove", "--retry", *volumes])  # udev takes their links away
    with without_udev():
        remove(heads)
        remove([n for n in names if n not in volumes and n not in heads])
    for path in tm.NAMES.glob("*"):
        path.unlink()
    shutil.rmtree("/var/lib/thinmgr")
    tm.sh(["systemctl", "start", "thinmgrd"], limit=120)
    tm.wait_ready()
    t.log(f"removed in {time.monotonic() - began:.1f} s")


def idle_share(t, pid):
    """CPU at rest in percent of a core; the best of some tries."""
    for _ in range(TRIES):
        before, began = cpu_seconds(pid), time.monotonic()
        time.sleep(IDLE_SECONDS)  # what is measured
        share = (cpu_seconds(pid) - before) / (time.monotonic() - began) * 100
        t.log(f"idle: {share:.2f} % of a core over {IDLE_SECONDS} s")
        if share < CPU_LIMIT:
            break
    return share


def all_active(t, what):
    states = Counter(p["state"] for p in tm.items(api("GET", "/v1/pools", expect=200).body))
    t.equal(states, {"active": POOLS}, what)


def run(t):
    tm.restart()
    pid = tm.main_pid()
    names = [f"p{n:03d}" for n in range(POOLS)]
    floor = Floor(t)
    t.defer(sweep, t)

    one = Answers()
    for name in names[:3]:
        one.measure(name, make(t, name), floor)
        few = threads(pid)
        pools.destroy(name)

    began = time.monotonic()
    with without_udev():
        all_done([api("POST", "/v1/pools", body(t, name), expect=202) for name in names])
    t.log(f"{POOLS} pools made in {time.monotonic() - began:.1f} s")
    all_active(t, "pools")
    t.equal(threads(pid), few, f"threads with {POOLS} pools, as with one")
    t.equal(few["thinmgrd"], 1, "threads that follow events")

    many = Answers()
    for name in (names[0], names[POOLS // 2], names[-1]):
        many.measure(name, pools.volume(name, "v", 1024), floor)
    t.log(f"low water to larger table, medians of {len(one.own)}: {one} with 1 pool, {many} with {POOLS}; "
          f"ratio {many.to_floor() / one.to_floor():.2f}")

    share = idle_share(t, pid)
    resident = resident_kib(pid)
    t.log(f"{resident / 1024:.1f} MiB resident; {sum(few.values())} threads")
    t.check(share < CPU_LIMIT, f"it rests: {share:.2f} % of a core")
    t.check(resident < RESIDENT_LIMIT, f"it is small: {resident} KiB resident")

    began = time.monotonic()
    tm.restart()
    t.log(f"restarted with {POOLS} pools in {time.monotonic() - began:.1f} s")
    pid = tm.main_pid()
    all_active(t, "pools after a restart")
    t.check(resident_kib(pid) < RESIDENT_LIMIT, f"it is small after a restart: {resident_kib(pid)} KiB")
    t.equal(threads(pid), few, "threads after a restart")
