# SPDX-License-Identifier: GPL-2.0-or-later
"""Pools whose metadata broke are mended, or left as they were and said so: with real faults."""

import contextlib
import datetime
import errno
import os
import re
import shutil
import time
from pathlib import Path

import metadata
import pools
import runner
import tm

LIMIT = 1200
BLOCK_BYTES = 65536
MIB = 1 << 20


# ---- a pool, and how it is after ---------------------------------------------------------------

class Broken:
    """A pool with two volumes and known data, whose metadata a case then damages."""

    def __init__(self, t, name, repair="manual", **members):
        self.t = t
        self.name = name
        pools.create(t, name, 64, block_size=BLOCK_BYTES, policy={
            "data": {"auto_extend": False}, "metadata": {"auto_extend": False}, "repair": repair},
            **members)
        self.dir = Path(members.get("directory", t.scratch / name))
        self.path = self.dir / "metadata"
        for number, volume in enumerate(("one", "two")):
            tm.write_pattern(pools.volume(name, volume, 24), 20, number)
        self.ids = {v["name"]: v["dev_id"] for v in tm.items(pools.api(
            "GET", f"/v1/pools/{name}/volumes", expect=200).body)}
        self.before = None

    def down(self):
        pools.change("POST", f"/v1/pools/{self.name}/deactivate")
        self.before = metadata.mapped(self.path)

    def up(self):
        return pools.change("POST", f"/v1/pools/{self.name}/activate")

    def power_cut(self, damage):
        """As after the machine went down, and came up with damaged metadata."""
        tm.sh(["systemctl", "stop", "thinmgrd"])
        for role in ("one", "two", "_pool", "_data", "_meta"):
            tm.sh(["dmsetup", "remove", "--retry", pools.dm_name(self.name, role)])
        self.before = metadata.mapped(self.path)
        damage(self.path)
        broken = self.path.read_bytes()
        tm.sh(["systemctl", "start", "thinmgrd"])
        tm.wait_ready()
        return broken

    def mended(self, damage, lossless=True):
        """It is mended before anybody asks; its data is there, and what was is kept to the byte."""
        after = pools.last_seq()
        broken = self.power_cut(damage)
        report = self.report(after)
        self.t.equal([p.read_bytes() == broken for p in self.kept()], [True], "what was there is kept, to the byte")
        if lossless:
            self.t.equal(self.healthy(), self.before, "mappings")
        return report

    def repair(self, **more):
        return pools.change("POST", f"/v1/pools/{self.name}/repair", **more)

    def kept(self):
        return sorted((self.dir / "kept").glob("*-repair")) if (self.dir / "kept").exists() else []

    def end(self, after):
        """The event that says how a repair nobody asked for has ended."""
        return tm.wait_for(lambda: next((e for e in pools.events(after, pool=self.name)
                                         if e["type"] in ("repaired", "repair-failed")), None), 60, "an end of the repair")

    def report(self, after):
        return pools.wait_event("repaired", after)["data"]

    def healthy(self, lost=()):
        """In write mode, data there, metadata clean and no less than it was."""
        shown = pools.pool(self.name)
        self.t.equal((shown["state"], shown["mode"], shown["needs_check"]), ("active", "write", False), self.name)
        for number, volume in enumerate(("one", "two")):
            if volume not in lost:
                tm.verify_pattern(pools.node(self.name, volume), 20, number)
        pools.change("POST", f"/v1/pools/{self.name}/deactivate")
        self.t.equal(tm.sh(["thin_check", self.path], check=False).status, 0, "thin_check")
        found = metadata.mapped(self.path)
        self.up()
        return found


