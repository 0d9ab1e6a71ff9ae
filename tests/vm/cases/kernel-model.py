# SPDX-License-Identifier: GPL-2.0-or-later
"""Random work on thin devices against a model in user space, byte by byte and block by block: writes
and discards of every alignment, several at once, snapshots of snapshots, deletes, growth, suspends
and activations; and by turns with the distribution's target (kernel-long).

The seed is printed; MODEL_SEED=n in the machine's environment repeats it.
"""

import itertools
import os
import random
import re
import threading

import metadata
import target
import thin
import tm

SUITES = ["bookworm"]  # on Debian 13 by its name
LIMIT = 600
PACKAGE = False
MODULE = True

MIB = 1 << 20
SECTOR = thin.SECTOR
BLOCK_BYTES = thin.BLOCK * SECTOR


class Model:
    """What a thin device has to hold, and which of its blocks are whose."""

    def __init__(self, sectors):
        self.sectors = sectors
        self.data = bytearray(sectors * SECTOR)
        self.blocks = {}  # virtual block: what stands for its data block, shared by those that share it
        self.lock = threading.Lock()

    def snapshot(self):
        copy = Model(self.sectors)
        copy.data = bytearray(self.data)
        copy.blocks = dict(self.blocks)
        return copy

    def wrote(self, sector, data, others):
        """Others: the models it may share blocks with."""
        self.data[sector * SECTOR:sector * SECTOR + len(data)] = data
        for block in range(sector // 128, (sector + len(data) // SECTOR - 1) // 128 + 1):
            mine = self.blocks.get(block)
            if mine is None or any(mine in other.owned() for other in others if other is not self):
                self.blocks[block] = object()

    def owned(self):
        return set(self.blocks.values())

    def discarded(self, sector, sectors):
        """Whole blocks go; what is left of others stays as it is."""
        for block in range(-(-sector // 128), (sector + sectors) // 128):
            if self.blocks.pop(block, None) is not None:
                self.data[block * BLOCK_BYTES:(block + 1) * BLOCK_BYTES] = \
                    bytes(len(self.data[block * BLOCK_BYTES:(block + 1) * BLOCK_BYTES]))


class Work:
    """A pool with its volumes and their models."""

    # Of odd sizes: a device need not end where a block does.
    SIZES = (40 * 128, 24 * 128 + 8, 33 * 128 + 120, 17 * 128 + 1)

    def __init__(self, t, seed, features="", most=8):
        self.t = t
        self.most = most
        self.random = random.Random(seed)
        self.meta = thin.Disk(t, "model-meta", 4 * MIB).through()
        self.data = thin.Disk(t, "model-data", 256 * MIB).through()
        self.blocks = 1024
        self.features = features
        self.pool = None
        self.volumes = {}
        self.models = {}
        self.next_id = 0
        self.up()
        for sectors in self.SIZES:
            self.new(sectors)

    def up(self):
        self.pool = thin.Pool(self.t, self.meta, self.data, "model", sectors=self.blocks * 128,
                              features=self.features)
        for number, model in self.models.items():
            self.volumes[number] = self.pool.thin(number, model.sectors * SECTOR)

    def down(self):
        for volume in self.volumes.values():
            volume.remove()
        self.volumes = {}
        self.pool.remove()

    def new(self, sectors):
        number, self.next_id = self.next_id, self.next_id + 1
        self.volumes[number] = self.pool.make(number, sectors * SECTOR)
        self.models[number] = Model(sectors)

    def some(self):
        return self.random.choice(sorted(self.models))

    def extent(self, model):
        """A place and a length: often a few sectors, often at the edges of blocks, sometimes large."""
        kind = self.random.randrange(5)
        sector = self.random.randrange(model.sectors)
        if kind == 0:
            length = self.random.randrange(1, 17)
        elif kind == 1:
            length = self.random.randrange(1, 400)
        elif kind == 2:
            sector, length = sector // 128 * 128, 128 * self.random.randrange(1, 4)
        elif kind == 3:
            sector, length = max(0, sector // 128 * 128 - self.random.randrange(1, 9)), self.random.randrange(2, 300)
        else:
            sector, length = sector // 8 * 8, 8 * self.random.randrange(1, 64)
        return sector, min(length, model.sectors - sector)

    def bytes(self, sectors):
        return self.random.randbytes(16) * (sectors * SECTOR // 16)

    def others(self, model):
        return self.models.values()

    # ---- steps

    def write(self):
        number = self.some()
        sector, length = self.extent(self.models[number])
        data = self.bytes(length)
        with thin.File(self.volumes[number].path, sync=self.random.random() < 0.1) as file:
            file.write(sector, data)
        self.models[number].wrote(sector, data, self.models.values())

    def burst(self):
        """Several writes at once, next to each other, so that some need the same block at the same time."""
        number = self.some()
        model = self.models[number]
        at = self.random.randrange(model.sectors)
        todo = []
        while len(todo) < 12 and at < model.sectors:
            length = min(self.random.choice((1, 7, 8, 16, 60, 128)), model.sectors - at)
            todo.append((at, self.bytes(length)))
            at += length
        reads = []
        with thin.File(self.volumes[number].path) as file:
            running = [thin.Background(file.write, sector, data) for sector, data in todo]
            for other in self.models:  # meanwhile, from all that may share blocks with it
                if other != number:
                    reads.append(self.compare_some(other))
            for one in running:
                if one.ended(60):
                    raise tm.Failed(f"a write failed with errno {one.ended()}")
        for sector, data in todo:
            model.wrote(sector, data, self.models.values())

    def compare_some(self, number):
        model = self.models[number]
        sector, length = self.extent(model)
        got = thin.read(self.volumes[number], sector, length)
        if got != model.data[sector * SECTOR:(sector + length) * SECTOR]:
            raise tm.Failed(f"volume {number}, sectors {sector} to {sector + length - 1} are not what was written")

    def read(self):
        self.compare_some(self.some())

    def discard(self):
        number = self.some()
        model = self.models[number]
        sector, length = self.extent(model)
        if self.random.random() < 0.2:
            sector, length = 0, model.sectors
        thin.discard(self.volumes[number], sector, length)
        model.discarded(sector, length)

    def flush(self):
        thin.flush(self.volumes[self.some()])

    def snapshot(self):
        if len(self.models) >= self.most:
            self.delete()
            return
        origin = self.some()
        number, self.next_id = self.next_id, self.next_id + 1
        self.volumes[origin].suspend(flush=self.random.random() < 0.5)
        self.pool.message(f"create_snap {number} {origin}")
        self.volumes[origin].resume()
        self.models[number] = self.models[origin].snapshot()
        self.volumes[number] = self.pool.thin(number, self.models[number].sectors * SECTOR)

    def delete(self):
        if len(self.models) < 3:
            return
        number = self.some()
        self.volumes.pop(number).remove()
        del self.models[number]
        self.pool.message(f"delete {number}")

    def grow(self):
        if self.blocks < self.data.sectors // 128:
            self.blocks = min(self.blocks + self.random.randrange(1, 200), self.data.sectors // 128)
            self.pool.change(sectors=self.blocks * 128)

    def suspend(self):
        """The pool, with writes that wait meanwhile."""
        number = self.some()
        model = self.models[number]
        sector, length = self.extent(model)
        data = self.bytes(length)
        self.pool.suspend(flush=self.random.random() < 0.5)
        waiting = thin.Background(thin.write, self.volumes[number], sector, data)
        self.pool.resume()
        if waiting.ended(60):
            raise tm.Failed(f"a write during a suspend failed with errno {waiting.ended()}")
        model.wrote(sector, data, self.models.values())

    def again(self):
        self.down()
        self.up()

    STEPS = ((write, 30), (burst, 10), (read, 10), (discard, 12), (flush, 4), (snapshot, 6), (delete, 3), (grow, 1),
             (suspend, 3), (again, 1))

    def run(self, steps):
        what = [step for step, weight in self.STEPS for _ in range(weight)]
        for _ in range(steps):
            step = self.random.choice(what)
            if os.environ.get("MODEL_TALK"):
                self.t.log(step.__name__)
            step(self)

    # ---- judgement

    def compare(self):
        """All of it, and the space."""
        for number, model in self.models.items():
            got = thin.read(self.volumes[number], 0, model.sectors)
            if got != model.data:
                wrong = [block for block in range(-(-model.sectors // 128))
                         if got[block * BLOCK_BYTES:(block + 1) * BLOCK_BYTES] !=
                         model.data[block * BLOCK_BYTES:(block + 1) * BLOCK_BYTES]]
                raise tm.Failed(f"volume {number}: blocks {wrong} are not what was written")
            mapped = int(self.volumes[number].status().split()[0])
            self.t.equal(mapped, len(model.blocks) * 128, f"sectors mapped in volume {number}")
        used = len(set().union(*(model.owned() for model in self.models.values())))
        self.t.equal(self.pool.state(flush=True).data_used, used, "data blocks in use")

    def done(self):
        self.compare()
        self.down()
        thin.check(self.meta)
        self.meta.close()
        self.data.close()


def workload(t, seed, steps, turns=1, features="", most=8):
    """Some steps, judged; each turn with the other target, if there are more than one."""
    t.log(f"seed {seed}, {steps} steps" + (f", {features}" if features else ""))
    work = Work(t, seed, features, most)
    for turn in range(turns):
        work.run(steps)
        work.compare()
        if turns > 1:
            work.down()
            thin.check(work.meta)
            target.use(("stock", "ours")[turn % 2])
            work.up()
            work.compare()
    work.done()
    target.use("ours")


def chain(t):
    """Snapshots of snapshots, 32 deep; each differs, and goes in a random order."""
    work = Work(t, 32)
    last = 0
    for _ in range(32):
        sector = work.random.randrange(35) * 128
        data = work.bytes(200)
        thin.write(work.volumes[last], sector, data)
        work.models[last].wrote(sector, data, work.models.values())
        number, work.next_id = work.next_id, work.next_id + 1
        work.volumes[last].suspend()
        work.pool.message(f"create_snap {number} {last}")
        work.volumes[last].resume()
        work.models[number] = work.models[last].snapshot()
        work.volumes[number] = work.pool.thin(number, work.models[number].sectors * SECTOR)
        last = number
    work.compare()
    for _ in range(20):
        work.delete()
        work.discard()
        work.write()
    work.done()


def scripted(t, which):
    """thin_dump of one and the same work, done by one target. Each step is durable before the next."""
    target.use(which)
    meta, data = thin.Disk(t, f"script-{which}", 4 * MIB), thin.Disk(t, f"script-data-{which}", 32 * MIB)
    pool = thin.Pool(t, meta, data, "script")
    vol = pool.make(0, 16 * MIB)

    def step(function, *args):
        function(*args)
        pool.status(flush=True)

    step(thin.fill, vol, 0, 20, 1)
    step(thin.write, vol, 100 * 128 + 3, b"x" * 1024)
    step(thin.fill, vol, 60, 10, 1)
    for number, origin in ((1, 0), (2, 0), (3, 1)):
        vol.suspend()
        pool.message(f"create_snap {number} {origin}")
        vol.resume()
        step(thin.fill, vol, number, 4, 2)
    step(thin.discard, vol, 5 * 128 + 1, 10 * 128)
    step(thin.discard, vol, 62 * 128, 4 * 128)
    snap = pool.thin(1, 16 * MIB)
    step(thin.write, snap, 2 * 128 + 127, b"y" * 1024)
    step(thin.discard, snap, 0, 128)
    pool.message("set_transaction_id 0 41")
    pool.message("delete 2")
    step(thin.fill, vol, 200, 6, 3)
    pool.message("reserve_metadata_snap")
    step(thin.fill, snap, 210, 2, 3)
    pool.message("release_metadata_snap")
    snap.remove()
    vol.remove()
    pool.remove()
    thin.check(meta)
    found = thin.dump(meta)
    meta.close()
    data.close()
    return re.sub(r'uuid="[^"]*"', "", found)


# Of external origins, in sectors; the devices on them have ten blocks.
LENGTHS = (1, 127, 128, 3 * 128 + 5, 10 * 128 - 1, 10 * 128, 10 * 128 + 77)


def origins(t, which, lengths):
    """External origins: shorter than the device, of the same size, longer, of odd sizes."""
    target.use(which)
    pool = thin.Pool(t, thin.Disk(t, "meta", 2 * MIB), thin.Disk(t, "data", 64 * MIB), "origins")
    size = 10 * 128
    for number, sectors in enumerate(lengths):
        text = random.Random(number).randbytes(sectors * SECTOR)
        origin = thin.Disk(t, "origin", sectors * SECTOR)
        origin.file.write_bytes(text)
        pool.message(f"create_thin {number}")
        vol = pool.thin(number, size * SECTOR, origin=origin.path)
        model = bytearray((text + bytes(size * SECTOR))[:size * SECTOR])

        def same(what, vol=vol, model=model, sectors=sectors):
            t.equal(thin.read(vol, 0, size) == bytes(model), True, f"{which}: origin of {sectors} sectors, {what}")

        same("as it is")
        for sector, length in ((0, 1), (130, 8), (256, 128), (3 * 128 + 3, 4), (3 * 128 + 6, 200), (size - 3, 3)):
            data = bytes([sector % 251 + 1]) * (length * SECTOR)
            thin.write(vol, sector, data)
            model[sector * SECTOR:(sector + length) * SECTOR] = data
            same(f"written at {sector}")
        t.equal(origin.file.read_bytes() == text, True, "the origin itself")
        thin.discard(vol, 2 * 128, 128)  # the origin is seen again
        model[256 * SECTOR:384 * SECTOR] = (text + bytes(size * SECTOR))[256 * SECTOR:384 * SECTOR]
        same("a block given back")
        vol.remove()
        # Without the origin: what was written is there, with the rest of its blocks.
        vol = pool.thin(number, size * SECTOR)
        t.equal(thin.read(vol, 128, 128) == bytes(model[128 * SECTOR:256 * SECTOR]), True, "without the origin")
        vol.remove()
        origin.close()
    thin.check(pool)
    pool.remove()
    pool.metadata.close()
    pool.data.close()


def end(pool, *devices):
    """Everything away, with clean metadata."""
    for device in devices:
        device.remove()
    thin.check(pool)
    pool.remove()
    pool.metadata.close()
    pool.data.close()


def discards(t, features):
    """Of every alignment, with shared and other blocks; what lies on the data device goes with passdown only."""
    pool = thin.Pool(t, thin.Disk(t, "meta", 2 * MIB), thin.Disk(t, "data", 64 * MIB), "discards", features=features)
    vol = pool.make(0, 8 * MIB)
    models = {0: Model(8 * MIB // SECTOR)}
    whole = b"\7" * (64 * BLOCK_BYTES)
    thin.write(vol, 0, whole)
    models[0].wrote(0, whole, ())
    vol.suspend()
    pool.message("create_snap 1 0")
    vol.resume()
    models[1] = models[0].snapshot()
    snap = pool.thin(1, 8 * MIB)
    again = b"\x08" * (24 * BLOCK_BYTES)
    thin.write(vol, 0, again)  # these are its own, the rest is shared
    models[0].wrote(0, again, models.values())
    for start, length in ((0, 1), (1, 127), (127, 2), (0, 127), (128, 128), (383, 130), (4 * 128 - 1, 258),
                          (20 * 128 + 64, 8 * 128), (40 * 128, 3 * 128), (60 * 128, 4 * 128 + 1),
                          (63 * 128, 30 * 128), (100 * 128, 28 * 128)):
        thin.discard(vol, start, length)
        models[0].discarded(start, length)
        for number, device in ((0, vol), (1, snap)):
            t.equal(thin.read(device, 0, 128 * 128) == bytes(models[number].data), True,
                    f"volume {number} after a discard of {length} sectors at {start}")
        used = len(models[0].owned() | models[1].owned())
        t.equal(pool.state(flush=True).data_used, used, f"blocks in use after {length} at {start}")
    held = pool.data.file.stat().st_blocks // 128
    thin.discard(vol, 0, 128 * 128)
    thin.discard(snap, 0, 128 * 128)
    t.equal(pool.state(flush=True).data_used, 0, "blocks in use at last")
    left = pool.data.file.stat().st_blocks // 128
    if features:
        t.check(left >= held, f"nothing of the data device is discarded with {features}")
    else:
        t.equal((held > 0, left), (True, 0), "blocks held by the data device")
    end(pool, vol, snap)


def alignments(t, block=thin.BLOCK):
    """Ends everywhere in a block, over blocks of a volume's own, shared ones, both by turns, and holes."""
    ends = (0, 1, block // 2, block - 1)
    ranges = [r for r in itertools.product(ends, ends, (0, 1, 3), ("own", "shared", "mixed", "hole")) if any(r[:3])]
    apart = 6  # blocks of the place each has: one before it, and whatever it may touch
    sectors = len(ranges) * apart * block
    pool = thin.Pool(t, thin.Disk(t, "meta", 4 * MIB), thin.Disk(t, "data", 2 * sectors * SECTOR), "discards", block)
    vol = pool.make(0, sectors * SECTOR)
    value = lambda place, which: bytes([place % 251 + which]) * (block * SECTOR)  # noqa: E731
    with thin.File(vol.path) as file:
        for place, (*_, kind) in enumerate(ranges):
            if kind != "hole":
                file.write(place * apart * block, value(place, 1) * apart)
    vol.suspend()
    pool.message("create_snap 1 0")
    vol.resume()
    snap = pool.thin(1, sectors * SECTOR)
    expected, used = [], 0
    with thin.File(vol.path) as file:
        for place, (*_, kind) in enumerate(ranges):
            first = place * apart
            own = {"own": range(apart), "mixed": range(0, apart, 2)}.get(kind, ())
            for number in own:
                file.write((first + number) * block, value(place, 2))
            expected.append([value(place, 2) if n in own else bytes(block * SECTOR) if kind == "hole" else value(place, 1)
                             for n in range(apart)])
            used += (kind != "hole") * apart + len(own)
        t.equal(pool.state(flush=True).data_used, used, "blocks in use before the discards")
        for place, (head, tail, whole, kind) in enumerate(ranges):
            at = block + head  # in its place
            length = (block - head) % block + whole * block + tail
            own = {"own": range(apart), "mixed": range(0, apart, 2)}.get(kind, ())
            file.discard(place * apart * block + at, length)
            for number in range(-(-at // block), (at + length) // block):
                expected[place][number] = bytes(block * SECTOR)
                used -= number in own
            what = f"{length} sectors from sector {head} of a block on, {kind}"
            t.check(file.read(place * apart * block, apart * block) == b"".join(expected[place]), f"the data after a discard of {what}")
            t.equal(pool.state(flush=True).data_used, used, f"blocks in use after a discard of {what}")
    with thin.File(snap.path, write=False) as file:
        for place, (*_, kind) in enumerate(ranges):
            there = bytes(apart * block * SECTOR) if kind == "hole" else value(place, 1) * apart
            t.check(file.read(place * apart * block, apart * block) == there, f"the snapshot, place {place}")
    end(pool, vol, snap)


ELEMENT = re.compile(r'<device dev_id="(?P<device>\d+)"|<def name="(?P<shared>[^"]*)"|<ref name="(?P<ref>[^"]*)"|'
                     r'<single_mapping origin_block="(?P<one>\d+)" data_block="(?P<data>\d+)"|'
                     r'<range_mapping origin_begin="(?P<first>\d+)" data_begin="(?P<begin>\d+)" length="(?P<length>\d+)"')


def mappings(text):
    """Of thin_dump: a dict of blocks by device. That of Debian 13 tells once what devices share, and refers to it."""
    devices, shared, blocks = {}, {}, {}
    for e in ELEMENT.finditer(text):
        if e["device"]:
            blocks = devices[int(e["device"])] = {}
        elif e["shared"]:
            blocks = shared[e["shared"]] = {}
        elif e["ref"]:
            blocks.update(shared[e["ref"]])
        elif e["one"]:
            blocks[int(e["one"])] = int(e["data"])
        else:
            for number in range(int(e["length"])):
                blocks[int(e["first"]) + number] = int(e["begin"]) + number
    return devices


def large_trees(t, seed, features, blocks=16000, rounds=4):
    """Ranges taken out of trees of many leaves: dense and sparse, of a device's own and shared, some blocks
    written again. After each round the metadata says what the model does."""
    rng = random.Random(seed)
    t.log(f"large trees, seed {seed}, {features or 'passed down'}")
    meta, data = thin.Disk(t, "meta", 16 * MIB), thin.Disk(t, "data", 2 * blocks * BLOCK_BYTES)
    size = 3 * blocks
    dense = set(range(blocks // 4)) | set(range(blocks, blocks + blocks // 8))
    sparse = {block for block in range(blocks + blocks // 8, size, 3)}
    keys = sorted(dense | sparse)
    place = list(range(len(keys)))
    half = len(keys) // 2
    tail = place[half:]
    rng.shuffle(tail)  # half of it in runs, half of it anywhere
    model = {0: dict(zip(keys, place[:half] + tail)), 1: {}}
    xml = t.scratch / "large.xml"
    xml.write_text(f'<superblock uuid="" time="0" transaction="0" version="2" data_block_size="128" '
                   f'nr_data_blocks="{2 * blocks}">\n'
                   f'<device dev_id="0" mapped_blocks="{len(keys)}" transaction="0" creation_time="0" snap_time="0">\n' +
                   "".join(f'<single_mapping origin_block="{key}" data_block="{model[0][key]}" time="0"/>\n'
                           for key in keys) + "</device>\n</superblock>\n")
    tm.sh(["thin_restore", "-i", xml, "-o", meta.path])
    xml.unlink()
    volumes = {}

    def discard(number):
        first = rng.choice((rng.randrange(size), rng.choice(keys)))
        length = min(size - first, rng.choice((1, 2, rng.randrange(1, 100), rng.randrange(1, 1000), rng.randrange(1, 9000))))
        thin.discard(volumes[number], first * 128, length * 128)
        for block in [b for b in model[number] if first <= b < first + length]:
            del model[number][block]

    def write(number):
        block = rng.randrange(size)
        thin.write(volumes[number], block * 128, bytes(SECTOR))
        model[number][block] = None  # wherever that lies

    pool = None
    for turn in range(rounds):
        pool = thin.Pool(t, meta, data, "large", features=features)
        volumes = {number: pool.thin(number, size * BLOCK_BYTES) for number in ((0, 1) if turn > 1 else (0,))}
        if turn == 1:
            volumes[0].suspend()
            pool.message("create_snap 1 0")
            volumes[0].resume()
            volumes[1] = pool.thin(1, size * BLOCK_BYTES)
            model[1] = dict(model[0])
        for _ in range(40):
            number = rng.choice(sorted(volumes))
            rng.choice((discard, discard, discard, write))(number)
        for number, volume in volumes.items():
            t.equal(int(volume.status().split()[0]), 128 * len(model[number]), f"sectors mapped in volume {number}")
            volume.remove()
        used = pool.state(flush=True).data_used
        pool.remove()
        thin.check(meta)
        found = mappings(thin.dump(meta))
        for number in volumes:
            t.equal(found[number].keys() == model[number].keys(), True, f"which blocks volume {number} has, round {turn}")
            moved = [b for b, at in model[number].items() if at not in (None, found[number][b])]
            t.equal(moved, [], f"blocks of volume {number} that lie elsewhere, round {turn}")
            model[number] = found[number]
        t.equal(used, len(set().union(*(blocks.values() for blocks in found.values()))), "blocks in use")
    meta.close()
    data.close()


class Trees:
    """What is committed of a pool that may be live."""

    def __init__(self, disk):
        self.disk = disk
        self.superblock = self._block(0)

    def _block(self, number):
        with thin.File(self.disk.path, write=False) as file:
            return file.read(number * 8, 8)

    def _is_high(self, root):
        above, keys, _ = metadata.node(self._block(root))
        return above and len(keys) == 1

    def too_high(self):
        """Those with all that they hold below a single node: devices by their numbers."""
        above, numbers, roots = metadata.node(self._block(metadata.roots(self.superblock)[0]))
        assert not above, "few devices"
        return [number for number, root in zip(numbers, roots) if self._is_high(root)]

    def upper_too_high(self):
        """The same of the tree of the devices' trees, and of that of their details."""
        roots = zip(("mappings", "details"), metadata.roots(self.superblock))
        return [name for name, root in roots if self._is_high(root)]


def heights(t):
    """No tree is left with a root above a single node: there is a fault in how some kernels change such a one, and a
    snapshot then loses what it shares. The distribution's leaves some; those are changed as they should be."""
    meta, data = thin.Disk(t, "meta", 8 * MIB), thin.Disk(t, "data", 256 * MIB)
    blocks, seen = 256, 0
    for which, lengths in (("ours", (86, 87, 89, 171)), ("stock", (87,))):
        for length in lengths:
            target.use(which)
            pool = thin.Pool(t, meta, data, "heights")
            vol = pool.make(0, blocks * BLOCK_BYTES)
            with thin.File(vol.path) as file:
                for block in range(blocks):
                    file.write(block * thin.BLOCK, bytes([1 + block % 250]) * SECTOR)
                file.discard(0, length * thin.BLOCK)
                file.flush()
            high = Trees(meta).too_high()
            seen += len(high)
            t.equal(high, [] if which == "ours" else [0], f"trees that are too high, {which}, {length} discarded")
            if which == "stock":
                vol.remove()
                pool.remove()
                target.use("ours")
                pool = thin.Pool(t, meta, data, "heights")
                vol = pool.thin(0, blocks * BLOCK_BYTES)
            vol.suspend()
            pool.message("create_snap 1 0")
            vol.resume()
            thin.discard(vol, length * thin.BLOCK, thin.BLOCK)
            thin.flush(vol)
            # The snapshot has what it was made of, till that changes.
            t.equal(Trees(meta).too_high(), [] if which == "ours" else [1],
                    f"trees that are too high, a snapshot later, {length} discarded")
            t.equal(pool.state(flush=True).data_used, blocks - length, "blocks in use")
            snap = pool.thin(1, blocks * BLOCK_BYTES)
            with thin.File(snap.path, write=False) as file:
                for block in range(length, blocks):
                    t.equal(file.read(block * thin.BLOCK, 1), bytes([1 + block % 250]) * SECTOR,
                            f"block {block} of the snapshot, {length} discarded")
            for device in (snap, vol):
                device.remove()
            thin.check(pool)
            for number in (0, 1):
                pool.message(f"delete {number}")
            t.equal(pool.state(flush=True).data_used, 0, "blocks in use")
            pool.remove()
            thin.check(meta)
            meta.close()
            meta = thin.Disk(t, "meta", 8 * MIB)
    t.equal(seen, 1, "the distribution's tree that is too high")

    pool = thin.Pool(t, meta, data, "heights")
    devices = 300  # more than a leaf holds of either tree
    for number in range(devices):
        pool.message(f"create_thin {number}")
    for number in range(devices - 20):
        pool.message(f"delete {number}")
        t.equal(Trees(meta).upper_too_high(), [], f"trees that are too high, {number + 1} devices deleted")
        if number % 30 == 0:
            pool.message("reserve_metadata_snap")
        if number % 30 == 15:
            pool.message("release_metadata_snap")
    pool.remove()
    thin.check(meta)
    meta.close()
    data.close()


def seed_of_today():
    return int(os.environ.get("MODEL_SEED") or random.SystemRandom().randrange(1 << 30))


def same_dumps(t):
    dumps = {which: scripted(t, which) for which in ("stock", "ours")}
    if dumps["ours"] != dumps["stock"]:
        for which, text in dumps.items():
            t.log(f"{which}:\n{text}")
    t.equal(dumps["ours"] == dumps["stock"], True, "thin_dump of the same work by both targets")


def long(t):
    """What takes minutes, for kernel-long."""
    seed = seed_of_today()
    # A debug kernel looks long at each step: it is to see each way, not each as often.
    less = 3 if tm.PATIENCE > 1 else 1
    large_trees(t, seed, "skip_block_zeroing", blocks=48000 // less, rounds=6)
    discards(t, "no_discard_passdown")
    alignments(t, 2 * thin.BLOCK)  # at no power of two the block layer cuts discards by itself
    origins(t, "stock", LENGTHS)
    origins(t, "ours", LENGTHS)
    t.log("external origins of every length, with both targets")
    workload(t, seed, 30, turns=10)
    t.log("handed from one target to the other ten times")
    for number in range(1, 5):
        workload(t, seed + number, 500 // less, most=24, features=("", "no_discard_passdown")[number % 2])


def run(t):
    thin.quiet(t)
    t.defer(target.use, t.target)
    same_dumps(t)
    target.use("ours")
    t.log("thin_dump shows the same after the same work by both targets")
    chain(t)
    t.log("snapshots 32 deep are what the model says")
    discards(t, "")
    alignments(t)
    origins(t, "ours", (127, 3 * 128 + 5, 10 * 128 + 77))
    t.log("discards of every alignment, external origins")
    heights(t)
    t.log("no tree is higher than it needs to be")
    large_trees(t, seed_of_today(), "no_discard_passdown skip_block_zeroing")
    workload(t, seed_of_today(), 60, features="no_discard_passdown")
