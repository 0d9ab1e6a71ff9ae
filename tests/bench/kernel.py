# SPDX-License-Identifier: GPL-2.0-or-later
"""What I/O costs with our kernel targets, with the distribution's, and with a linear mapping.

    kernel.py counted|timed RESULT.json [--rounds N] [--only TEXT]

Runs inside the test machine; both modules take turns in it, round by round. "counted" is for a machine
whose time counts instructions: its microseconds are 500 instructions each, so what is measured is
what the CPU has to do for an I/O. "timed" is for an ordinary one: fio, and the CPU time of
the whole machine. Everything lies in memory: a null_blk device as data, a RAM disk for metadata. See
docs/performance.md. Nothing here passes or fails by a time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, "/usr/local/lib/thinlab")
import target  # noqa: E402
import thin  # noqa: E402
import tm  # noqa: E402

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
BLOCK = 64 * KIB
TARGETS = ("stock", "ours")
BLOCKS = 2048          # gone through by each measurement, of all volumes together
SYNCS = 256            # a flush costs as much as many writes
COLD = 1_000_000       # mappings in the metadata that is read cold
DATA_GIB = 64          # of which nothing is kept in memory
META_MIB, KEPT_MIB = 128, 192
FIO_SECONDS, FIO_BLOCKS, SAMPLE = 5, 16384, 0.02
SHAPES = ((1, 1), (1, 8), (8, 8))   # volumes, and how many I/Os are under way at once
NULLB = Path("/sys/kernel/config/nullb")


def say(text: str) -> None:
    print(text, flush=True)


# ---- devices in memory ---------------------------------------------------------------------------

@dataclass
class Place:
    """What a pool can lie on."""

    path: str

    @property
    def sectors(self) -> int:
        return int(Path(f"/sys/class/block/{Path(self.path).name}/size").read_text())

    def empty(self) -> None:
        """Whoever looks for metadata here finds none."""
        with thin.File(self.path) as file:
            file.write(0, bytes(4096))


def null_device(t: tm.Case, name: str, mib: int, kept: bool) -> Place:
    """One that does nothing; kept: it keeps what is written, and can discard."""
    item = NULLB / name
    before = set(Path("/sys/block").iterdir())
    item.mkdir()
    t.defer(item.rmdir)
    for key, value in {"size": mib, "memory_backed": int(kept), "discard": int(kept), "queue_mode": 2,
                       "irqmode": 0, "hw_queue_depth": 1024, "blocksize": 512, "power": 1}.items():
        (item / key).write_text(f"{value}\n")
    made = set(Path("/sys/block").iterdir()) - before
    if len(made) != 1:
        raise tm.Failed(f"null_blk made {len(made)} devices, not one")
    return Place(f"/dev/{made.pop().name}")


@dataclass
class Bench:
    t: tm.Case
    data: Place     # nothing is kept
    kept: Place
    metadata: Place
    cold: Place


def prepare(t: tm.Case) -> Bench:
    thin.quiet(t)
    tm.sh(["systemctl", "stop", "thinmgrd"], check=False)
    tm.sh(["modprobe", "configfs"], check=False)
    tm.sh(["modprobe", "null_blk", "nr_devices=0"])
    t.defer(tm.sh, ["modprobe", "-r", "null_blk"])
    tm.sh(["modprobe", "brd", "rd_nr=2", f"rd_size={META_MIB * 1024}"])
    t.defer(tm.sh, ["modprobe", "-r", "brd"])
    for number in (0, 1):  # memory that is there already costs whoever writes first nothing
        tm.sh(["dd", "if=/dev/zero", f"of=/dev/ram{number}", "bs=1M", f"count={META_MIB}", "oflag=direct"])
    return Bench(t, null_device(t, "data", DATA_GIB * 1024, False), null_device(t, "kept", KEPT_MIB, True),
                 Place("/dev/ram0"), Place("/dev/ram1"))


@dataclass
class Volumes:
    """Thin devices of one pool, or linear ones."""

    pool: thin.Pool | None
    devices: list[thin.Device]

    @property
    def paths(self) -> list[str]:
        return [device.path for device in self.devices]

    def rest(self) -> None:
        """Whatever was changed is committed."""
        if self.pool:
            self.pool.state(flush=True)

    def share(self, first_id: int) -> None:
        """A snapshot of each."""
        assert self.pool
        for number, device in enumerate(self.devices):
            device.suspend()
            self.pool.message(f"create_snap {first_id + number} {number}")
            device.resume()

    def unshare(self, first_id: int) -> None:
        assert self.pool
        for number in range(len(self.devices)):
            self.pool.message(f"delete {first_id + number}")

    def discard(self) -> None:
        for device in self.devices:
            thin.discard(device, 0, device.size // 512)
        self.rest()


@contextlib.contextmanager
def pool_of(b: Bench, data: Place, volumes: int, size: int, features: str = "") -> Iterator[Volumes]:
    """A new pool with new volumes of this size each."""
    b.metadata.empty()
    pool = thin.Pool(b.t, b.metadata, data, features=features)
    devices = []
    try:
        for number in range(volumes):
            devices.append(pool.make(number, size))
        yield Volumes(pool, devices)
    finally:
        for device in devices:
            device.remove()
        pool.remove()


@contextlib.contextmanager
def linear_on(b: Bench, data: Place, volumes: int, size: int) -> Iterator[Volumes]:
    sectors = size // 512
    devices = []
    try:
        for number in range(volumes):
            devices.append(thin.Device.of(b.t, f"linear-{number}",
                                          thin.Target(0, sectors, "linear", f"{data.path} {number * sectors}")))
        yield Volumes(None, devices)
    finally:
        for device in devices:
            device.remove()


# ---- counted -------------------------------------------------------------------------------------

def direct(*args: object) -> float:
    """Microseconds that a run of tests/bench/direct.c took."""
    done = tm.sh([str(tm.TOOLS / "direct"), *map(str, args)], limit=36000)
    return int(done.out) / 1000


class Counted:
    """One round with one target: microseconds per I/O, by workload."""

    def __init__(self, b: Bench) -> None:
        self.b = b
        self.cost: dict[str, float] = {}

    def io(self, v: Volumes, what: str, op: str, size: int, depth: int = 1, order: str = "random",
           count: int = BLOCKS) -> None:
        """Each block once, and under which name that is kept; nameless: a preparation."""
        blocks = max(1, BLOCKS // len(v.devices))
        spent = direct(op, size, count, depth, BLOCK, blocks, order, *v.paths) / count
        v.rest()
        if what:
            self.cost[f"{what}; {shape(len(v.devices), depth)}"] = spent

    def thin(self, volumes: int, depth: int) -> None:
        size = BLOCKS * BLOCK // volumes
        with pool_of(self.b, self.b.data, volumes, size) as v:
            self.io(v, "read of a hole, 4 KiB", "read", 4 * KIB, depth)
            self.io(v, "first write, 64 KiB, in order", "write", BLOCK, depth, "sequential")
            self.io(v, "read, 64 KiB, in order", "read", BLOCK, depth, "sequential")
        with pool_of(self.b, self.b.data, volumes, size) as v:
            self.io(v, "first write, 64 KiB", "write", BLOCK, depth)
        with pool_of(self.b, self.b.data, volumes, size) as v:
            self.io(v, "first write, 4 KiB, zeroed", "write", 4 * KIB, depth)
            self.io(v, "read, 4 KiB", "read", 4 * KIB, depth)
            self.io(v, "write, 4 KiB", "write", 4 * KIB, depth)
            v.share(100)
            self.io(v, "read of a shared block, 4 KiB", "read", 4 * KIB, depth)
            self.io(v, "break of sharing, 4 KiB", "write", 4 * KIB, depth)
            v.unshare(100)
            v.share(100)
            self.io(v, "break of sharing, 64 KiB", "write", BLOCK, depth)
        with pool_of(self.b, self.b.data, volumes, size, "skip_block_zeroing") as v:
            self.io(v, "first write, 4 KiB, not zeroed", "write", 4 * KIB, depth)
        if depth == 1 or volumes > 1:
            with pool_of(self.b, self.b.data, volumes, size) as v:
                self.io(v, "first write and flush, 4 KiB", "sync", 4 * KIB, 1, count=SYNCS)
            self.discards(volumes)

    def discards(self, volumes: int) -> None:
        """Microseconds per block that was mapped."""
        size = BLOCKS * BLOCK // volumes
        for had, how, features in (("", "passed down", "skip_block_zeroing"),
                                   (" that had a snapshot", "passed down", "skip_block_zeroing"),
                                   ("", "not passed down", "skip_block_zeroing no_discard_passdown")):
            with pool_of(self.b, self.b.kept, volumes, size, features) as v:
                for order in ("sequential", "random"):
                    self.io(v, "", "write", 4 * KIB, 8, order)
                    if had:
                        v.share(100)
                        v.unshare(100)
                    spent = direct("discard", size, 1, *v.paths) / BLOCKS
                    v.rest()
                    if any(d.status().split()[0] != "0" for d in v.devices):
                        raise tm.Failed("a discard left something mapped")
                    name = f"discard of a device{had}, mapped {'in order' if order == 'sequential' else 'at random'}"
                    self.cost[f"{name}, {how}; {shape(volumes, 1)}"] = spent
        # Of a part, so that mappings have to be taken out of the tree.
        with pool_of(self.b, self.b.kept, volumes, size, "skip_block_zeroing no_discard_passdown") as v:
            for order in ("sequential", "random"):
                self.io(v, "", "write", 4 * KIB, 8, order)
                spent = direct("discard", size // 2, 1, *v.paths) / (BLOCKS // 2)
                v.rest()
                if any(int(d.status().split()[0]) * 512 != size // 2 for d in v.devices):
                    raise tm.Failed("a discard of half a device did not unmap that half")
                name = f"discard of half a device, mapped {'in order' if order == 'sequential' else 'at random'}"
                self.cost[f"{name}; {shape(volumes, 1)}"] = spent
                v.discard()

    def linear(self, volumes: int, depth: int) -> None:
        size = BLOCKS * BLOCK // volumes
        with linear_on(self.b, self.b.data, volumes, size) as v:
            for op in ("read", "write"):
                for length in (4 * KIB, BLOCK):
                    self.io(v, f"{op} {length // KIB}", op, length, depth)
            self.io(v, "sync", "sync", 4 * KIB, 1, count=SYNCS)
        with linear_on(self.b, self.b.kept, volumes, size) as v:
            self.io(v, "", "write", 4 * KIB, 8)
            self.cost[f"discard; {shape(volumes, 1)}"] = direct("discard", size, 1, *v.paths) / BLOCKS

    def cold(self) -> None:
        """Each look-up of one device finds its metadata not in memory."""
        pool = thin.Pool(self.b.t, self.b.cold, self.b.data)
        try:
            device = pool.thin(0, (1 << COLD.bit_length() - 1) * BLOCK)
            try:
                blocks = 1 << COLD.bit_length() - 1
                spent = direct("read", 4 * KIB, BLOCKS, 1, BLOCK, blocks, "random", device.path) / BLOCKS
                self.cost[f"read, 4 KiB, cold metadata; {shape(1, 1)}"] = spent
            finally:
                device.remove()
        finally:
            pool.remove()


def shape(volumes: int, depth: int) -> str:
    return f"{volumes} volume{'s' if volumes > 1 else ''}, {depth} at once"


def linear_name(name: str) -> str:
    """The workload of a linear device that a thin one's is held against."""
    what, form = name.split("; ")
    if what.startswith("discard"):
        return f"discard; {form}"
    if "flush" in what:
        return f"sync; {form}"
    op = "read" if what.startswith("read") else "write"
    return f"{op} {64 if '64 KiB' in what else 4}; {form}"


