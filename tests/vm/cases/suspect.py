# SPDX-License-Identifier: GPL-2.0-or-later
"""Volumes that may have lost writes are suspect, until a check or an administrator clears them: with real faults."""

import contextlib
import os

import pools
import tm

LIMIT = 1200
MIB = 1 << 20


def shown(pool, name):
    return pools.api("GET", f"/v1/pools/{pool}/volumes/{name}", expect=200).body


def reason(pool, name):
    suspect = shown(pool, name)["suspect"]
    return suspect and suspect["reason"]


def reasons(pool):
    return {v["name"]: v["suspect"] and v["suspect"]["reason"]
            for v in tm.items(pools.api("GET", f"/v1/pools/{pool}/volumes", expect=200).body)}


def wait_reason(pool, name, want):
    tm.wait_for(lambda: reason(pool, name) == want, 30, f"{pool}/{name} being suspect: {want}")


def refused(t, pool, name, action, slug, words, what):
    reply = pools.api("POST", f"/v1/pools/{pool}/volumes/{name}/{action}?wait=60")
    found = reply.body if reply.status >= 400 else reply.body["error"] or {}
    t.equal(found.get("type"), f"urn:thinmgr:error:{slug}", what)
    text = f"{found['detail']} {found.get('hint')}"
    t.check(all(word in text for word in words), f"{what}: {text}")


def three(t, name, **members):
    """A pool that does not grow by itself, with volumes in use, one of them to be filled, and others that are not."""
    pools.create(t, name, 32, policy={
        "data": {"auto_extend": False}, "metadata": {"auto_extend": False}, "repair": "manual"}, **members)
    for volume in ("full", "beside"):
        pools.volume(name, volume, 96)
    pools.volume(name, "off", 8, activate=False)
    pools.change("POST", f"/v1/pools/{name}/snapshots", {
        "snapshots": [{"volume": "beside", "name": "ro"}], "activate": True, "read_only": True})


def no_space(t):
    """Writes fail for want of space: adding some does not hide it, nor does a restart."""
    three(t, "lost", when_full="error")
    after = pools.last_seq()
    t.check(pools.Writer(pools.node("lost", "full"), 64, seed=1).wait(60) != 0, "writing fails")
    wait_reason("lost", "full", "no_space")
    want = {"full": "no_space", "beside": "no_space", "off": None, "ro": None}
    t.equal(reasons("lost"), want, "which are suspect")
    refused(t, "lost", "full", "clear-suspect", "wrong-state", ["still"], "clearing while it goes on")
    since = shown("lost", "full")["suspect"]["since"]
    pools.change("POST", "/v1/pools/lost/extend", {"data_size": 160 * MIB})
    tm.wait_for(lambda: pools.pool("lost")["mode"] == "write", 20, "mode write")
    pools.Writer(pools.node("lost", "full"), 64, seed=1).finish(60)
    t.equal(reasons("lost"), want, "after the extension")
    t.equal(pools.pool("lost")["suspect_volumes"], 2, "the pool's count")
    t.equal(sorted((e["volume"], e["data"]["reason"]) for e in pools.events(after, type="volume-suspect")),
            [("beside", "no_space"), ("full", "no_space")], "events")
    tm.restart(kill=True)
    t.equal(reasons("lost"), want, "after a kill of thinmgrd")
    t.equal(shown("lost", "full")["suspect"]["since"], since, "since when")
    listed = tm.sh(["thinmgr", "volume", "list", "lost"]).out
    t.equal(listed.count("suspect"), 2, listed)
    t.check("failed" in tm.sh(["thinmgr", "volume", "show", "lost/full"]).out, "why is shown")
    # A copy of it lacks the same.
    pools.change("POST", "/v1/pools/lost/snapshots", {"snapshots": [{"volume": "full", "name": "copy"}]})
    t.equal(reason("lost", "copy"), "no_space", "a snapshot of a suspect volume")
    # By hand.
    after = pools.last_seq()
    tm.sh(["thinmgr", "volume", "clear-suspect", "lost/full"])
    t.equal((reason("lost", "full"), reason("lost", "beside")), (None, "no_space"), "cleared")
    event = pools.wait_event("suspect-cleared", after)
    t.equal((event["volume"], event["data"]["by"]), ("full", "administrator"), "its event")
    tm.restart()
    t.equal((reason("lost", "full"), reason("lost", "beside")), (None, "no_space"), "after a restart")
    pools.destroy("lost")


