# SPDX-License-Identifier: GPL-2.0-or-later
"""Our kernel module: it loads and unloads, takes turns with the distribution's, and refuses where
it cannot be. A pool goes back and forth between the two, by itself and under thinmgrd."""

from pathlib import Path

import pools
import target
import thin
import tm

SUITES = ["bookworm", "trixie"]
LIMIT = 360
MODULE = True

# Not part of the kernel, and not signed by who built it: no other mark may be left on the kernel.
OUT_OF_TREE, UNSIGNED = 1 << 12, 1 << 13
NAMES = {"thin-pool", "thin"}
MIB = 1 << 20


def forget_log():
    """From here on: an offset would not do, for a full log loses its beginning."""
    tm.sh(["dmesg", "--clear"])


def kernel_log():
    return tm.sh(["dmesg"]).out


def loads(t):
    """By itself, once, and away again."""
    target.unload()
    forget_log()
    t.equal(target.load_ours().status, 0, "insmod")
    version = Path("/sys/module/dm_thinmgr/version").read_text().strip()
    t.check(f"dm_thinmgr: version {version}" in kernel_log(), "the module tells its version")
    if tm.installed():
        t.equal(version, tm.sh(["dpkg-query", "-W", "-f", "${Version}", "thinmgr"]).out, "the version")
    t.equal(NAMES - set(target.versions()), set(), "names that are missing")
    again = target.load_ours()
    t.check(again.status != 0 and "File exists" in again.err, f"it loads once only: {again}")
    t.equal(target.current(), "ours", "the targets in use")
    target.unload()
    t.equal(NAMES & set(target.versions()), set(), "names that are still taken")
    t.log(f"version {version} loads and unloads")


def parameters(t):
    """Each is described, has its default, takes another value while it runs and none that is no number."""
    target.use("ours")
    said = tm.sh(["modinfo", "-p", target.OURS]).out
    for name, default in (("no_space_timeout", "60"), ("snapshot_copy_throttle", "100")):
        t.check(any(line.startswith(f"{name}:") and len(line) > len(name) + 20 for line in said.splitlines()),
                f"{name} is described: {said}")
        path = thin.parameter(name)
        t.equal(path.read_text().strip(), default, f"{name} by default")
        path.write_text("7\n")
        t.equal(path.read_text().strip(), "7", f"{name} when it was written")
        t.check(thin.error_of(path.write_text, "x\n") != 0, f"{name} is a number")
    target.unload()
    t.equal(target.load_ours("no_space_timeout=3", "snapshot_copy_throttle=50").status, 0, "insmod with parameters")
    t.equal([thin.parameter(name).read_text().strip() for name in ("no_space_timeout", "snapshot_copy_throttle")],
            ["3", "50"], "parameters when it was loaded")
    target.unload()


def refuses(t):
    """Names that are taken stay with who has them, whoever came first."""
    target.use("stock")
    stock = target.versions()
    forget_log()
    done = target.load_ours()
    t.check(done.status != 0, "insmod fails while the distribution's targets are registered")
    t.check("is there already: unload" in kernel_log(), "the kernel log says why")
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
    pool = thin.Pool(t, thin.Disk(t, "busy-meta", 2 * MIB), thin.Disk(t, "busy-data", 8 * MIB), "busy")
    try:
        target.use("ours")
    except tm.Failed as err:
        t.check(pool.name in str(err), f"the device is named: {err}")
    else:
        t.check(False, "with a pool there the targets cannot be exchanged")
    t.equal(target.current(), "stock", "the targets in use")
    t.check(tm.sh(["rmmod", "dm_thin_pool"], check=False).status != 0, "the kernel would refuse, too")
    t.equal(pool.mode(), "rw", "the pool's mode")
    pool.remove()


TURNS = 4  # with FULL=1 ten
SHARED = 3  # a block that each turn writes, and that each turn's snapshot shares