def fragmented(b: Bench) -> None:
    """Metadata of a device of which no two blocks lie next to each other."""
    path = b.t.scratch / "cold.xml"
    step = 611_953  # has no divisor in common with the number of blocks
    with path.open("w") as out:
        out.write(f'<superblock uuid="" time="0" transaction="0" version="2" data_block_size="{BLOCK // 512}" '
                  f'nr_data_blocks="{DATA_GIB * GIB // BLOCK}">\n'
                  f'<device dev_id="0" mapped_blocks="{COLD}" transaction="0" creation_time="0" snap_time="0">\n')
        for first in range(0, COLD, 10000):
            out.write("".join(f'<single_mapping origin_block="{n}" data_block="{n * step % COLD}" time="0"/>\n'
                              for n in range(first, min(first + 10000, COLD))))
        out.write("</device>\n</superblock>\n")
    tm.sh(["thin_restore", "-i", path, "-o", b.cold.path], limit=36000)
    path.unlink()


def counted(b: Bench, rounds: int, only: str) -> list[dict]:
    shapes = [s for s in SHAPES if not only or only in shape(*s)]
    with_cold = not only or "cold" in only
    if with_cold:
        say("bench: making metadata to be read cold")
        fragmented(b)
    base = Counted(b)
    for volumes, depth in shapes:
        base.linear(volumes, depth)
    found: dict[str, dict[str, list[float]]] = {name: {} for name in TARGETS}
    for number in range(rounds):
        for name in TARGETS:
            target.use(name)
            turn = Counted(b)
            for volumes, depth in shapes:
                turn.thin(volumes, depth)
            if with_cold:
                turn.cold()
            for workload, cost in turn.cost.items():
                found[name].setdefault(workload, []).append(cost)
            say(f"bench: round {number + 1} of {rounds} with {name}")
    target.unload()
    result = []
    for workload in found["stock"]:
        result.append(entry(workload, "instructions", "us per block" if workload.startswith("discard")
                            else "us per I/O", found["ours"][workload], found["stock"][workload],
                            base.cost.get(linear_name(workload))))
    return result


