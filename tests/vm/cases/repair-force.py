# SPDX-License-Identifier: GPL-2.0-or-later
"""Repair by force: what is mounted of a pool and swapped to is taken off, and there again afterwards as it was, also
when thinmgrd is killed in between; and who cannot be made to let go is left alone, and named."""

import os
import shutil
from pathlib import Path

import metadata
import pools
import tm

LIMIT = 480
FAULT = Path("/run/thinlab-fault")
DROP_IN = Path("/run/systemd/system/thinmgrd.service.d/thinlab.conf")
UNIT = Path("/run/systemd/system/srv-thinlab.mount")
POOL = "forced"
# The directory has a space, which mountinfo escapes.
POINT = Path("/srv/thin lab")


def stop_writes():
    """The metadata device fails each write from here on, until it is made anew."""
    name = pools.dm_name(POOL, "_meta")
    line = tm.sh(["dmsetup", "table", name]).out.split()
    tm.sh(["dmsetup", "suspend", "--noflush", "--nolockfs", name])
    tm.sh(["dmsetup", "load", name, "--table", f"0 {line[1]} flakey {line[3]} {line[4]} 0 1 1 error_writes"])
    tm.sh(["dmsetup", "resume", name])


class Broken:
    """Breaks the pool each time in a place of its volume that was never written."""
    at = 0

    @classmethod
    def now(cls):
        stop_writes()
        cls.at += 16
        status = tm.sh(["dd", "if=/dev/zero", f"of={pools.node(POOL, 'raw')}", "bs=64k", f"seek={cls.at}", "count=4",
                        "oflag=direct", "conv=fsync"], check=False).status
        if status == 0:
            raise tm.Failed("a write that cannot be recorded succeeds")


