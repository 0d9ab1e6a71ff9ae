# SPDX-License-Identifier: GPL-2.0-or-later
"""Crashes of a pool, at every flush: what dm-log-writes recorded below a random workload is replayed
state by state, and each state judged.

Metadata and data are slices of one disk, so that one log keeps the order of all writes. They share
a volatile write cache, or metadata is on a disk that has none: then a flush in the log can only be
one of the data device, and data that a commit did not wait for shows.

tests/tools/crash-replay.c makes the states: at each FLUSH or FUA write what is durable and nothing
else; before each flush, with a part of what was in the cache as well; and at each superblock. It
reads the metadata itself, and holds each 4 KiB against what had been acknowledged. Here thin_check
looks at the metadata, and both targets activate pool and volumes and have to show the same data.

The seed is printed; CRASH_SEED=n in the machine's environment repeats what the threads choose,
though not how they get in each other's way. kernel-crash-long has the long runs.
"""

import contextlib
import errno
import os
import random
import struct
import subprocess
import threading
from pathlib import Path

import aio
import target
import thin
import tm

SUITES = ["bookworm", "trixie"]
DEFAULT = False
LIMIT = 500
MODULE = True

KIB = 1 << 10
MIB = 1 << 20
SECTOR = thin.SECTOR
POOL_BLOCK = thin.BLOCK * SECTOR
BLOCK = 4 * KIB
PER_POOL_BLOCK = POOL_BLOCK // BLOCK

META_BYTES = 2 * MIB  # of which 1 MiB is used at first
DATA_BLOCKS = 256
DATA_BLOCKS_AT_FIRST = 180
LOG_BYTES = 384 * MIB
VOLUME_BYTES = 16 * POOL_BLOCK
VOLUME_BLOCKS = VOLUME_BYTES // BLOCK
FAMILIES = 3
MOST_IN_FAMILY = 3

STAMP = struct.Struct("<4I")
STAMP_CONSTANT = 0x7ca51e0d


# ---- recording -----------------------------------------------------------------------------------

class Slice:
    """A place for a pool's metadata or data: what thin.Pool wants to know of it."""

    def __init__(self, device):
        self.device = device
        self.name = device.name
        self.path = device.path

    @property
    def sectors(self):
        return self.device.size // SECTOR


class Volume:
    def __init__(self, number, device):
        self.number = number
        self.device = device
        self.file = thin.File(device.path)

    def close(self):
        self.file.close()
        self.device.remove()


