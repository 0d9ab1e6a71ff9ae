# SPDX-License-Identifier: GPL-2.0-or-later
"""Who holds block devices, and having them let go and take them again: tests/tools/holders.c on a real
kernel, with the rights of thinmgrd's service and no more. Linear devices stand for volumes."""

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import tm

SUITES = ["bookworm", "trixie"]
LIMIT = 400
DISKS = ["4G"]

MIB = 2048  # sectors
PLAN = "/run/thinlab-plan.json"
COMMAND = "/run/thinlab-command"
OUTPUT = "/run/thinlab-output"
UNIT = "thinlab-holders.service"
RIGHTS = ("CapabilityBoundingSet", "NoNewPrivileges", "ProtectHostname", "LockPersonality",
          "MemoryDenyWriteExecute", "RestrictRealtime", "RestrictSUIDSGID", "RestrictNamespaces",
          "RestrictAddressFamilies", "SystemCallArchitectures", "SystemCallFilter", "SystemCallErrorNumber")


def rights():
    """The daemon's, as lines of a unit."""
    text = Path("/lib/systemd/system/thinmgrd.service").read_text()
    return [line for line in text.splitlines() if line.split("=")[0] in RIGHTS]


class Lab:
    def __init__(self, t):
        self.t = t
        self.tool = t.tool("holders")
        limits = rights()
        t.check(len(limits) > 12, "the service limits what it may do")
        # What hangs in the kernel is left behind, as it is by the daemon.
        unit = ["[Unit]", "StartLimitIntervalSec=0", "[Service]", "Type=oneshot", "KillMode=process",
                "ExecStart=/bin/sh " + COMMAND, *limits]
        home = Path("/run/systemd/system")
        home.mkdir(parents=True, exist_ok=True)
        (home / UNIT).write_text("\n".join(unit) + "\n")
        t.defer(tm.sh, ["systemctl", "daemon-reload"])
        t.defer(tm.sh, ["systemctl", "reset-failed", UNIT], False)
        t.defer((home / UNIT).unlink)
        tm.sh(["systemctl", "daemon-reload"])

    def run(self, *args, limit=20):
        line = shlex.join([self.tool, *args])
        Path(COMMAND).write_text(f"export LIMIT={limit}\nexec {line} >{OUTPUT} 2>&1\n")
        Path(OUTPUT).unlink(missing_ok=True)
        done = tm.sh(["systemctl", "start", UNIT], check=False)
        if not os.path.exists(OUTPUT):
            raise tm.Failed(f"the tool did not start: {done.out}{done.err}")
        return tm.Result(done.status, Path(OUTPUT).read_text(), done.err)

    def find(self, *devices):
        done = self.run("find", *devices)
        self.t.equal(done.status, 0, f"find: {done.out}{done.err}")
        return json.loads(done.out)

    def texts(self, *devices):
        """What is said of all but the copies of mounts that systemd's own services have in theirs."""
        return sorted(holder["text"] for holder in self.find(*devices)
                      if not (holder["namespace"] and holder["comm"].startswith("systemd")))

    def release(self, *devices, wanted=None, limit=20):
        """All of them, or with `wanted` an error that says so."""
        done = self.run("release", PLAN, *devices, limit=limit)
        if wanted is None:
            self.t.equal((done.status, done.out), (0, ""), "release")
        else:
            self.t.check(done.status == 1 and wanted in done.out, f"{wanted!r} in {done.out!r}")
        return json.loads(Path(PLAN).read_text())

    def restore(self, wanted=None):
        done = self.run("restore", PLAN)
        if wanted is None:
            self.t.equal((done.status, done.out), (0, ""), "restore")
        else:
            self.t.check(done.status == 1 and wanted in done.out, f"{wanted!r} in {done.out!r}")

    def linear(self, name, start, length, disk=None):
        tm.sh(["dmsetup", "create", name, "--table",
               f"0 {length * MIB} linear {disk or self.t.disks[0]} {start * MIB}"])
        self.t.defer(tm.sh, ["dmsetup", "remove", "--retry", name], False)
        tm.settle()
        return f"/dev/mapper/{name}"

    def process(self, *args, ready=None, **more):
        if ready:
            Path(ready).unlink(missing_ok=True)
        process = subprocess.Popen(args, stderr=subprocess.DEVNULL, **more)
        self.t.defer(end, process)
        if ready:
            tm.wait_for(lambda: os.path.exists(ready), 20, f"{args[0]} begins")
        return process


def end(process):
    process.kill()
    process.wait()


def mount(device, point, *options):
    os.makedirs(point, exist_ok=True)
    tm.sh(["mount", *options, device, point])


def unmount(point):
    while tm.sh(["umount", point], check=False).status == 0:
        pass


def table(pid="self"):
    """What of a mount has to come back: all but its ids, device numbers and peer groups."""
    found = []
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        word = line.split(" ")
        dash = word.index("-")
        if word[4].startswith(("/srv/", "/mnt")):
            kinds = sorted(kind.split(":")[0] for kind in word[6:dash])
            found.append((word[3], word[4], word[5], kinds, *word[dash + 1:]))
    return sorted(found)