def nobody_there(t):
    """It happens while thinmgrd is away: it finds the pool so."""
    pools.create(t, "quick", 32, when_full="error", policy={
        "data": {"auto_extend": False}, "repair": "manual"})
    device = pools.volume("quick", "v", 96)
    tm.sh(["systemctl", "stop", "thinmgrd"])
    t.check(pools.Writer(device, 64, seed=2).wait(60) != 0, "writing fails, with nobody there")
    tm.sh(["systemctl", "start", "thinmgrd"])
    tm.wait_ready()
    wait_reason("quick", "v", "no_space")
    pools.destroy("quick")


def in_time(t):
    """Writes that waited, and were given space, are not lost."""
    three(t, "queue")
    after = pools.last_seq()
    writer = pools.Writer(pools.node("queue", "full"), 64, seed=3)
    pools.wait_event("queueing", after, 30, pool="queue")
    pools.change("POST", "/v1/pools/queue/extend", {"data_size": 160 * MIB})
    writer.finish(60)
    tm.wait_for(lambda: pools.pool("queue")["queueing"] is None, 20, "the end of the wait")
    tm.restart()
    t.equal(set(reasons("queue").values()), {None}, "nothing is suspect")
    t.equal(pools.events(after, type="volume-suspect"), [], "nor told to be")
    pools.destroy("queue")


def read_only(t):
    """The metadata cannot be written: suspect, over a restart, a deactivation and the repair."""
    three(t, "broken")
    name = pools.dm_name("broken", "_meta")
    line = tm.sh(["dmsetup", "table", name]).out.split()
    tm.sh(["dmsetup", "suspend", "--noflush", "--nolockfs", name])
    tm.sh(["dmsetup", "load", name, "--table", f"0 {line[1]} flakey {line[3]} {line[4]} 0 1 1 error_writes"])
    tm.sh(["dmsetup", "resume", name])
    t.check(pools.Writer(pools.node("broken", "full"), 4, seed=4).wait(60) != 0, "a write fails")
    wait_reason("broken", "full", "read_only")
    want = {"full": "read_only", "beside": "read_only", "off": None, "ro": None}
    t.equal(reasons("broken"), want, "which are suspect")
    tm.restart()
    t.equal(reasons("broken"), want, "after a restart")
    pools.change("POST", "/v1/pools/broken/repair")
    t.equal(pools.pool("broken")["mode"], "write", "repaired")
    t.equal(reasons("broken"), want, "after the repair")
    pools.destroy("broken")


def suspect_at_will(t, *names):
    """Volumes of a new pool with file systems, or without, that its lack of space made suspect."""
    pools.create(t, "fs", 160, when_full="error", policy={
        "data": {"auto_extend": False}, "metadata": {"auto_extend": False}, "repair": "manual"})
    for name in names:
        pools.volume("fs", name, 320 if name == "xfs" else 24)
    tm.sh(["mkfs.ext4", "-q", "-F", pools.node("fs", "good")])
    tm.sh(["mkfs.ext4", "-q", "-F", pools.node("fs", "bad")])
    tm.sh(["mkfs.ext4", "-q", "-F", pools.node("fs", "dirty")])
    tm.sh(["mkfs.xfs", "-q", "-f", pools.node("fs", "xfs")])
    pools.volume("fs", "filler", 256)
    t.check(pools.Writer(pools.node("fs", "filler"), 200, seed=5).wait(60) != 0, "the pool is full")
    wait_reason("fs", "good", "no_space")
    pools.change("POST", "/v1/pools/fs/extend", {"data_size": 320 * MIB})
    tm.wait_for(lambda: pools.pool("fs")["mode"] == "write", 20, "mode write")