class Family(threading.Thread):
    """A thread with a volume and snapshots of it, which nobody else touches."""

    def __init__(self, recording, number, seed):
        super().__init__(daemon=True)
        self.recording = recording
        self.number = number
        self.random = random.Random(seed)
        self.writes = aio.Writes()
        self.volumes = []
        self.error = None

    # Events, see crash-replay.c.

    def begins(self, text):
        return self.recording.event(self.number, text)

    def ended(self, text, by_message=False):
        self.recording.acknowledge(self.number, text, by_message)

    def run(self):
        try:
            self.new()
            steps = [step for step, weight in self.STEPS for _ in range(weight)]
            while not self.recording.stop.is_set():
                self.random.choice(steps)(self)
        except BaseException as err:
            self.error = err

    # ---- steps

    def some(self):
        return self.random.choice(self.volumes)

    def extent(self):
        """Blocks of 4 KiB: often a few, often at the edges of the pool's blocks, or all of some."""
        kind = self.random.randrange(4)
        # A few places are used more than others, so that what is shared is written, and discarded.
        first = self.random.choice((self.random.randrange(VOLUME_BLOCKS), self.random.randrange(5 * PER_POOL_BLOCK)))
        if kind == 0:
            count = self.random.randrange(1, 5)
        elif kind == 1:
            first -= first % PER_POOL_BLOCK
            count = PER_POOL_BLOCK * self.random.randrange(1, 4)
        elif kind == 2:
            first = max(0, first - first % PER_POOL_BLOCK - self.random.randrange(1, 3))
            count = self.random.randrange(2, 6)
        else:
            count = self.random.randrange(1, 48)
        return first, min(count, VOLUME_BLOCKS - first)

    def write(self, volume=None, fua=False, times=1):
        volume = volume or self.some()
        taken, todo, numbers = set(), [], []
        for _ in range(times):
            first, count = self.extent()
            if taken.isdisjoint(range(first, first + count)):
                taken.update(range(first, first + count))
                number = self.begins(f"W {volume.number} {first} {count}")
                numbers.append(number)
                data = b"".join(STAMP.pack(number, where, volume.number, STAMP_CONSTANT) * (SECTOR // STAMP.size)
                                for where in range(first * 8, (first + count) * 8))
                todo.append((first * BLOCK, data))
        self.writes.run(volume.file.fd, todo, fua)
        if fua:
            for number in numbers:
                self.ended(f"K {volume.number} {number}")

    def burst(self):
        self.write(times=self.random.randrange(2, 9))

    def fua(self):
        # Such a write gets into the log before those that are cached, also before older ones of the same
        # place; so there are none. See "separate" for the other reason.
        if self.recording.separate:
            self.flush()
            return
        volume = self.some()
        self.flush(volume)
        self.write(volume, fua=True, times=self.random.randrange(1, 3))

    def flush(self, volume=None):
        volume = volume or self.some()
        upto = self.recording.count()
        volume.file.flush()
        self.ended(f"F {volume.number} {upto}")

    def about_to_discard(self):
        # The distribution's discards what was shared below even while a copy of it is not committed. So its
        # data is lost by a crash then: not what is to be found here.
        if self.recording.which == "stock":
            self.recording.pool.status(flush=True)

    def discard(self):
        self.about_to_discard()
        volume = self.some()
        if self.random.random() < 0.1:
            first, end = 0, VOLUME_BLOCKS
        else:
            first = self.random.randrange(VOLUME_BLOCKS)
            end = min(VOLUME_BLOCKS, first + self.random.choice((16, 16, 20, 40, 100)))
        whole, whole_end = -(-first // PER_POOL_BLOCK) * PER_POOL_BLOCK, end // PER_POOL_BLOCK * PER_POOL_BLOCK
        if whole < whole_end:
            self.begins(f"D {volume.number} {whole} {whole_end - whole}")
        volume.file.discard(first * 8, (end - first) * 8)

    def break_and_discard(self):
        """A shared block gets a copy; then whoever kept the old one gives it back."""
        if len(self.volumes) < 2:
            return
        first, second = self.random.sample(self.volumes, 2)
        self.write(first, times=3)
        self.about_to_discard()
        self.begins(f"D {second.number} 0 {VOLUME_BLOCKS}")
        second.file.discard(0, VOLUME_BLOCKS * 8)

    def new(self):
        pool = self.recording.pool
        number = self.recording.next_volume()
        self.begins(f"C {number}")
        pool.message(f"create_thin {number}")
        self.ended(f"c {number}", True)
        self.volumes.append(self.recording.open(number))

    def snapshot(self):
        if len(self.volumes) >= MOST_IN_FAMILY:
            self.delete()
            return
        pool = self.recording.pool
        origin = self.some()
        number = self.recording.next_volume()
        origin.device.suspend(flush=self.random.random() < 0.5)
        self.begins(f"S {number} {origin.number}")
        pool.message(f"create_snap {number} {origin.number}")
        origin.device.resume()
        self.ended(f"c {number}", True)
        self.volumes.append(self.recording.open(number))

    def delete(self):
        if len(self.volumes) < 2:
            return
        volume = self.volumes.pop(self.random.randrange(len(self.volumes)))
        volume.close()
        self.begins(f"X {volume.number}")
        self.recording.pool.message(f"delete {volume.number}")
        self.ended(f"x {volume.number}", True)

    STEPS = ((write, 30), (burst, 12), (discard, 6), (break_and_discard, 3), (flush, 14), (fua, 5), (snapshot, 6),
             (delete, 2))

    def close(self):
        for volume in self.volumes:
            volume.close()
        self.writes.close()


class Recording:
    """A pool on a disk that is recorded, its workload, and then the log of it. "separate": metadata is
    written through. FUA writes are left out then: they overtake metadata in the log which was durable before."""

    def __init__(self, t, seed, separate, which, acknowledgements):
        self.t = t
        self.seed = seed
        self.separate = separate
        self.which = which
        self.wanted = acknowledgements
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.pool_lives = threading.Lock()  # a thin table is refused while the pool is suspended
        self.events = []
        self.volume_number = 0
        self.acknowledged = 0
        self.stop = threading.Event()
        self.log = thin.Disk(t, "log", LOG_BYTES)
        self.event_file = t.scratch / "events"
        target.use(which)
        self._up()
        try:
            self._work()
        except BaseException as err:
            # What went wrong is to be told even where the rest hangs because of it.
            t.log(f"recording {seed} failed: {err!r}")
            with contextlib.suppress(OSError, tm.Failed):
                self._down()
            raise
        self._down()
        self.event_file.write_text("".join(f"{number} {text}\n" for number, text in enumerate(self.events, 1)))

    def _up(self):
        self.disk = thin.Disk(self.t, "disk", META_BYTES + DATA_BLOCKS * POOL_BLOCK)
        self.recorder = thin.Device.of(self.t, "crash-recorder", thin.Target(
            0, self.disk.sectors, "log-writes", f"{self.disk.path} {self.log.path}"))
        self.barrier = thin.File(self.recorder.path)
        self.meta_sectors = META_BYTES // SECTOR // (1 if self.separate else 2)
        meta = thin.Device.of(self.t, "crash-meta", self._meta_line())
        data = thin.Device.of(self.t, "crash-data", thin.Target(
            0, DATA_BLOCKS * thin.BLOCK, "linear", f"{self.recorder.path} {META_BYTES // SECTOR}"))
        if self.separate:
            self.cache(meta).write_text("write through\n")
        self.meta, self.data = Slice(meta), Slice(data)
        self.data_blocks = DATA_BLOCKS_AT_FIRST
        self.pool = thin.Pool(self.t, self.meta, self.data, "crash", sectors=self.data_blocks * thin.BLOCK)
        self.families = [Family(self, number, self.random.random()) for number in range(FAMILIES)]

    def _meta_line(self):
        return thin.Target(0, self.meta_sectors, "linear", f"{self.recorder.path} 0")

    @staticmethod
    def cache(device):
        return Path(f"/sys/block/dm-{device.minor}/queue/write_cache")

    def event(self, thread, text):
        """Its number."""
        with self.lock:
            self.events.append(f"{thread} {text}")
            return len(self.events)

    def count(self):
        with self.lock:
            return len(self.events)

    def open(self, number):
        with self.pool_lives:
            return Volume(number, self.pool.thin(number, VOLUME_BYTES))

    def next_volume(self):
        with self.lock:
            self.volume_number += 1
            return self.volume_number

    def acknowledge(self, thread, text, by_message):
        # What was written through is in the log only after the next flush.
        if by_message and self.separate:
            self.barrier.flush()
        number = self.event(thread, text)
        self.recorder.message(f"mark {thread}:{number}")
        with self.lock:
            self.acknowledged += 1

    def _work(self):
        for family in self.families:
            family.start()

        def enough():
            if any(family.error or not family.is_alive() for family in self.families):
                return True
            entries, sector, *disabled = self.recorder.status().split()
            if disabled:
                raise tm.Failed(f"the log ended at sector {sector}, after {entries} entries")
            return self.acknowledged >= self.wanted or int(sector) * SECTOR > LOG_BYTES - 32 * MIB

        done = 0
        while not enough():
            # Growth and the like, spread over the run.
            if self.acknowledged * 8 >= done * self.wanted:
                done += 1
                with self.pool_lives:
                    self.random.choice((self._grow_data, self._grow_metadata, self._suspend, self._commit))()
            self.stop.wait(0.02)
        self.stop.set()
        for family in self.families:
            family.join(60)
            if family.is_alive():
                raise tm.Failed("a thread of the workload hangs")
            if family.error:
                raise family.error
        if self.separate:
            self.t.equal(self.cache(self.meta.device).read_text().strip(), "write through", "metadata's cache")

    def _grow_data(self):
        self.data_blocks = min(DATA_BLOCKS, self.data_blocks + self.random.randrange(1, 30))
        if self.which == "ours" and self.random.random() < 0.5:
            self.pool.message(f"grow_data {self.data_blocks}")
        else:
            self.pool.change(sectors=self.data_blocks * thin.BLOCK)

    def _grow_metadata(self):
        # Another table would have it cached.
        if not self.separate and self.meta_sectors < META_BYTES // SECTOR:
            self.meta_sectors = min(META_BYTES // SECTOR, self.meta_sectors + 8 * self.random.randrange(40, 80))
            self.meta.device.swap(self._meta_line(), flush=False)
            if self.which == "ours" and self.random.random() < 0.5:
                self.pool.message(f"grow_metadata {self.meta_sectors // 8}")
            else:
                self.pool.change(sectors=self.data_blocks * thin.BLOCK)

    def _suspend(self):
        self.pool.suspend(flush=self.random.random() < 0.5)
        self.pool.resume()

    def _commit(self):
        self.pool.status(flush=True)

    def _down(self):
        self.stop.set()
        for family in self.families:
            family.join(20)
            family.close()
        self.pool.remove()
        self.meta.device.remove()
        self.data.device.remove()
        self.barrier.close()
        self.recorder.remove()
        self.disk.close()

    def close(self):
        self.log.close()


# ---- replaying -----------------------------------------------------------------------------------

class Replay:
    """The states of a recording, with one of the targets."""

    def __init__(self, t, recording, which, seed, check):
        self.t = t
        self.recording = recording
        self.which = which
        self.check = check  # with thin_check; activation is not all there is to do
        self.random = random.Random(seed)
        self.meta = thin.Disk(t, "shown-meta", META_BYTES)
        self.data = thin.Disk(t, "shown-data", DATA_BLOCKS * POOL_BLOCK)
        # thin_check wants to be alone with a device, and to read it past all caches.
        self.second = tm.sh(["losetup", "--find", "--show", self.meta.file]).out.strip()
        t.defer(self._forget_second)
        self.slice = None
        self.activated = self.checked = self.written = 0
        target.use(which)
        self.tool = subprocess.Popen(
            [t.tool("crash-replay"), recording.log.file, recording.event_file, self.meta.file, self.data.file,
             "data" if recording.separate else "both", str(META_BYTES), str(DATA_BLOCKS * POOL_BLOCK),
             str(VOLUME_BYTES), str(seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            self.end = self._run()
        finally:
            self.tool.kill()
            self.tool.wait()
        if self.slice:
            self.slice.device.remove()
        self._forget_second()
        self.meta.close()
        self.data.close()

    def _forget_second(self):
        if self.second:
            tm.sh(["losetup", "-d", self.second])
            self.second = ""

    def _ask(self, text):
        self.tool.stdin.write(text + "\n")
        self.tool.stdin.flush()
        return self._answer()

    def _answer(self):
        line = self.tool.stdout.readline().strip()
        if not line or line.startswith("bad"):
            raise tm.Failed(f"{self.which}, {self._where()}: {line or 'crash-replay ended'}")
        return line

    def _where(self):
        return (f"recording {self.recording.seed} of {self.recording.which}, "
                f"{'separate caches' if self.recording.separate else 'one cache'}")

    def _run(self):
        line = self._answer()
        while line.startswith("state"):
            line = self._ask(self._state(*line.split()[1:]))
        return dict(zip(("entries", "flushes", "fuas", "states"), map(int, line.split()[1:]), strict=True))

    def _state(self, kind, entry, changed, meta_blocks, data_blocks, block_sectors, volumes):
        # Made, but not grown to the table's size yet.
        meta_blocks, data_blocks = int(meta_blocks), int(data_blocks) or DATA_BLOCKS_AT_FIRST
        if not meta_blocks:
            return "next"
        self.t.equal(int(block_sectors), thin.BLOCK, "the block size")
        what = f"{self._where()}, entry {entry} ({kind})"
        if self.check and changed == "1":
            self._thin_check(what)
        if kind != "mark" and self.random.random() < 0.9:
            return "next"
        return self._activate(what, meta_blocks, data_blocks, [] if volumes == "-" else volumes.split(","))

    def _thin_check(self, what):
        # The distribution's target loses blocks that are allocated, and not mapped, when it commits.
        lenient = ["--ignore-non-fatal-errors"] if self.recording.which == "stock" else []
        done = tm.sh(["thin_check", *lenient, self.second], check=False)
        if done.status != 0:
            raise tm.Failed(f"thin_check, {what}: {done.out}{done.err}")
        self.checked += 1

    def _activate(self, what, meta_blocks, data_blocks, volumes):
        line = thin.Target(0, meta_blocks * 8, "linear", f"{self.meta.path} 0")
        if not self.slice:
            self.slice = Slice(thin.Device.of(self.t, "crash-shown", line))
        elif self.slice.sectors != meta_blocks * 8:
            self.slice.device.swap(line)
        write = volumes and self.random.random() < 0.1
        try:
            pool = thin.Pool(self.t, self.slice, self.data, "crash", sectors=data_blocks * thin.BLOCK)
            every = None
            if volumes:
                size = VOLUME_BYTES // SECTOR
                every = thin.Device.of(self.t, "crash-all", *(
                    thin.Target(place * size, size, "thin", f"{pool.path} {number}")
                    for place, number in enumerate(volumes)))
                self._ask(f"compare {every.path}")
            state = pool.state()
            self.t.equal((state.mode, state.needs_check, state.metadata_total, state.data_total),
                         ("rw", False, meta_blocks, data_blocks), f"{self.which}, {what}: the pool")
            if write:
                self._write(pool, every)
            if every:
                every.remove()
            pool.remove()
        except OSError as err:
            raise tm.Failed(f"{self.which}, {what}: {errno.errorcode.get(err.errno, err.errno)} "
                            f"from {err.filename or 'device-mapper'}") from err
        self.activated += 1
        if write:
            self.written += 1
            self._thin_check(f"{what}, then written to")
            return "written"
        return "used"

    def _write(self, pool, every):
        """It goes on as a pool: blocks are allocated, sharing is broken, snapshots made."""
        places = [self.random.randrange(every.size // BLOCK) * 8 for _ in range(12)]
        data = {place: bytes([number + 1]) * BLOCK for number, place in enumerate(places)}
        with thin.File(every.path) as file:
            for place, text in data.items():
                file.write(place, text)
            file.flush()
            for place, text in data.items():
                if file.read(place, 8) != text:
                    raise tm.Failed("what was written is not there")
            file.discard(0, every.size // SECTOR // 3)
        pool.message(f"create_thin {MOST_IN_FAMILY + 5000}")


# ---- the case ------------------------------------------------------------------------------------

def crash(t, seed, separate, acknowledgements, which="ours"):
    """Records, and replays with both targets. Returns how many marks there were."""
    recording = Recording(t, seed, separate, which, acknowledgements)
    said = []
    for other in ("ours", "stock"):
        replay = Replay(t, recording, other, seed, check=other == "ours")
        said.append(f"{other}: {replay.activated} activated, {replay.written} of them written to")
        if replay.check:
            said.append(f"{replay.checked} checked")
    marks = replay.end["flushes"] + replay.end["fuas"]
    t.log(f"seed {seed}, {which}, {'separate caches' if separate else 'one cache'}: {len(recording.events)} events, "
          f"{replay.end['entries']} entries, {marks} marks ({replay.end['fuas']} FUA), {replay.end['states']} states; "
          + "; ".join(said))
    recording.close()
    return marks


def fast_grace_periods(t):
    """Activating is mostly waiting for them."""
    path = Path("/sys/kernel/rcu_expedited")
    t.defer(path.write_text, path.read_text())
    path.write_text("1\n")


def prepare(t):
    thin.quiet(t)
    fast_grace_periods(t)
    t.defer(target.use, t.target)
    return int(os.environ.get("CRASH_SEED", 0)) or random.SystemRandom().randrange(1, 1 << 31)


def run(t):
    seed = prepare(t)
    marks = crash(t, seed, False, 25) + crash(t, seed + 1, True, 15)
    # How many flushes share a commit is up to the machine.
    t.check(marks >= 50, f"{marks} marks are at least 50")
