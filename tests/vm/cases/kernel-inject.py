# SPDX-License-Identifier: GPL-2.0-or-later
"""Random work while what our target asks of the kernel fails now and then: memory (where the kernel
can inject that: the debug kernel), reads and writes of metadata, or of data.

Any request may fail then. What must hold: nothing hangs or is said to be done that is not, metadata
stays clean, and every unit holds what was last made durable, or something written to it later.

The seed is printed; INJECT_SEED=n in the machine's environment repeats it.
"""

import contextlib
import os
import random
from pathlib import Path

import target
import thin
import tm

SUITES = ["bookworm", "trixie"]
LIMIT = 480
DEFAULT = False
PACKAGE = False
MODULE = True
# What it makes fail is told by who asked for the memory, device-mapper's own code too.
ALLOW_LOG = [r"page allocation failure", r"vmalloc error: size"]

MIB = 1 << 20
UNIT = 8                    # sectors
UNITS = 512                 # of a volume
PER_BLOCK = thin.BLOCK // UNIT
BURSTS, STEPS = 8, 70
DEBUG = Path("/sys/kernel/debug")


# ---- what fails ----------------------------------------------------------------------------------

def setting(path, value):
    path.write_text(f"{value}\n")


class Memory:
    """Allocations fail, those of the calling thread while it asks for something and those of the kernel's workers."""

    NAMES = ("failslab", "fail_page_alloc")

    @classmethod
    def possible(cls):
        if not any(DEBUG.iterdir()):
            tm.sh(["mount", "-t", "debugfs", "none", DEBUG], check=False)
        return all((DEBUG / name).exists() for name in cls.NAMES)

    def __init__(self, metadata, data):
        self.mine = Path("/proc/thread-self/make-it-fail")
        self.active = False
        for name in self.NAMES:
            place = DEBUG / name
            setting(place / "probability", 0)
            setting(place / "interval", 1)
            setting(place / "times", -1)
            setting(place / "verbose", 0)
            setting(place / "task-filter", "Y")
            setting(place / "ignore-gfp-wait", "N")
        setting(DEBUG / "fail_page_alloc" / "min-order", 0)

    def on(self, some):
        for comm in Path("/proc").glob("[0-9]*/comm"):
            with contextlib.suppress(OSError):  # it may have ended
                if comm.read_text().startswith(("kworker/", "dm_bufio")):
                    setting(comm.parent / "make-it-fail", 1)
        for name in self.NAMES:
            setting(DEBUG / name / "probability", some.choice((2, 5, 20)))
        self.active = True

    def off(self):
        self.active = False
        for name in self.NAMES:
            setting(DEBUG / name / "probability", 0)

    @contextlib.contextmanager
    def near(self):
        """What is asked for within may fail for want of memory."""
        if not self.active:
            yield
            return
        with open(self.mine, "wb", buffering=0) as mine:
            mine.write(b"1")
            try:
                yield
            finally:
                mine.write(b"0")


class Requests:
    """Every so many requests to a disk fail, reads and writes alike."""

    @classmethod
    def possible(cls):
        return Memory.possible() and (DEBUG / "fail_make_request").exists()

    def __init__(self, metadata, data):
        self.flags = [Path("/sys/block") / Path(disk.loop).name / "make-it-fail" for disk in (metadata, data)]
        place = DEBUG / "fail_make_request"
        setting(place / "probability", 0)
        setting(place / "interval", 1)
        setting(place / "times", -1)
        setting(place / "verbose", 0)

    def on(self, some):
        setting(some.choice(self.flags), 1)
        setting(DEBUG / "fail_make_request" / "probability", some.choice((2, 10, 50)))

    near = staticmethod(contextlib.nullcontext)

    def off(self):
        setting(DEBUG / "fail_make_request" / "probability", 0)
        for flag in self.flags:
            setting(flag, 0)