def flagged(t):
    """Only needs_check is set: nothing is lost, and what was there is kept."""
    b = Broken(t, "flag")
    b.down()
    metadata.set_needs_check(b.path)
    broken = b.path.read_bytes()
    b.up()
    shown = pools.pool("flag")
    t.equal((shown["mode"], shown["needs_check"]), ("read_only", True), "with the flag")
    after = pools.last_seq()
    b.repair()
    report = b.report(after)
    t.equal(report["verdict"], "accept", report["text"])
    t.equal({v["volume"]: (v["fate"], v["lost"]) for v in report["volumes"]},
            {"one": ("intact", 0), "two": ("intact", 0)}, "volumes")
    t.equal([p.read_bytes() == broken for p in b.kept()], [True], "what was there is kept, to the byte")
    t.equal(b.healthy(), b.before, "mappings")
    again = pools.api("POST", "/v1/pools/flag/repair")
    t.equal((again.status, again.body["type"]), (409, "urn:thinmgr:error:wrong-state"), "a repair of a healthy pool")


def stop_writes(pool):
    """The metadata device fails each write from here on, until it is made anew."""
    name = pools.dm_name(pool, "_meta")
    line = tm.sh(["dmsetup", "table", name]).out.split()
    tm.sh(["dmsetup", "suspend", "--noflush", "--nolockfs", name])
    tm.sh(["dmsetup", "load", name, "--table", f"0 {line[1]} flakey {line[3]} {line[4]} 0 1 1 error_writes"])
    tm.sh(["dmsetup", "resume", name])


def provoke(pool):
    """A write that needs new metadata, which fails."""
    return tm.sh(["dd", "if=/dev/zero", f"of={pools.node(pool, 'one')}", "bs=64k", "seek=340", "count=4",
                  "oflag=direct", "conv=fsync"], check=False).status


def write_error(t):
    """The metadata device stops taking writes while the pool is used, and is replaced."""
    b = Broken(t, "werr")
    after = pools.last_seq()
    stop_writes("werr")
    t.check(provoke("werr") != 0, "a write that cannot be recorded fails")
    pools.wait_event("mode-changed", after)
    t.equal(pools.pool("werr")["mode"], "read_only", "mode")
    b.repair()
    b.healthy()


def by_itself(t):
    """A volume is mounted when it happens: nothing is touched, then repaired within a second of the umount."""
    b = Broken(t, "self", repair="when_idle")
    bus = runner.load("extend").Bus(t.scratch / "bus")
    t.defer(bus.close)
    tm.wait_for(bus.listening, 15, "busctl listening")
    pools.volume("self", "fs", 16)
    tm.sh(["mkfs.ext4", "-q", pools.node("self", "fs")])
    with tm.mounted(pools.node("self", "fs"), t.scratch / "mnt"):
        wanted = tm.write_pattern(t.scratch / "mnt/file", 2, 7)
        after = pools.last_seq()
        with open(pools.node("self", "two"), "rb"):
            stop_writes("self")
            provoke("self")
            waits = pools.wait_event("repair-waits", after)
        t.log(waits["message"])
        held = {(h["kind"], h["volume"], h["mount_point"] or h["pid"]) for h in waits["data"]["holders"]}
        t.equal(held, {("mount", "fs", str(t.scratch / "mnt")), ("process", "two", os.getpid())}, "who holds it")
        tm.wait_for(lambda: any(name == "RepairWaits" and str(t.scratch / "mnt") in said[2]
                                for name, said in bus.signals()), 30, "the same on the system bus")
        busy = pools.api("POST", "/v1/pools/self/repair?wait=60").body
        t.equal(busy["type"], "urn:thinmgr:error:busy", "asked for")
        t.check(str(t.scratch / "mnt") in busy["detail"], busy["detail"])
        t.equal(tm.digest(t.scratch / "mnt/file"), wanted, "the file, still mounted")
        tm.wait_for(lambda: {(h["kind"], h["volume"], h["mount_point"]) for h in pools.pool("self")["repair_waits_for"] or ()}
                    == {("mount", "fs", str(t.scratch / "mnt"))}, 30, "the pool's document says who still holds it")
        t.log(str(pools.pool("self")["repair_waits_for"]))
        shown = tm.sh(["thinmgr", "pool", "show", "self"]).out
        t.check(re.search(rf"Repair waits: .*\n.*fs is mounted at {t.scratch / 'mnt'}", shown), shown)
        still_held = pools.last_seq()
    let_go = time.time()
    started = pools.wait_event("repair-started", still_held)
    moment = datetime.datetime.fromisoformat(started["time"].replace("Z", "+00:00")).timestamp()
    t.log(f"the repair began {moment - let_go:+.2f} s from the end of the last umount")
    done = pools.wait_event("repaired", after)
    begun = [o for o in tm.items(pools.api("GET", "/v1/operations?pool=self", expect=200).body)
             if o["kind"] == "pool-repair"]
    t.equal([o["status"] for o in begun], ["done", "failed"], "one repair, once it was not mounted")
    t.log(done["message"])
    t.equal(pools.pool("self")["repair_waits_for"], None, "nobody is waited for")
    with tm.mounted(pools.node("self", "fs"), t.scratch / "mnt"):
        t.equal(tm.digest(t.scratch / "mnt/file"), wanted, "the file, mounted again")
    b.healthy()


