# SPDX-License-Identifier: GPL-2.0-or-later
"""More of kernel-faults, kernel-format and kernel-model, which takes minutes: run it by its name."""

import random

import target
import thin
import tm

SUITES = ["bookworm", "trixie"]
DEFAULT = False
LIMIT = 1800
PACKAGE = False
MODULE = True

MIB = 1 << 20


def grows(t, by_message):
    """Row 6: data and metadata grow a hundred times under fio, by tables or by messages."""
    meta, data = thin.Disk(t, "meta", 4 * MIB).through(), thin.Disk(t, "data", 320 * MIB).through()
    with thin.no_space_timeout(0):
        pool = thin.Pool(t, meta, data, sectors=16 * MIB // 512)
        vol = pool.make(0, 1 << 30)
        fio = thin.Background(
            tm.sh, ["fio", "--name=x", f"--filename={vol.path}", "--rw=randwrite", "--bsrange=4k-128k", "--direct=1",
                    "--size=300m", "--ioengine=libaio", "--iodepth=16", "--fsync=50", "--verify=crc32c",
                    "--do_verify=0", "--randseed=7", "--norandommap=0", "--thread=1"], True, 400)
        blocks = 256
        for number in range(100):
            blocks += 40
            if number % 4 == 0:
                meta.resize(4 * MIB + (number + 1) * 65536)
            if by_message:
                pool.message(f"grow_data {blocks}")
                if number % 4 == 0:
                    pool.message(f"grow_metadata {meta.sectors // 8}")
            else:
                pool.change(sectors=blocks * 128)
            t.equal(pool.state().data_total, blocks, f"growth {number}")
        t.equal(pool.state().metadata_total, meta.sectors // 8, "metadata")
        blocks = data.sectors // 128
        pool.change(sectors=blocks * 128)
        fio.ended(400)
    t.equal((pool.mode(), pool.state().needs_check), ("rw", False), "the pool")
    done = tm.sh(["fio", "--name=x", f"--filename={vol.path}", "--rw=randwrite", "--bsrange=4k-128k", "--direct=1",
                  "--size=300m", "--verify=crc32c", "--verify_only=1", "--randseed=7", "--norandommap=0",
                  "--ioengine=libaio", "--iodepth=16"], check=False, limit=400)
    t.equal(done.status, 0, f"what was written: {done.err}")
    thin.check(pool)
    vol.remove()
    pool.remove()
    meta.close()
    data.close()


class Writer:
    """Writes to a part of a device again and again, until it is told to stop, and knows what it wrote last."""

    PLACES, SECTORS = 96, 24  # of 12 KiB: some lie in one block, some in two

    def __init__(self, device, first, seed):
        self.device = device
        self.first = first
        self.random = random.Random(seed)
        self.stop = False
        self.last = {}
        self.thread = thin.Background(self.run)

    def run(self):
        with thin.File(self.device.path) as file:
            while not self.stop:
                place = self.random.randrange(self.PLACES)
                data = self.random.randbytes(64) * (self.SECTORS * 512 // 64)
                file.write(self.first + place * self.SECTORS, data)
                self.last[place] = data
                if place % 16 == 0:
                    file.flush()

    def ended(self, t):
        """Stop, and see whether all is there."""
        self.stop = True
        t.equal(self.thread.ended(60), 0, "writes during suspends")
        with thin.File(self.device.path, write=False) as file:
            wrong = [place for place, data in self.last.items()
                     if file.read(self.first + place * self.SECTORS, self.SECTORS) != data]
        t.equal((wrong, len(self.last) > 0), ([], True), f"places from sector {self.first} that are not what was written")


def suspends(t, rounds=150):
    """The pool and its volumes suspended in every way, and snapshots made and deleted, under I/O of every kind."""
    meta, data = thin.Disk(t, "meta", 8 * MIB).through(), thin.Disk(t, "data", 400 * MIB).through()
    pool = thin.Pool(t, meta, data)
    volumes = [pool.make(number, 60 * MIB) for number in (0, 1)]
    writers = [Writer(volumes[0], number * Writer.PLACES * Writer.SECTORS, number) for number in range(4)]

    def fio(device, kind, seed):
        return thin.Background(
            tm.sh, ["fio", "--name=x", f"--filename={device.path}", f"--rw={kind}", "--bsrange=4k-128k", "--direct=1",
                    "--time_based", "--runtime=20", "--size=60m", "--ioengine=libaio", "--iodepth=8", "--fsync=30",
                    "--thread=1", f"--randseed={seed}"], True, 200)

    jobs = [fio(volumes[0], "randread", 2), fio(volumes[1], "randwrite", 3), fio(volumes[1], "randtrim", 4)]
    number = 10
    while number < rounds + 10 or any(job.waits() for job in jobs):
        volume = volumes[number % 2]
        volume.suspend(flush=number % 3 != 0)
        pool.message(f"create_snap {number} {number % 2}")
        volume.resume()
        pool.suspend(flush=number % 4 < 2)
        if number % 5 == 0:  # a volume within the suspend of its pool
            volume.suspend(flush=False)
            pool.resume()
            volume.resume()
        else:
            pool.resume()
        if number > 13:
            pool.message(f"delete {number - 4}")
        number += 1
    t.equal([job.ended() for job in jobs], [0, 0, 0], "I/O during suspends")
    for writer in writers:
        writer.ended(t)
    t.equal((pool.mode(), pool.state().needs_check), ("rw", False), "the pool")
    thin.check(pool)
    for device in (*volumes, pool):
        device.remove()
    meta.close()
    data.close()
    t.log(f"{number - 10} rounds of suspends under I/O")


def run(t):
    import runner
    faults, model, form = (runner.load(name) for name in ("kernel-faults", "kernel-model", "kernel-format"))
    thin.quiet(t)
    t.defer(target.use, t.target)
    form.block_sizes(t)
    form.stacking(t)
    t.log("blocks of every size; limits of the data device")
    target.use("ours")
    suspends(t)
    for by_message in (False, True):
        grows(t, by_message)
        t.log(f"a hundred grows under I/O, by {'messages' if by_message else 'tables'}")
    faults.full_metadata(t, 2 * MIB)
    faults.full_metadata(t, 16 * MIB)
    t.log("larger metadata, full")
    faults.oversized(t)
    t.log("oversized metadata devices")
    model.long(t)
