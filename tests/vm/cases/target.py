# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab itself: a thin pool made by hand from loop devices, filled until its low water mark."""

import target
import tm

SUITES = ["bookworm", "trixie"]
LIMIT = 180
PACKAGE = False


def run(t):
    target.use(t.target)
    loops = []
    for name, mib in (("meta", 4), ("data", 64)):
        path = t.scratch / name
        with path.open("wb") as file:
            file.truncate(mib << 20)
        loop = tm.sh(["losetup", "--find", "--show", str(path)]).out.strip()
        t.defer(tm.sh, ["losetup", "-d", loop])
        loops.append(loop)

    # 64 MiB of 64 KiB blocks; the kernel is to say so when fewer than 512 of 1024 are free.
    tm.sh(["dmsetup", "create", "lab-pool", "--table",
           f"0 131072 thin-pool {loops[0]} {loops[1]} 128 512"])
    t.defer(tm.sh, ["dmsetup", "remove", "--retry", "lab-pool"])
    tm.sh(["dmsetup", "message", "lab-pool", "0", "create_thin 0"])
    tm.sh(["dmsetup", "create", "lab-thin", "--table", "0 262144 thin /dev/mapper/lab-pool 0"])
    t.defer(tm.sh, ["dmsetup", "remove", "--retry", "lab-thin"])

    status = tm.thin_status("lab-pool")
    t.equal((status.mode, status.data_used, status.data_total), ("write", 0, 1024), "a fresh pool")

    waiter = ["dmsetup", "info", "-c", "--noheadings", "-o", "events", "lab-pool"]
    before = int(tm.sh(waiter).out)
    written = tm.write_pattern("/dev/mapper/lab-thin", 40, seed=1)
    tm.wait_for(lambda: int(tm.sh(waiter).out) > before, 10, "the low water event")
    tm.drop_caches()
    t.equal(tm.digest("/dev/mapper/lab-thin", 40), written, "what was written")
    t.equal(tm.thin_status("lab-pool").data_used, 640, "blocks in use")
    t.log("thin-pool works: " + tm.thin_status("lab-pool").line)