def failed(t):
    """What was committed cannot be read either, so the pool fails altogether; then its disk comes back."""
    b = Broken(t, "fails", repair="when_idle")
    with open(pools.node("fails", "two"), "rb"):
        stop_writes("fails")
        # Where the counts of metadata blocks are: read again when a transaction is taken back.
        index = metadata.space_map(b.path)
        was = metadata.get(b.path, index)
        metadata.put(b.path, index, bytes(metadata.BLOCK))
        t.check(provoke("fails") != 0, "a write that cannot be recorded fails")
        tm.wait_for(lambda: pools.pool("fails")["mode"] == "fail", 30, "mode fail")
        # Who wants to go back to a copy instead says so now: that must not make it worse.
        for repair in ("manual", "when_idle"):
            pools.change("PATCH", "/v1/pools/fails/policy", {"repair": repair})
        found = pools.pool("fails")
        t.equal((found["state"], found["policy"]["repair"]), ("active", "when_idle"), "a new policy while it is broken")
        metadata.put(b.path, index, was)
        os.sync()
        after = pools.last_seq()
    ended = b.end(after)
    t.equal((ended["type"], ended["data"].get("verdict")), ("repaired", "accept"), ended["message"])
    b.healthy()


def wrong_bit(path):
    """Of the space map, so that its block's checksum is wrong, too."""
    index = metadata.space_map(path)
    number = int.from_bytes(metadata.get(path, index)[16:24], "little")
    data = metadata.get(path, number)
    data[1000] ^= 4
    metadata.put(path, number, data)


def at_start(t):
    """Found damaged when the daemon brings it up: mended before anybody asks."""
    for name, damage in (("use", metadata.forget_use), ("bit", wrong_bit)):
        b = Broken(t, name, repair="when_idle")
        report = b.mended(damage)
        t.equal(report["verdict"], "accept", report["text"])


def destroy_leaf(path):
    for number in metadata.leaves(path):
        was = metadata.get(path, number)
        metadata.put(path, number, bytes(metadata.BLOCK))
        if tm.sh(["thin_check", path], check=False).status != 0:
            return
        metadata.put(path, number, was)  # one of a tree that is no more
    raise tm.Failed("no node was found that is in use")


def node(t):
    """A node of a volume's tree is destroyed: what was below it is lost, said, and nothing else."""
    b = Broken(t, "node", repair="when_idle")
    after = pools.last_seq()
    broken = b.power_cut(destroy_leaf)
    ended = b.end(after)
    t.log(ended["message"])
    if ended["type"] == "repair-failed":  # more than half would be gone
        t.check(b.path.read_bytes() == broken, "refused: as it was")
        t.equal((b.kept(), (b.dir / "metadata.new").exists()), ([], False), "nothing left behind")
        refused = pools.api("POST", "/v1/pools/node/activate?wait=60").body
        t.equal(refused["type"], "urn:thinmgr:error:damaged", "activation of what is damaged")
        return
    report = ended["data"]
    t.log(report["text"])
    marked = {v["name"]: v["suspect"] and v["suspect"]["reason"] for v in tm.items(pools.api(
        "GET", "/v1/pools/node/volumes", expect=200).body)}
    t.equal(marked, {v["volume"]: None if v["fate"] == "intact" else "repaired" for v in report["volumes"]},
            "volumes that lost something are suspect, the others not")
    found = b.healthy(lost=[v["volume"] for v in report["volumes"] if v["fate"] != "intact"])
    for v in report["volumes"]:
        t.equal(v["after"], found.get(v["dev_id"], 0) * BLOCK_BYTES, f"what {v['volume']} has left")
        t.equal(v["lost"], (b.before[v["dev_id"]] - found.get(v["dev_id"], 0)) * BLOCK_BYTES, f"what {v['volume']} lost")