def entry(name: str, by: str, unit: str, ours: list[float], stock: list[float], linear: float | None) -> dict:
    mine, theirs = statistics.median(ours), statistics.median(stock)
    return {"name": name, "by": by, "unit": unit, "ours": round(mine, 3), "stock": round(theirs, 3),
            "linear": None if linear is None else round(linear, 3), "ratio": round(mine / theirs, 3),
            "ours_rounds": [round(x, 3) for x in ours], "stock_rounds": [round(x, 3) for x in stock]}


# ---- timed ---------------------------------------------------------------------------------------

def busy_ticks() -> int:
    """CPU time of the whole machine: all but idle and waiting."""
    fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return sum(fields) - fields[3] - fields[4]


def requests(v: Volumes) -> int:
    """How many reads and writes were completed."""
    done = 0
    for device in v.devices:
        fields = Path(f"/sys/block/dm-{device.minor}/stat").read_text().split()
        done += int(fields[0]) + int(fields[4])
    return done


class Timed:
    """One round with one target: by workload, microseconds for each I/O, and of CPU for each."""

    def __init__(self, b: Bench) -> None:
        self.b = b
        self.found: dict[str, tuple[float, float]] = {}

    def fio(self, v: Volumes, what: str, *options: str, seconds: int = FIO_SECONDS) -> None:
        """
        fio's own start is left out: the kernel's counters are read while it runs, and what lies
        between the first and the last time that they moved counts.
        """
        argv = ["fio", "--output-format=json", "--thread", "--ioengine=libaio", "--direct=1", "--iodepth=32",
                "--norandommap=0", "--randrepeat=1", "--time_based=0", f"--runtime={seconds}", "--group_reporting",
                *options]
        for number, path in enumerate(v.paths):
            argv += [f"--name=job{number}", f"--filename={path}"]
        seen: list[tuple[float, int, int]] = []
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as fio:
            while True:
                seen.append((time.monotonic(), requests(v), busy_ticks()))
                with contextlib.suppress(subprocess.TimeoutExpired):
                    fio.wait(SAMPLE)
                    break
            assert fio.stderr and fio.stdout
            problems = fio.stderr.read().decode(errors="replace")
            fio.stdout.read()
            if fio.returncode != 0:
                raise tm.Failed(f"fio: exit status {fio.returncode}: {problems}")
        v.rest()
        moved = [n for n in range(1, len(seen)) if seen[n][1] > seen[n - 1][1]]
        if len(moved) < 3:
            raise tm.Failed(f"{what}: fio was done too soon to be measured")
        first, last = seen[moved[0]], seen[moved[-2]]
        ios, ticks = last[1] - first[1], last[2] - first[2]
        self.found[f"{what}; {len(v.devices)} volume{'s' if len(v.devices) > 1 else ''}"] = \
            ((last[0] - first[0]) * 1e6 / ios, ticks * 1e4 / ios)

    def mapped(self, v: Volumes) -> None:
        for op in ("read", "write"):
            self.fio(v, f"{op}, 4 KiB", f"--rw=rand{op}", "--bs=4k", "--time_based=1")

    def thin(self, volumes: int) -> None:
        size = FIO_BLOCKS * BLOCK // volumes
        with pool_of(self.b, self.b.data, volumes, size) as v:
            self.fio(v, "first write, 64 KiB", "--rw=randwrite", "--bs=64k")
            self.mapped(v)
            v.share(100)
            self.fio(v, "break of sharing, 4 KiB", "--rw=write:60k", "--bs=4k")
        with pool_of(self.b, self.b.data, volumes, size) as v:
            self.fio(v, "first write, 4 KiB", "--rw=write:60k", "--bs=4k")

    def linear(self, volumes: int) -> None:
        size = FIO_BLOCKS * BLOCK // volumes
        with linear_on(self.b, self.b.data, volumes, size) as v:
            self.mapped(v)
            self.fio(v, "write, 64 KiB", "--rw=randwrite", "--bs=64k", "--time_based=1")


