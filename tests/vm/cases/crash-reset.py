# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine reset in the middle of extending and of snapshots, and under a writer's load.

The steps come from the daemon's own list. After each boot the pools whose policy says so are back
with their volumes, what was synced is there, the metadata is clean, and all that tells of pools
agrees. Without FULL=1 every third step has its turn.
"""

import os
import random
import shutil
import time
from pathlib import Path

import crashlab
import tm
from resets import arm, boot_id, wait_booted

HOST = True
OWN_BOOT = True
LIMIT = 900
KINDS = ("pool-extend", "snapshot-create")
BASE = Path("/srv/crash-reset")


# ---- in the machine ------------------------------------------------------------------------------

def world():
    w = crashlab.World(tm.Case("crash-reset"), None)
    w.t.scratch = BASE
    return w


def set_up():
    BASE.mkdir(parents=True)
    w = world()
    w.set_up()
    # One that is not to come back by itself, and one whose volume rests.
    crashlab.make_pool("later", BASE / "later", 16, {**crashlab.QUIET, "activate_at_start": False})
    crashlab.make_volume("later", "vol", 8)
    crashlab.make_volume("a", "resting", 8)
    crashlab.do("POST", "/v1/pools/a/volumes/resting/deactivate")
    crashlab.make_pool("load", BASE / "load", 32, {"data": {"step_min": 16 << 20}})
    crashlab.make_volume("load", "vol", 1024)
    os.sync()
    return {"digests": w.digests, "file": w.file}


def points():
    return [[p.kind, p.step, p.done] for p in crashlab.points() if p.kind in KINDS and p.when == "before"]


def provoke(kind):
    crashlab.SCENARIOS[kind].ask(world())
    time.sleep(60)  # the reset ends this


def examine(before, kind, done, digests, file):
    """After the boot; `kind` is empty when no operation was under way."""
    tm.wait_ready(90)
    tm.settle()
    w = world()
    w.digests, w.file = digests, file
    if "later" in before:
        before["later"]["active"] = False
        before["later"]["volumes"]["vol"]["active"] = False
    scenario = crashlab.SCENARIOS.get(kind)
    wanted = crashlab.expected(before, scenario, done) if scenario else before
    got = crashlab.state()
    for s in (got, wanted):  # it grew as it needed
        for part in ("data", "metadata"):
            s["load"].pop(part)
    crashlab.same_state(got, wanted, f"after a reset in {kind}")
    crashlab.verify_soon(BASE)
    tm.sh(["mount", "/dev/thinmgr/a/fs", str(BASE / "mnt")])
    w.verify_data()
    if scenario:
        if not done:
            again = crashlab.ended(scenario.ask(w))
            if again["status"] != "done":
                raise tm.Failed(f"asked again: {again['error']}")
        scenario.revert(w)
    tm.sh(["umount", str(BASE / "mnt")])
    tm.sh(["mount", "/dev/thinmgr/a/fs", str(BASE / "mnt")])
    os.sync()
    return boot_id()


def write():
    """MiB after MiB, each synced; says how many are."""
    fd = os.open("/dev/thinmgr/load/vol", os.O_WRONLY)
    for number in range(1000):
        os.pwrite(fd, random.Random(number).randbytes(1 << 20), number << 20)
        if number % 8 == 7:
            os.fsync(fd)
            print(f"synced {number + 1}", flush=True)


def examine_load(synced):
    tm.wait_ready(90)
    with open("/dev/thinmgr/load/vol", "rb") as source:
        for number in range(synced):
            if source.read(1 << 20) != random.Random(number).randbytes(1 << 20):
                raise tm.Failed(f"MiB {number} of {synced} that were synced is not what was written")
    tm.wait_for(lambda: tm.api("GET", "/v1/pools/load").body["mode"] == "write", 30, "mode write")
    return tm.api("GET", "/v1/pools/load").body["data"]["size"] >> 20


def finish():
    world().tear_down()
    shutil.rmtree(BASE)
    tm.assert_clean()
    return True


# ---- on the host ---------------------------------------------------------------------------------

def under_load(t, kept):
    """The reset comes at a moment of the host's choosing while the pool grows by itself."""
    seed = int(time.time())
    stop_at = random.Random(seed).randrange(64, 200)
    t.log(f"reset once {stop_at} MiB are synced (seed {seed})")
    before = t.call("crashlab_state")
    writer = t.start("write")
    synced = 0
    for raw in writer.stdout:
        word = raw.decode(errors="replace").split()
        if word[:1] == ["synced"]:
            synced = int(word[1])
        elif word:
            t.log(raw.decode(errors="replace").rstrip())
        if synced >= stop_at:
            break
    t.vm.reset()
    writer.kill()
    writer.wait()
    t.check(synced >= stop_at, f"the writer got as far as {stop_at} MiB ({synced})")
    t.vm.wait_up()
    grown = t.call("examine_load", synced)
    t.call("examine", before, "", False, *kept, limit=180)
    t.log(f"{synced} MiB synced, all there; the pool has {grown} MiB")


def crashlab_state():
    return crashlab.state()


def run(t):
    result = t.call("set_up")
    kept = (result["digests"], result["file"])
    every = t.call("points")
    chosen = every if os.environ.get("FULL") == "1" else every[2::3]
    for kind, step, done in chosen:
        began = time.monotonic()
        boot = t.call("boot_id")
        before = t.call("arm", f"{kind}:{step}:before")
        provoked = t.start("provoke", kind)
        wait_booted(t, boot, provoked)
        provoked.kill()
        provoked.wait()
        t.call("examine", before, kind, done, *kept, limit=180)
        t.log(f"{kind}:{step}:before {'done' if done else 'undone'} {time.monotonic() - began:.1f} s")
    under_load(t, kept)
    t.call("finish")
    t.log(f"{len(chosen)} of {len(every)} points, and one under load")