def kinds_apart(mounts):
    """Without the kind of propagation: a copy's peers are others than before."""
    return [(*mount[:3], *mount[4:]) for mount in mounts]


def holders_are_named(t, lab, base, upper, raw):
    there = ["/srv/a b", "/srv/bind"]
    inside = lab.process("unshare", "-m", "--propagation", "private", "sh", "-c",
                         f"mount -o strictatime {base} /mnt && touch /run/ready && exec sleep 1000",
                         ready="/run/ready")
    elsewhere = [f"mounted at {point} in the mount namespace of process {inside.pid} (sleep)"
                 for point in ["/mnt", *there]]
    t.equal(lab.texts(base), sorted([f"mounted at {point}" for point in there] + elsewhere), "mounts")
    t.equal(lab.texts(upper), ["below device vg-lv", "in use as swap, on device vg-lv"], "swap, stacked")
    with open(raw, "rb") as opened:
        opener = lab.process("sleep", "1000", stdin=opened)
    loop = tm.sh(["losetup", "-f", "--show", raw]).out.strip()
    t.defer(tm.sh, ["losetup", "-d", loop], False)
    found = lab.texts(raw)
    t.check(f"open in process {opener.pid} (sleep)" in found, f"the process in {found}")
    t.check(f"below device {os.path.basename(loop)}" in found, f"the loop device in {found}")
    process = next(h for h in lab.find(raw) if h["pid"] == opener.pid)
    t.check(process["unit"], f"the process's unit in {process}")
    return inside


def there_and_back(t, lab, base, upper, inside):
    before, before_inside = table(), table(inside.pid)
    busy = lab.process("sleep", "1000", cwd="/srv/a b/sub/deep")
    lab.release(base, upper, wanted=f"in use by process {busy.pid} (sleep)")
    t.check(os.path.ismount("/srv/a b"), "what is busy stays")
    lab.restore()
    t.equal(table(), before, "put back after all")
    t.equal(table(inside.pid), before_inside, "put back in the other namespace")
    end(busy)

    lab.release(base, upper)
    t.equal(lab.find(base), [], "nobody holds it")
    t.equal(lab.texts(upper), ["below device vg-lv"], "no swap on it")
    # The proof: it can go. It comes back with another number, and another has its old one.
    tm.sh(["dmsetup", "remove", os.path.basename(base)])
    lab.linear("other", 900, 8)
    lab.linear(os.path.basename(base), 0, 256)
    lab.restore()
    t.equal(table(), before, "mounted as before")
    t.equal(table(inside.pid), before_inside, "mounted as before in the other namespace")
    t.equal(Path("/srv/bind/mark").read_text(), "here", "the part of it that was mounted")
    t.check(re.search(r"\t7$", Path("/proc/swaps").read_text(), re.MULTILINE), "swap, at its priority")
    lab.restore()
    t.equal(table(), before, "nothing is mounted twice")


def in_the_way(t, lab, base):
    before = table()
    mount("none", "/srv/a b/sub/tmp", "-t", "tmpfs")
    lab.release(base, wanted="the mount at /srv/a b/sub/tmp")
    tm.sh(["umount", "/srv/a b/sub/tmp"])
    lab.restore()
    mount("none", "/srv/a b", "-t", "tmpfs")
    lab.release(base, wanted="another mount covers it")
    tm.sh(["umount", "/srv/a b"])
    lab.restore()
    t.equal(table(), before, "as before")


def links(t, lab, base):
    before = table()
    lab.release(base)
    os.rename("/srv/bind", "/srv/bond")
    os.symlink("/srv/bond", "/srv/bind")
    lab.restore(wanted="the mount point cannot be opened")
    os.unlink("/srv/bind")
    os.rename("/srv/bond", "/srv/bind")
    with tm.mounted(base, Path("/media")):
        os.rename("/media/sub", "/media/bus")
        os.symlink("/etc", "/media/sub")
    lab.restore(wanted="the directory in it cannot be opened")
    t.check(not os.path.ismount("/srv/bind"), "nothing is mounted there")
    with tm.mounted(base, Path("/media")):
        os.unlink("/media/sub")
        os.rename("/media/bus", "/media/sub")
    lab.restore()
    t.equal(table(), before, "as before")