def timed(b: Bench, rounds: int) -> list[dict]:
    found: dict[str, dict[str, list[tuple[float, float]]]] = {name: {} for name in (*TARGETS, "linear")}
    for number in range(rounds):
        for name in (*TARGETS, "linear"):
            turn = Timed(b)
            if name != "linear":
                target.use(name)
            for volumes in (1, 8):
                if name == "linear":
                    turn.linear(volumes)
                else:
                    turn.thin(volumes)
            for workload, pair in turn.found.items():
                found[name].setdefault(workload, []).append(pair)
            say(f"bench: round {number + 1} of {rounds} with {name}")
    target.unload()
    result = []
    for workload in found["stock"]:
        what, form = workload.split("; ")
        like = f"{'read' if 'read' in what else 'write'}, {'64' if '64' in what else '4'} KiB; {form}"
        for by, unit, field in (("fio, CPU", "us of CPU per I/O", 1), ("fio, time", "us per I/O", 0)):
            rounds_of = {name: [pair[field] for pair in found[name].get(key, [])]
                         for name, key in (("ours", workload), ("stock", workload), ("linear", like))}
            base = rounds_of["linear"]
            result.append(entry(workload, by, unit, rounds_of["ours"], rounds_of["stock"],
                                statistics.median(base) if base else None))
    return sorted(result, key=lambda w: w["by"])


