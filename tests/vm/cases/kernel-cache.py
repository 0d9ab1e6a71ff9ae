# SPDX-License-Identifier: GPL-2.0-or-later
"""What look-ups remember is never out of date: threads write, read and discard blocks that share their
places in that memory, each its own block, while snapshots come and go and transactions are taken back.
"""

import errno
import threading

import target
import thin
import tm

SUITES = ["bookworm"]  # on Debian 13 by its name
LIMIT = 240
PACKAGE = False
MODULE = True

MIB = 1 << 20
SECTOR = thin.SECTOR
BLOCK_BYTES = thin.BLOCK * SECTOR
# Blocks that lie this far from each other share a place in every size that it comes in.
APART = 8192
THREADS, TURNS, SNAPSHOTS = 6, 60, 40


class Owner(threading.Thread):
    """Of one block of the device: nobody else writes it, so what it holds is known at any time."""

    def __init__(self, device, number):
        super().__init__(daemon=True)
        self.device = device
        self.number = number
        self.sector = (number * APART + number // 3) * thin.BLOCK
        self.turn = 0
        self.error = None

    def expect(self, file, wanted, what):
        got = file.read(self.sector + self.turn % 16 * 8, 8)
        if got != wanted:
            raise tm.Failed(f"block of thread {self.number}, turn {self.turn}, {what}: {got[:8]!r}, "
                            f"expected {wanted[:8]!r}")

    def once(self, file):
        text = bytes([self.number + 1, self.turn % 251]) * 2048
        if self.turn % 3 == 0:
            file.write(self.sector, text * 16)
        else:
            file.write(self.sector + self.turn % 16 * 8, text)
        self.expect(file, text, "written")
        self.expect(file, text, "read again")
        if self.turn % 4 == 3:
            file.discard(self.sector, thin.BLOCK)
            self.expect(file, bytes(4096), "discarded")

    def run(self):
        try:
            with thin.File(self.device.path) as file:
                for self.turn in range(TURNS):
                    self.once(file)
        except Exception as err:
            self.error = err


def crowded(t, features):
    pool = thin.Pool(t, thin.Disk(t, "meta", 4 * MIB), thin.Disk(t, "data", 256 * MIB), features=features)
    vol = pool.make(0, (THREADS + 1) * APART * BLOCK_BYTES)
    owners = [Owner(vol, number) for number in range(THREADS)]
    for owner in owners:
        owner.start()
    taken = 0
    while any(owner.is_alive() for owner in owners):
        number = 1 + taken % SNAPSHOTS
        if taken >= SNAPSHOTS:
            pool.message(f"delete {number}")
        vol.suspend(flush=taken % 2 == 0)
        pool.message(f"create_snap {number} 0")
        vol.resume()
        taken += 1
    for owner in owners:
        owner.join()
        if owner.error:
            raise owner.error
    t.check(taken > 3, f"{taken} snapshots were taken meanwhile")
    for number in range(1, 1 + min(taken, SNAPSHOTS)):
        pool.message(f"delete {number}")
    vol.remove()
    thin.check(pool)
    pool.remove()
    pool.metadata.close()
    pool.data.close()


def taken_back(t):
    """What a transaction mapped is forgotten with it."""
    meta, data = thin.Disk(t, "meta", 4 * MIB).through(), thin.Disk(t, "data", 64 * MIB)
    pool = thin.Pool(t, meta, data)
    vol = pool.make(0, 32 * MIB)
    thin.fill(vol, 0, 4, 1)
    # The pool commits each second; where that was between the writes and the failure, there was nothing to lose.
    for attempt in range(1, 11):
        new = 8 + attempt
        pool.state(flush=True)
        vol.suspend()
        pool.message(f"create_snap {attempt} 0")
        vol.resume()
        pool.state(flush=True)
        thin.fill(vol, 0, 2, 1 + attempt)     # copies, and one new block, which are then lost
        thin.fill(vol, new, 1, 1 + attempt)
        for block in (0, 1, new):
            t.equal(thin.read(vol, block * thin.BLOCK, 8)[:1], bytes([1 + attempt]), f"block {block} before")
        meta.fail("error_writes")
        if thin.error_of(thin.flush, vol) == errno.EIO:
            break
        meta.heal()
        t.equal(pool.mode(), "rw", "the mode where nothing was lost")
    else:
        raise tm.Failed("no flush failed whose commit could not be written")
    meta.heal()
    tm.wait_for(lambda: pool.mode() == "ro", 20, "the pool to be read-only")
    for block, value in ((0, attempt), (1, attempt), (2, 1), (new, 0)):
        t.equal(thin.read(vol, block * thin.BLOCK, 8)[:1], bytes([value]), f"block {block} as committed")
    vol.remove()
    pool.remove()
    thin.check(meta)
    meta.close()
    data.close()


def run(t):
    thin.quiet(t)
    t.defer(target.use, t.target)
    target.use("ours")
    for features in ("", "no_discard_passdown"):
        crowded(t, features)
        t.log(f"nobody read what is not there any more{', ' + features if features else ''}")
    taken_back(t)
    t.log("what was taken back is forgotten")