def hands_over(t):
    """A pool goes from one to the other and back; each reads what the other wrote, and breaks what
    it shares."""
    metadata, data = thin.Disk(t, "turn-meta", 2 * MIB), thin.Disk(t, "turn-data", 8 * MIB)
    origin_holds, snapshots_hold = {}, {}
    turns = 10 if t.full else TURNS
    for turn in range(turns):
        target.use(("stock", "ours")[turn % 2])
        pool = thin.Pool(t, metadata, data, f"turn{turn}")
        if not turn:
            pool.message("create_thin 0")
        origin = pool.thin(0, 64 * MIB)
        for block in (10 + turn, SHARED):
            thin.fill(origin, block, 1, turn * 16 + block % 16)
            origin_holds[block] = turn * 16 + block % 16
        thin.flush(origin)
        for block, value in origin_holds.items():
            t.equal(set(thin.read(origin, block * thin.BLOCK, thin.BLOCK)), {value},
                    f"block {block} in turn {turn}")
        for number, value in snapshots_hold.items():
            snapshot = pool.thin(number, 64 * MIB)
            t.equal(set(thin.read(snapshot, SHARED * thin.BLOCK, thin.BLOCK)), {value},
                    f"snapshot {number} in turn {turn}")
            snapshot.remove()
        origin.suspend()
        pool.message(f"create_snap {turn + 1} 0")
        origin.resume()
        snapshots_hold[turn + 1] = origin_holds[SHARED]
        # One for each block ever written first, and one for each time the shared one was written.
        t.equal(pool.state(flush=True).data_used, 2 * (turn + 1), f"blocks in use in turn {turn}")
        origin.remove()
        pool.remove()
        thin.check(metadata)
    t.log(f"a pool was handed over {turns - 1} times, its data read after each")


TOLD = {"stock": ("dm_thin_pool", "distribution"), "ours": ("dm_thinmgr", "thinmgr")}


def under_the_daemon(t):
    """thinmgrd tells which of the two a pool got, and extends it that one's way, without a restart."""
    pid, cursor = tm.main_pid(), tm.journal_cursor()
    target.use("stock")
    pools.create(t, "swap", 32, policy={"data": {"maximum": 1024 * MIB}, "metadata": {"auto_extend": False}})
    device = pools.volume("swap", "v", 1024)
    written = 0

    def length():
        return int(tm.sh(["dmsetup", "table", "swap:_pool"]).out.split()[1])

    def at_rest():
        data = pools.pool("swap")["data"]
        return data["size"] // 512 >= length() and data["free"] > data["low_water"]
    for name in ("stock", "ours", "stock"):
        if target.current() != name:
            pools.change("POST", "/v1/pools/swap/deactivate")
            target.use(name)
            pools.change("POST", "/v1/pools/swap/activate")
        about = tm.api("GET", "/v1/system", expect=200).body["kernel"]["target"]
        t.equal((about["module"], about["origin"], about["version"]),
                (*TOLD[name], target.versions()["thin-pool"]), f"what is said of {name}")
        tm.wait_for(at_rest, 20, "nothing to be extended yet")
        before, was = pools.last_seq(), length()
        while not (steps := pools.events(before, pool="swap", type="extended")):
            t.check(written < 512, f"{written} MiB and no extension, with {name}: {pools.pool('swap')['data']}")
            pools.Writer(device, 16, seed=70, offset_mib=written).finish(60)
            written += 16
        t.equal(pools.events(before, pool="swap", type="extend-failed"), [], f"failures with {name}")
        t.equal("kernel_usec" in steps[0]["data"], name == "ours", f"its own events are asked for: {steps[0]}")
        # A message leaves the live table as it is.
        t.equal(length() > was, name == "stock", f"extended by a table with {name}")
    lines = [e["MESSAGE"] for e in tm.journal(cursor) if "thin-pool target is now" in e.get("MESSAGE", "")]
    t.equal(["dm_thinmgr 1" in line for line in lines[-2:]], [True, False], f"the log: {lines}")
    t.equal(tm.main_pid(), pid, "the daemon")
    pools.destroy("swap")
    t.log(f"exchanged under thinmgrd: {lines}")


def run(t):
    t.defer(target.use, t.target)
    under_the_daemon(t)
    thin.quiet(t)
    loads(t)
    parameters(t)
    refuses(t)
    busy(t)
    hands_over(t)
    tainted = int(Path("/proc/sys/kernel/tainted").read_text())
    t.equal(tainted & ~(OUT_OF_TREE | UNSIGNED), 0, "marks on the kernel")
    t.check(tainted & OUT_OF_TREE, "the kernel marks itself at all")
    t.log(f"the kernel is marked with {tainted} only")