def propagated(t, lab, base):
    """Copies that come and go with what they were copied from: one read-only, one locked by a user namespace."""
    tm.sh(["mount", "--make-shared", "/srv/a b"])
    tm.sh(["mount", "-o", "remount,bind,rw", "/srv/bind"])
    reader = lab.process("unshare", "-m", "--propagation", "slave", "sh", "-c",
                         "mount -o remount,bind,ro,nodev /srv/bind; touch /run/ready; exec sleep 1000",
                         ready="/run/ready")
    locked = lab.process("unshare", "-rm", "--propagation", "slave", "sh", "-c",
                         "touch /run/ready; exec sleep 1000", ready="/run/ready")
    before = [table(pid) for pid in ("self", reader.pid, locked.pid)]
    lab.release(base)
    t.equal(lab.find(base), [], "nobody holds it")
    lab.restore()
    t.equal(table(), before[0], "mounted as before")
    t.equal(kinds_apart(table(reader.pid)), kinds_apart(before[1]), "read-only where it was")
    t.equal(kinds_apart(table(locked.pid)), kinds_apart(before[2]), "where it was locked")
    end(reader)
    end(locked)


def units(t, lab, device):
    def state(name):
        return tm.sh(["systemctl", "is-active", name], check=False).out.strip()

    home = Path("/run/systemd/system")
    home.mkdir(parents=True, exist_ok=True)
    files = {"srv-u.mount": f"[Mount]\nWhat={device}\nWhere=/srv/u\nOptions=noatime\n",
             "thinlab-on-it.service": "[Unit]\nRequiresMountsFor=/srv/u\n[Service]\nExecStart=/bin/sleep 1000\n"
                                      "WorkingDirectory=/srv/u\n"}
    for name, text in files.items():
        (home / name).write_text(text)
        t.defer((home / name).unlink)
        t.defer(tm.sh, ["systemctl", "stop", name], False)
    tm.sh(["systemctl", "daemon-reload"])
    tm.sh(["systemctl", "start", "thinlab-on-it.service"])
    t.check("mounted at /srv/u" in lab.texts(device), "it is mounted")
    plan = lab.release(device)
    t.equal([(p["unit"], p["units"]) for p in plan if p["unit"]],
            [("srv-u.mount", ["thinlab-on-it.service"])], "the units")
    t.equal([state(name) for name in files], ["inactive", "inactive"], "both stopped")
    t.equal(lab.find(device), [], "nobody holds it")
    lab.restore()
    t.equal([state(name) for name in files], ["active", "active"], "both started")
    busy = lab.process("sleep", "1000", cwd="/srv/u")
    lab.release(device, wanted=f"process {busy.pid} (sleep)")
    end(busy)
    lab.restore()
    t.equal([state(name) for name in files], ["active", "active"], "both started again")


def hanging(t, lab, device):
    """Unmounting writes what is dirty, and the device takes nothing."""
    mount(device, "/srv/h")
    t.defer(unmount, "/srv/h")
    tm.sh(["dd", "if=/dev/zero", "of=/srv/h/file", "bs=1M", "count=8"])
    tm.sh(["dmsetup", "suspend", "--nolockfs", "--noflush", device])
    try:
        lab.release(device, wanted="within 2 s: it waits in the kernel", limit=2)
    finally:
        tm.sh(["dmsetup", "resume", device])
    tm.wait_for(lambda: not os.path.ismount("/srv/h"), 30, "unmounted after all")
    lab.restore()
    t.equal(lab.texts(device), ["mounted at /srv/h"], "mounted again")


def run(t):
    lab = Lab(t)
    base = lab.linear("base", 0, 256)
    lower = lab.linear("lower", 256, 64)
    raw = lab.linear("raw", 320, 64)
    of_unit = lab.linear("of-unit", 384, 128)
    stuck = lab.linear("stuck", 512, 128)
    for device in (base, of_unit, stuck):
        tm.sh(["mkfs.ext4", "-q", device])
    mount(base, "/srv/a b", "-o", "noatime,nosuid")
    t.defer(unmount, "/srv/a b")
    tm.sh(["mount", "--make-private", "/srv/a b"])
    os.makedirs("/srv/a b/sub/deep")
    Path("/srv/a b/sub/mark").write_text("here")
    mount("/srv/a b/sub", "/srv/bind", "--bind")
    t.defer(unmount, "/srv/bind")
    tm.sh(["mount", "-o", "remount,bind,ro,nodev", "/srv/bind"])
    upper = lab.linear("vg-lv", 0, 64, lower)
    tm.sh(["mkswap", upper])
    tm.sh(["swapon", "-p", "7", upper])
    t.defer(tm.sh, ["swapoff", upper], False)

    t.step("holders of every kind")
    inside = holders_are_named(t, lab, base, lower, raw)
    t.step("released, and put back")
    there_and_back(t, lab, base, lower, inside)
    t.step("a mount below, a mount over it")
    in_the_way(t, lab, base)
    t.step("links that lead elsewhere")
    links(t, lab, base)
    t.step("a namespace that has ended meanwhile")
    before = table()
    lab.release(base)
    end(inside)
    lab.restore()
    t.equal(table(), before, "the rest is put back")
    t.step("copies by propagation")
    propagated(t, lab, base)
    t.step("systemd's units")
    units(t, lab, of_unit)
    t.step("an unmount that hangs")
    hanging(t, lab, stuck)
    for path in (PLAN, COMMAND, OUTPUT):
        os.unlink(path)