def superblock(t):
    """What only the superblock says is known from the record; thin_repair finds the rest, or falls over it."""
    b = Broken(t, "super", repair="when_idle")
    pools.change("POST", "/v1/pools/super/check", {"copy": True})
    after = pools.last_seq()
    broken = b.power_cut(lambda path: metadata.put(path, 0, bytes(metadata.BLOCK)))
    ended = b.end(after)
    t.log(ended["message"])
    if ended["type"] == "repair-failed":
        t.check(b.path.read_bytes() == broken, "refused: as it was")
        t.equal((b.kept(), (b.dir / "metadata.new").exists()), ([], False), "nothing left behind")
        return
    # Neither the metadata nor a sample of this life says what there was, but the safety copy does, as of its time.
    report = ended["data"]
    t.equal((report["verdict"], {v["volume"]: (v["fate"], v["before"], v["lost"]) for v in report["volumes"]}),
            ("accept_losses", {v: ("unknown", 20 * MIB, 0) for v in ("one", "two")}), report["text"])
    t.check(all("safety copy" in v["text"] for v in report["volumes"]), report)
    t.equal([p.read_bytes() == broken for p in b.kept()], [True], "what was there is kept, to the byte")
    t.equal(b.healthy(), b.before, "mappings")


def cut_short(t):
    """A metadata file of which the end is missing, where little was."""
    b = Broken(t, "short", repair="when_idle")
    size = b.path.stat().st_size
    report = b.mended(lambda path: os.truncate(path, size // 2))
    t.log(report["text"])
    t.equal(b.path.stat().st_size, size, "as long as it was")


def beyond_help(t):
    """Nothing can be saved: it is left as it was, to the byte, and that is said."""
    b = Broken(t, "beyond", repair="when_idle")
    after = pools.last_seq()
    earlier = []

    def wipe(path):
        earlier.append(path.read_bytes())
        path.write_bytes(bytes(path.stat().st_size))

    broken = b.power_cut(wipe)
    failed = pools.wait_event("repair-failed", after, pool="beyond")
    t.log(failed["message"])
    t.check("no earlier copy" in failed["data"]["hint"], failed["data"])
    t.check(b.path.read_bytes() == broken, "the metadata is as it was")
    t.equal((b.kept(), (b.dir / "metadata.new").exists()), ([], False), "nothing left behind")

    # With a copy, the answer says which, and how to go back to it.
    copy = b.dir / "kept" / "20260102T030405Z-repair"
    copy.write_bytes(earlier[0])
    answer = pools.api("POST", "/v1/pools/beyond/repair?wait=60").body
    t.check(f"restore-metadata beyond {copy.name}" in answer["hint"] and str(copy) in answer["hint"], answer)
    tm.sh(["thinmgr", "pool", "restore-metadata", "--yes", "beyond", copy.name])
    b.up()
    t.equal(b.healthy(), b.before, "mappings, back from the copy")


def space_map(t):
    """The space map is wrong: it is made anew, and nothing is lost."""
    b = Broken(t, "bits")
    b.down()
    metadata.forget_use(b.path)
    t.check(tm.sh(["thin_check", b.path], check=False).status != 0, "thin_check sees it")
    after = pools.last_seq()
    b.repair()
    b.up()
    report = b.report(after)
    t.equal(report["verdict"], "accept", report["text"])
    t.equal(b.healthy(), b.before, "mappings")


def full(t):
    """Metadata is used up, and nobody may extend it: it comes back, and with more of it."""
    b = Broken(t, "full", repair="when_idle", metadata_size=256 << 10)
    was = pools.pool("full")["metadata"]["size"]
    with open(pools.node("full", "one"), "r+b", buffering=0) as device:
        for number in range(200):
            made = pools.api("POST", "/v1/pools/full/snapshots?wait=60",
                             {"snapshots": [{"volume": "one", "name": f"s{number}"}]})
            if made.status != 200:
                t.log(f"after {number} snapshots: {made.body['detail']}")
                break
            for at in range(0, 20, 5):  # shared by now, so each write needs metadata
                device.seek(at * MIB)
                content = device.read(4096)
                device.seek(at * MIB)
                try:
                    device.write(content)
                    os.fsync(device.fileno())
                except OSError:
                    break
        else:
            raise tm.Failed("the metadata is never used up")
        shown = pools.pool("full")
        t.check(shown["mode"] != "write", f"mode {shown['mode']}")
        t.equal(shown["needs_check"], True, "needs_check")
        after = pools.last_seq()
    t.equal(b.end(after)["type"], "repaired", "once nobody uses it")
    shown = pools.pool("full")
    t.equal((shown["mode"], shown["needs_check"]), ("write", False), "after")
    t.check(shown["metadata"]["size"] > was, f"metadata of {was} bytes became {shown['metadata']['size']}")
    b.healthy()


@contextlib.contextmanager
def instead_of(tool, script):
    """Something else is found under the tool's name, or nothing."""
    found = Path(shutil.which(tool))
    away = found.with_name(f"{tool}.away")
    found.rename(away)
    try:
        if script:
            found.write_text(f"#!/bin/sh\n{script}\n")
            found.chmod(0o755)
        yield
    finally:
        away.replace(found)


def tools(t):
    """Without a tool that does its work nothing is changed, and what is wrong with it is said."""
    b = Broken(t, "tools")
    b.down()
    metadata.forget_use(b.path)
    broken = b.path.read_bytes()
    conf = Path("/etc/thinmgr/thinmgrd.conf.d/repair-case.conf")
    t.defer(conf.unlink, True)
    conf.write_text("[repair]\ntool_limit=1s\n")
    tm.restart()
    works = 'case "$*" in *version*) echo 1.0.6; exit;; esac; '
    for tool in ("thin_repair", "thin_check"):
        for script, slug, word in ((None, "tool-missing", "thin-provisioning-tools"),
                                   ("echo 0.2.1", "tool-missing", "0.9"),
                                   (works + "exec sleep 1000", "timeout", "killed"),
                                   (works + "kill -9 $$", "tool-failed", "signal 9")):
            with instead_of(tool, script):
                answer = pools.api("POST", "/v1/pools/tools/repair?wait=60").body
            t.equal(answer["type"], f"urn:thinmgr:error:{slug}", f"{tool}, {script}: {answer['detail']}")
            t.check(word in answer["detail"] + answer.get("hint", ""), f"{word!r} in {answer}")
            t.check(b.path.read_bytes() == broken, "the metadata is as it was")
            t.equal((b.kept(), (b.dir / "metadata.new").exists()), ([], False), "nothing left behind")
    # One that says that all is well, and has saved nothing.
    with instead_of("thin_repair", works + "exit 0"):
        answer = pools.api("POST", "/v1/pools/tools/repair?wait=60").body
    t.equal(answer["type"], "urn:thinmgr:error:damaged", answer["detail"])
    t.check(b.path.read_bytes() == broken, "the metadata is as it was")
    conf.unlink()
    tm.restart()
    b.repair()
    b.up()
    b.healthy()


def no_room(t):
    """There is no room for new metadata beside the old."""
    point = t.scratch / "small"
    image = t.scratch / "small.img"
    tm.sh(["truncate", "-s", "160M", image])
    tm.sh(["mkfs.ext4", "-q", image])
    with tm.mounted(image, point, "-o", "loop"):
        b = Broken(t, "room", directory=point / "room")
        b.down()
        metadata.forget_use(b.path)
        broken = b.path.read_bytes()
        filler = point / "filler"
        spare = b.dir / "metadata.spare"
        spare.unlink()  # what was set aside for this
        room = os.statvfs(point)
        tm.sh(["fallocate", "-l", str(room.f_bavail * room.f_frsize - 256 * 1024), filler])
        answer = pools.api("POST", "/v1/pools/room/repair?wait=60").body
        t.equal(answer["type"], "urn:thinmgr:error:no-space", answer["detail"])
        t.check(b.path.read_bytes() == broken, "the metadata is as it was")
        t.equal((b.kept(), (b.dir / "metadata.new").exists()), ([], False), "nothing left behind")
        filler.unlink()
        b.repair()
        b.up()
        b.healthy()
        pools.destroy("room")


def set_aside(t):
    """Others have filled the file system to the last block: a repair has its own room."""
    point = t.scratch / "filled"
    image = t.scratch / "filled.img"
    tm.sh(["truncate", "-s", "160M", image])
    tm.sh(["mkfs.ext4", "-q", image])
    with tm.mounted(image, point, "-o", "loop"):
        b = Broken(t, "filled", directory=point / "filled")
        spare, filler = b.dir / "metadata.spare", point / "filler"
        tm.wait_for(spare.exists, 30, "room is set aside")
        size = spare.stat().st_size
        t.check(size >= b.path.stat().st_size, f"enough for a repair: {size}")
        t.equal(spare.stat().st_blocks * 512, size, "allocated, all of it")
        b.down()
        metadata.forget_use(b.path)
        tm.sh(["dd", "if=/dev/zero", f"of={filler}", "bs=64k", "status=none"], check=False)
        with filler.open("ab", buffering=0) as file:  # what is less than 64 KiB
            try:
                while True:
                    file.write(bytes(4096))
            except OSError as err:
                t.equal(err.errno, errno.ENOSPC, "full")
        # One that fails does not use it up.
        with instead_of("thin_repair", 'case "$*" in *version*) echo 1.0.6; exit;; esac; exit 1'):
            answer = pools.api("POST", "/v1/pools/filled/repair?wait=60").body
        t.equal(answer["type"], "urn:thinmgr:error:damaged", answer["detail"])
        t.check(spare.exists() and spare.stat().st_size >= b.path.stat().st_size, "what it took is set aside again")
        b.repair()
        b.up()
        b.healthy()
        t.check(not spare.exists(), "it was what the repair used")
        filler.unlink()
        pools.change("POST", "/v1/pools/filled/deactivate")
        pools.change("POST", "/v1/pools/filled/activate")
        tm.wait_for(lambda: spare.exists() and spare.stat().st_size >= size, 30, "room is set aside again")
        pools.destroy("filled")
        t.check(not b.dir.exists(), "nothing of it is left")


def gone(t):
    """Without its metadata file there is nothing to repair: said, and repaired once it is back."""
    b = Broken(t, "gone")
    b.down()
    metadata.set_needs_check(b.path)
    away = b.path.rename(t.scratch / "gone.metadata")
    answer = pools.api("POST", "/v1/pools/gone/repair?wait=60").body
    t.equal(answer["type"], "urn:thinmgr:error:backing-gone", answer["detail"])
    t.check(str(b.path) in answer["detail"], answer["detail"])
    t.equal((b.kept(), b.path.exists()), ([], False), "nothing was made")
    away.rename(b.path)
    b.repair()
    b.up()
    b.healthy()


def run(t):
    for part in (flagged, write_error, node, superblock, cut_short, beyond_help, space_map, by_itself, failed, at_start, full,
                 tools, no_room, set_aside, gone):
        part(t)
        for shown in tm.items(pools.api("GET", "/v1/pools", expect=200).body):
            pools.destroy(shown["name"])  # each start of the daemon would bring it up
        t.log(f"{part.__name__}: as it should be")