def checked(t):
    """A check clears what is sound, and says what is wrong with the rest."""
    suspect_at_will(t, "good", "bad", "dirty", "xfs", "none")
    point = t.scratch / "point"
    point.mkdir()
    after = pools.last_seq()
    with tm.mounted(pools.node("fs", "good"), point):
        refused(t, "fs", "good", "check", "busy", ["fs/good", "lsblk"], "a check of a mounted volume")
    fd = os.open(pools.node("fs", "good"), os.O_RDONLY)
    with contextlib.closing(os.fdopen(fd)):
        refused(t, "fs", "good", "check", "busy", ["fs/good"], "a check of an open volume")
    t.equal(reason("fs", "good"), "no_space", "not checked yet")
    tm.settle()
    tm.sh(["thinmgr", "volume", "check", "fs/good"])
    t.equal(reason("fs", "good"), None, "a sound ext4")
    event = pools.wait_event("suspect-cleared", after)
    t.equal((event["volume"], event["data"]["by"]), ("good", "check"), "its event")

    tm.sh(["debugfs", "-w", "-R", "clri <2>", pools.node("fs", "bad")])
    tm.settle()
    before = tm.digest(pools.node("fs", "bad"))
    refused(t, "fs", "bad", "check", "damaged", ["e2fsck", "oot inode"], "a damaged ext4")
    t.equal((reason("fs", "bad"), tm.digest(pools.node("fs", "bad"))), ("no_space", before), "suspect, and untouched")
    failed = [e for e in pools.events(after, type="operation-failed") if "oot inode" in e["message"]]
    t.equal(len(failed), 1, "the checker's words are in an event")

    tm.sh(["debugfs", "-w", "-R", "feature needs_recovery", pools.node("fs", "dirty")])
    tm.settle()
    refused(t, "fs", "dirty", "check", "wrong-state", ["journal", "e2fsck -f"], "one that was not unmounted")
    refused(t, "fs", "none", "check", "wrong-state", ["no file system", "clear-suspect fs/none"], "no file system")
    tm.sh(["thinmgr", "volume", "check", "fs/xfs"])
    t.equal(reasons("fs"), {"good": None, "bad": "no_space", "dirty": "no_space", "none": "no_space", "xfs": None,
                            "filler": "no_space"}, "after all checks")
    # The way out of each.
    tm.sh(["e2fsck", "-fy", pools.node("fs", "bad")], check=False)
    tm.settle()
    tm.sh(["thinmgr", "volume", "check", "fs/bad"])
    tm.sh(["e2fsck", "-fy", pools.node("fs", "dirty")], check=False)
    tm.settle()
    tm.sh(["thinmgr", "volume", "check", "fs/dirty"])
    t.equal((reason("fs", "bad"), reason("fs", "dirty")), (None, None), "repaired, and replayed")
    pools.change("POST", "/v1/pools/fs/volumes/none/deactivate")
    refused(t, "fs", "none", "check", "wrong-state", ["not active"], "an inactive one")
    pools.destroy("fs")


def checked_by_itself(t):
    """Where the policy says so, what going back has left suspect is checked without being asked."""
    pools.create(t, "auto", 64, policy={
        "data": {"auto_extend": False}, "metadata": {"auto_extend": False}, "check_volumes": True})
    for name in ("fs", "raw"):
        pools.volume("auto", name, 24)
        if name == "fs":
            tm.sh(["mkfs.ext4", "-q", "-F", pools.node("auto", "fs")])
            tm.settle()
    pools.change("POST", "/v1/pools/auto/check", {"copy": True})
    [copy] = tm.items(pools.api("GET", "/v1/pools/auto/copies", expect=200).body)
    # Of a file system that nobody uses, blocks that hold nothing: it is sound without them.
    tm.sh(["dd", "if=/dev/urandom", f"of={pools.node('auto', 'fs')}", "bs=64k", "seek=360", "count=8", "oflag=direct",
           "conv=fsync,notrunc"])
    tm.write_pattern(pools.node("auto", "raw"), 4, 1)
    tm.settle()
    after = pools.last_seq()
    pools.change("POST", "/v1/pools/auto/restore-metadata", {"copy": copy["name"]})
    marked = {e["volume"]: e["data"]["reason"] for e in pools.events(after, type="volume-suspect")}
    t.equal(marked, {"fs": "restored", "raw": "restored"}, "suspect by going back")
    cleared = pools.wait_event("suspect-cleared", after)
    t.equal((cleared["volume"], cleared["data"]["by"]), ("fs", "check"), "the file system was checked, and is sound")
    said = pools.wait_event("operation-failed", after)
    t.check(said["data"]["kind"] == "volume-check" and "no file system" in said["message"], said)
    t.equal(reasons("auto"), {"fs": None, "raw": "restored"}, "what none can check stays suspect")
    pools.destroy("auto")


def run(t):
    for part in (no_space, nobody_there, in_time, read_only, checked, checked_by_itself):
        part(t)
        t.log(f"{part.__name__}: as it should be")