def held():
    """What has to come back: mounts with all their options, and swap with its priority."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        word = line.split(" ")
        if word[4].startswith("/srv/"):
            found.append((word[3], word[4], word[5], *word[word.index("-") + 1:]))
    node = os.path.realpath(pools.node(POOL, "swap"))
    for line in Path("/proc/swaps").read_text().splitlines()[1:]:
        name, *_, priority = line.split()
        if name == node:
            found.append(("swap", priority))
    unit = tm.sh(["systemctl", "is-active", UNIT.name], check=False).out.strip()
    return [*sorted(found), unit]


def mount_ids():
    return sorted(line.split(" ")[0] for line in Path("/proc/self/mountinfo").read_text().splitlines()
                  if line.split(" ")[4].startswith("/srv/"))


def set_up(t):
    pools.create(t, POOL, 128, block_size=65536, policy={
        "data": {"auto_extend": False}, "metadata": {"auto_extend": False}, "repair": "force"})
    for name in ("fs", "unit", "swap", "raw"):
        pools.volume(POOL, name, 32)
    for name in ("fs", "unit"):
        tm.sh(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", pools.node(POOL, name)])
    tm.sh(["mkswap", pools.node(POOL, "swap")])
    tm.sh(["swapon", "-p", "7", pools.node(POOL, "swap")])
    t.defer(tm.sh, ["swapoff", pools.node(POOL, "swap")], False)
    # Ordered after thinmgrd, as such units are: it starts only once that is ready.
    UNIT.parent.mkdir(parents=True, exist_ok=True)
    UNIT.write_text(f"[Unit]\nAfter=thinmgrd.service\n[Mount]\nWhat={pools.node(POOL, 'unit')}\nWhere=/srv/thinlab\n"
                    "Type=ext4\nOptions=nodev\n")
    DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    DROP_IN.write_text(f"[Service]\nEnvironmentFile=-{FAULT}\nExecStartPost=/bin/rm -f {FAULT}\n")
    t.defer(tm.sh, ["systemctl", "daemon-reload"])
    t.defer(DROP_IN.unlink)
    t.defer(UNIT.unlink)
    tm.sh(["systemctl", "daemon-reload"])
    tm.sh(["systemctl", "start", UNIT.name])
    t.defer(tm.sh, ["systemctl", "stop", UNIT.name], False)
    POINT.mkdir(parents=True)
    t.defer(POINT.rmdir)
    tm.sh(["mount", "-o", "noatime,nosuid", pools.node(POOL, "fs"), str(POINT)])
    t.defer(tm.sh, ["umount", str(POINT)], False)
    return {path: tm.write_pattern(path, 2, number) for number, path in enumerate((POINT / "file", "/srv/thinlab/file"))}


def whole(t, files, before):
    """Mounted as before, with what was in it; in write mode."""
    t.equal(held(), before, "mounted and swapped to as before")
    for path, wanted in files.items():
        t.equal(tm.digest(path), wanted, str(path))
    tm.wait_for(lambda: pools.pool(POOL)["mode"] == "write", 30, "write mode")
    t.equal(pools.pool(POOL)["needs_check"], False, "needs_check")
    tm.write_pattern(POINT / "more", 1, 9)
    t.equal(list(Path("/run/thinmgr/released").glob("*")), [], "nothing is owed")


def by_itself(t, files, before):
    after = pools.last_seq()
    Broken.now()
    done = pools.wait_event("repaired", after, 60)
    t.log(done["message"])
    t.equal(done["data"]["left_off"], [], "nothing is left off")
    given = done["data"]["given_back"]
    for wanted in (f"fs is mounted at {POINT}", "unit is mounted at /srv/thinlab", "swap is in use as swap"):
        t.check(wanted in given, f"{wanted!r} in {given}")
    whole(t, files, before)


def in_the_way(t, files, before):
    """A process that has a volume open: nothing is touched before it has ended, then it goes on by itself."""
    after = pools.last_seq()
    ids = mount_ids()
    with open(pools.node(POOL, "raw"), "rb"):
        Broken.now()
        failed = pools.wait_event("repair-failed", after, 60)
        t.log(failed["message"])
        t.equal(failed["data"]["error"], "busy", failed["data"]["detail"])
        t.check(f"raw is open in process {os.getpid()} " in failed["data"]["detail"], failed["data"]["detail"])
        t.equal((mount_ids(), held()), (ids, before), "nothing was unmounted")
    pools.wait_event("repaired", after, 60)
    whole(t, files, before)


def used_file(t, files, before):
    """A process in a mount is found only on the way: what was taken off by then is given back."""
    after = pools.last_seq()
    with open(POINT / "file", "rb"):
        Broken.now()
        failed = pools.wait_event("repair-failed", after, 60)
        t.check(f"process {os.getpid()} " in failed["data"]["detail"], failed["data"]["detail"])
        t.equal(held(), before, "all is there")
    pools.wait_event("repaired", after, 60)
    whole(t, files, before)


def killed(t, files, before, point, status):
    """Asked for by hand, and killed in between."""
    FAULT.write_text(f"THINMGR_FAULT=kill:pool-repair:{point}\n")
    tm.restart()
    t.equal(FAULT.exists(), False, "the fault is armed once")
    pid = tm.main_pid()
    Broken.now()
    pools.api("POST", f"/v1/pools/{POOL}/repair", {"force": True}, expect=202)
    tm.wait_for(lambda: tm.main_pid() not in (0, pid), 90, "systemd starting thinmgrd again")
    tm.wait_ready()
    tm.wait_for(lambda: held() == before, 60, f"mounted as before: {before}")
    newest = tm.items(pools.api("GET", f"/v1/operations?pool={POOL}&limit=1", expect=200).body)[0]
    t.equal((newest["kind"], newest["status"]), ("pool-repair", status), "the operation")
    if status == "failed":  # undone; before it was taken down the pool is as broken as it was
        again = pools.api("POST", f"/v1/pools/{POOL}/repair?wait=120", {"force": True})
        t.equal(again.status, 200 if point.startswith("release") else 409, f"asked again: {again.body}")
    tm.wait_for(lambda: not list(Path("/run/thinmgr/released").glob("*")), 30, "nothing is owed")
    whole(t, files, before)


def node_of_fs(t, path):
    """A node of the metadata, not to be written to, without which volume fs loses something, and the pool not too much."""
    dev_id = pools.api("GET", f"/v1/pools/{POOL}/volumes/fs", expect=200).body["dev_id"]
    copy, mended = t.scratch / "copy", t.scratch / "mended"
    shutil.copyfile(path, copy)
    before = metadata.mapped(copy)
    for number in metadata.leaves(copy):
        was = metadata.get(copy, number)
        metadata.put(copy, number, bytes(metadata.BLOCK))
        shutil.copyfile(path, mended)
        if tm.sh(["thin_check", copy], check=False).status != 0 and \
                tm.sh(["thin_repair", "-i", copy, "-o", mended], check=False).status == 0:
            after = metadata.mapped(mended)
            if after.get(dev_id, 0) < before[dev_id] and sum(after.values()) * 2 > sum(before.values()):
                return number
        metadata.put(copy, number, was)
    raise tm.Failed(f"no node was found that maps blocks of fs: {before}")


def lost(t, before):
    """What lost blocks is not mounted again before somebody has looked at it; the rest is."""
    tm.write_pattern(pools.node(POOL, "raw"), 12, 3, offset_mib=16)
    os.sync()
    Broken.now()
    path = t.scratch / POOL / "metadata"
    metadata.put(path, node_of_fs(t, path), bytes(metadata.BLOCK))
    after = pools.last_seq()
    pools.change("POST", f"/v1/pools/{POOL}/repair", {"force": True})
    done = pools.wait_event("repaired", after)
    t.log(done["message"])
    worse = {v["volume"] for v in done["data"]["volumes"] if v["fate"] != "intact"}
    t.check("fs" in worse and "unit" not in worse, f"what is not intact: {worse}")
    t.equal({off["volume"] for off in done["data"]["left_off"]}, worse - {"raw"}, "left off")
    for off in done["data"]["left_off"]:
        t.log(f"{off['text']}: {off['reason']}")
        t.check("check what is on it" in off["reason"], off["reason"])
    t.equal(held(), [line for line in before if str(POINT.name) not in line[1].replace("\\040", " ")],
            "the rest is mounted as before")


def run(t):
    files = set_up(t)
    before = held()
    t.equal(len(before), 4, f"two mounts, swap and a unit: {before}")
    for part in (by_itself, in_the_way, used_file):
        part(t, files, before)
        t.log(f"{part.__name__}: as it should be")
    pools.policy(POOL, repair="manual")
    for point, status in (("release:after", "failed"), ("swap:after", "failed"), ("restore:before", "done")):
        killed(t, files, before, point, status)
        t.log(f"killed, {point}: as it should be")
    lost(t, before)
    t.log("lost: as it should be")
    tm.sh(["systemctl", "stop", UNIT.name])
    tm.sh(["swapoff", pools.node(POOL, "swap")])
    pools.change("POST", f"/v1/pools/{POOL}/deactivate")
    t.equal(tm.sh(["thin_check", t.scratch / POOL / "metadata"], check=False).status, 0, "thin_check")