# ---- the table -----------------------------------------------------------------------------------

def table(workloads: list[dict]) -> str:
    lines = []
    for by in dict.fromkeys(w["by"] for w in workloads):
        part = [w for w in workloads if w["by"] == by]
        wide = max(len(w["name"]) for w in part)
        lines.append(f"{by + ':':<{wide}}      ours     stock    linear   ratio")
        for w in part:
            linear = f"{w['linear']:10.2f}" if w["linear"] is not None else f"{'':>10}"
            lines.append(f"{w['name']:<{wide}}{w['ours']:10.2f}{w['stock']:10.2f}{linear}{w['ratio']:8.2f}"
                         f"{'  *' if w['ratio'] > 1 else ''}")
    return "\n".join(lines)


def main() -> int:
    p = argparse.ArgumentParser()
    p.add_argument("part", choices=("counted", "timed"))
    p.add_argument("result", type=Path)
    p.add_argument("--rounds", type=int, default=0)
    p.add_argument("--only", default="", help="counted: shapes with this in their name, as in '8 at once', or cold")
    args = p.parse_args()
    t = tm.Case("bench")
    t.scratch.mkdir(parents=True, exist_ok=True)
    try:
        b = prepare(t)
        workloads = counted(b, args.rounds or 3, args.only) if args.part == "counted" else \
            timed(b, args.rounds or 5)
    finally:
        t.close()
    args.result.write_text(json.dumps({"workloads": workloads}, indent=1) + "\n")
    say(table(workloads))
    return 0


if __name__ == "__main__":
    sys.exit(main())
