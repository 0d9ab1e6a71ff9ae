# SPDX-License-Identifier: GPL-2.0-or-later
"""Our kernel module: it loads and unloads, takes turns with the distribution's, and refuses where
it cannot be."""

from pathlib import Path

import target
import tm

SUITES = ["bookworm", "trixie"]
LIMIT = 120
PACKAGE = False
MODULE = True

# Not part of the kernel, and not signed by who built it: no other mark may be left on the kernel.
OUT_OF_TREE, UNSIGNED = 1 << 12, 1 << 13
NAMES = {"thin-pool", "thin"}


def kernel_log():
    return tm.sh(["dmesg"]).out


def stock_pool(t):
    """A pool of the distribution's target, by hand."""
    loops = []
    for name, mib in (("meta", 4), ("data", 64)):
        path = t.scratch / name
        with path.open("wb") as file:
            file.truncate(mib << 20)
        loop = tm.sh(["losetup", "--find", "--show", str(path)]).out.strip()
        t.defer(tm.sh, ["losetup", "-d", loop])
        loops.append(loop)
    tm.sh(["dmsetup", "create", "lab-pool", "--table",
           f"0 131072 thin-pool {loops[0]} {loops[1]} 128 512"])


def loads(t):
    """By itself, once, and away again."""
    target.unload()
    before = len(kernel_log())
    t.equal(target.load_ours().status, 0, "insmod")
    version = Path("/sys/module/dm_thinmgr/version").read_text().strip()
    t.check(f"dm_thinmgr: version {version}" in kernel_log()[before:], "the module tells its version")
    if tm.installed():
        t.equal(version, tm.sh(["dpkg-query", "-W", "-f", "${Version}", "thinmgr"]).out, "the version")
    if target.registers():
        t.equal(NAMES - set(target.versions()), set(), "names that are missing")
    again = target.load_ours()
    t.check(again.status != 0 and "File exists" in again.err, f"it loads once only: {again}")
    t.equal(target.current(), "ours", "the targets in use")
    target.unload()
    t.equal(NAMES & set(target.versions()), set(), "names that are still taken")
    t.log(f"version {version} loads and unloads")


def refuses(t):
    """Names that are taken stay with who has them, whoever came first."""
    if not target.registers():
        t.log("it registers nothing yet, so no name can be taken")
        return
    target.use("stock")
    stock, before = target.versions(), len(kernel_log())
    done = target.load_ours()
    t.check(done.status != 0, "insmod fails while the distribution's targets are registered")
    t.check("dm_thinmgr: " in kernel_log()[before:], "the kernel log says why")
    t.equal((target.current(), target.versions()), ("stock", stock), "nothing changed")
    target.use("ours")
    ours = target.versions()
    tm.sh(["modprobe", "dm_thin_pool"], check=False)
    t.equal((target.loaded("dm_thinmgr"), target.versions()), (True, ours), "nothing changed")
    if target.loaded("dm_thin_pool"):
        tm.sh(["rmmod", "dm_thin_pool"])


def busy(t):
    """Nothing is taken away from under a device."""
    target.use("stock")
    stock_pool(t)
    try:
        target.use("ours")
    except tm.Failed as err:
        t.check("lab-pool" in str(err), f"the device is named: {err}")
    else:
        t.check(False, "with a pool there the targets cannot be exchanged")
    t.equal(target.current(), "stock", "the targets in use")
    t.check(tm.sh(["rmmod", "dm_thin_pool"], check=False).status != 0, "the kernel would refuse, too")
    t.equal(tm.thin_status("lab-pool").mode, "write", "the pool's mode")
    tm.sh(["dmsetup", "remove", "--retry", "lab-pool"])


def run(t):
    t.defer(target.use, t.target)
    loads(t)
    refuses(t)
    busy(t)
    for _ in range(10):
        target.use("ours")
        target.use("stock")
    tainted = int(Path("/proc/sys/kernel/tainted").read_text())
    t.equal(tainted & ~(OUT_OF_TREE | UNSIGNED), 0, "marks on the kernel")
    t.check(tainted & OUT_OF_TREE, "the kernel marks itself at all")
    t.log(f"ten times in turn; the kernel is marked with {tainted} only")