class Disks:
    """A disk fails as a whole, for a while."""

    @classmethod
    def possible(cls):
        return True

    def __init__(self, metadata, data):
        self.disks = (metadata, metadata, data)
        self.failing = None

    def on(self, some):
        self.off()
        self.failing = some.choice(self.disks)
        self.failing.fail(some.choice(("error", "error_writes")))

    near = staticmethod(contextlib.nullcontext)

    def off(self):
        if self.failing:
            self.failing.heal()
            self.failing = None


# ---- the work ------------------------------------------------------------------------------------

class Volume:
    """What each unit may hold: what was durable last, then all that was written since."""

    def __init__(self, may=None):
        self.device = None
        self.may = [list(one) for one in may] if may else [[(0, True)] for _ in range(UNITS)]

    def wrote(self, units, stamp, done):
        for unit in units:
            self.may[unit].append((stamp, done))

    def flushed(self):
        """All before the last write that was said to be done is gone for good."""
        for unit, may in enumerate(self.may):
            last = max(index for index, (_stamp, done) in enumerate(may) if done)
            self.may[unit] = may[last:]


def content(stamp):
    return stamp.to_bytes(8, "little") * (UNIT * thin.SECTOR // 8)


class Work:
    def __init__(self, t, seed, kind):
        self.t = t
        self.random = random.Random(seed)
        self.metadata = thin.Disk(t, f"{kind.__name__}-meta", 2 * MIB).through()
        self.data = thin.Disk(t, f"{kind.__name__}-data", 48 * MIB).through()
        self.blocks = 256
        self.fault = kind(self.metadata, self.data)
        t.defer(self.fault.off)
        self.pool = None
        self.volumes = {}
        self.stamp = 0
        self.next_id = 3
        self.errors = self.recoveries = 0
        self.up()
        for number in range(3):
            self.pool.message(f"create_thin {number}")
            self.volumes[number] = Volume()
            self.open(number)

    def up(self):
        self.pool = thin.Pool(self.t, self.metadata, self.data, sectors=self.blocks * thin.BLOCK)

    def open(self, number):
        self.volumes[number].device = self.pool.thin(number, UNITS * UNIT * thin.SECTOR)

    def tried(self, function, *args, **named):
        """Whether it was said to be done."""
        try:
            with self.fault.near():
                function(*args, **named)
        except (OSError, MemoryError):
            self.errors += 1
            return False
        return True

    def some(self):
        return self.volumes[self.random.choice(sorted(self.volumes))]

    def write(self):
        volume = self.some()
        first = self.random.randrange(UNITS)
        count = min(self.random.choice((1, 1, 2, 5, PER_BLOCK, 3 * PER_BLOCK)), UNITS - first)
        self.stamp += 1
        done = self.tried(thin.write, volume.device, first * UNIT, content(self.stamp) * count)
        volume.wrote(range(first, first + count), self.stamp, done)

    def discard(self):
        volume = self.some()
        first = self.random.randrange(UNITS // PER_BLOCK) * PER_BLOCK
        count = min(self.random.choice((1, 1, 4)) * PER_BLOCK, UNITS - first)
        done = self.tried(thin.discard, volume.device, first * UNIT, count * UNIT)
        volume.wrote(range(first, first + count), 0, done)

    def flush(self):
        volume = self.some()
        if self.tried(thin.flush, volume.device):
            volume.flushed()

    def snapshot(self):
        origin = self.random.choice(sorted(self.volumes))
        device = self.volumes[origin].device
        if len(self.volumes) > 5:
            number = self.random.choice(sorted(set(self.volumes) - {0}))
            if self.tried(self.volumes[number].device.remove):
                self.volumes[number].device = None
                self.tried(self.pool.message, f"delete {number}")
                # Gone, or not: of no interest.
                del self.volumes[number]
            return
        if self.tried(device.suspend):
            number, self.next_id = self.next_id, self.next_id + 1
            made = self.tried(self.pool.message, f"create_snap {number} {origin}")
            device.resume()
            if made:
                copy = Volume(self.volumes[origin].may)
                try:
                    copy.device = self.pool.thin(number, UNITS * UNIT * thin.SECTOR)
                except OSError:
                    self.errors += 1
                    return
                self.volumes[number] = copy

    def read(self):
        volume = self.some()
        unit = self.random.randrange(UNITS)
        found = []
        if self.tried(lambda: found.append(thin.read(volume.device, unit * UNIT, UNIT))):
            self.judge(volume, unit, found[0])

    def reload(self):
        """The pool's table, again; as it is, or larger."""
        if self.blocks < 700 and self.random.random() < .5:
            self.tried(self.pool.message, f"grow_data {self.blocks + 16}")
            self.blocks += 16  # the next table must not be shorter, whether or not this one is longer
        if self.tried(self.pool.load, self.pool.line(self.blocks * thin.BLOCK)):
            self.tried(self.pool.suspend, flush=self.random.random() < .5)
        # A resume that fails leaves it suspended, with the table that was live.
        while not self.tried(self.pool.resume):
            self.fault.off()

    def judge(self, volume, unit, found):
        stamp = int.from_bytes(found[:8], "little")
        if found != content(stamp) or stamp not in (may for may, _done in volume.may[unit]):
            raise tm.Failed(f"unit {unit} of {volume.device.name} holds {found[:16].hex()}, which is none of "
                            f"{volume.may[unit]}")

    def burst(self):
        steps = (self.write,) * 8 + (self.read,) * 2 + (self.discard, self.flush, self.flush, self.snapshot, self.reload)
        for number in range(STEPS):
            if number % 12 == 3:
                self.fault.on(self.random)
            if number % 12 == 10:
                self.fault.off()
            self.random.choice(steps)()
        self.fault.off()

    def settle(self, down):
        """Nothing fails any more. What the pool was driven into is mended as an administrator would."""
        mode = self.pool.mode()
        if mode != "rw" or down:
            self.recoveries += mode != "rw"
            for volume in self.volumes.values():
                volume.device.remove()
            self.pool.remove()
            flagged = thin.flags(self.metadata) & 1
            if mode == "rw" and flagged:
                raise tm.Failed("a pool in write mode left needs_check behind")
            if flagged:
                thin.clear_needs_check(self.metadata)
            thin.check(self.metadata)
            self.up()
            for number in sorted(self.volumes):
                try:
                    self.open(number)
                except OSError:
                    # Made in the transaction that was taken back, or a volume is lost.
                    if mode == "rw" or number < 3:
                        raise
                    del self.volumes[number]
        for volume in list(self.volumes.values()):
            if not self.tried(thin.flush, volume.device):
                # It lost changes when a transaction was taken back, and says so until it is opened anew.
                volume.device.resume()
                number = next(n for n, v in self.volumes.items() if v is volume)
                volume.device.remove()
                self.open(number)
                thin.flush(volume.device)
            found = thin.read(volume.device, 0, UNITS * UNIT)
            for unit in range(UNITS):
                one = found[unit * UNIT * thin.SECTOR:][:UNIT * thin.SECTOR]
                self.judge(volume, unit, one)
                volume.may[unit] = [(int.from_bytes(one[:8], "little"), True)]

    def end(self):
        for volume in self.volumes.values():
            volume.device.remove()
        self.pool.remove()
        thin.check(self.metadata)
        self.metadata.close()
        self.data.close()


def run(t):
    thin.quiet(t)
    t.defer(target.use, t.target)
    target.use("ours")
    seed = int(os.environ.get("INJECT_SEED") or random.randrange(1 << 30))
    t.log(f"seed {seed}")
    for kind in (Memory, Requests, Disks):
        if not kind.possible():
            t.log(f"{kind.__name__.lower()}: this kernel injects no faults")
            continue
        with thin.no_space_timeout(1):
            work = Work(t, seed, kind)
            for number in range(BURSTS):
                work.burst()
                work.settle(down=number % 3 == 2)
            work.end()
        t.log(f"{kind.__name__.lower()}: {work.errors} requests failed, {work.recoveries} times the pool had to be mended")
        t.check(work.errors, "something failed")
