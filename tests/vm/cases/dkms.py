# SPDX-License-Identifier: GPL-2.0-or-later
"""The package thinmgr-dkms: installed, the module is built for the running kernel and loads; another
kernel's arrival builds it anew; removed, nothing of it stays.

An emulated machine takes minutes to compile it: make vm-check T=dkms
"""

import os
import re
import time
from pathlib import Path

import target
import tm

SUITES = ["bookworm", "trixie"]
LIMIT = 3000
IMAGE = "dkms"
OWN_BOOT = True
DEFAULT = False

BUILD = 1500  # seconds for the kernels there are, on a busy host
PACKAGE_FILE = "/root/thinmgr-dkms.deb"


def status():
    """What DKMS has built: {kernel release: state}."""
    return dict(re.findall(r"^thinmgr/\S+, (\S+), \w+: (\w+)", tm.sh(["dkms", "status"]).out, re.MULTILINE))


def used_mib():
    space = os.statvfs("/")
    return (space.f_blocks - space.f_bfree) * space.f_frsize >> 20


def timed(t, what, argv):
    began, before = time.monotonic(), used_mib()
    done = tm.sh(argv, limit=BUILD, check=False)
    if done.status != 0:
        t.log(done.out + done.err)
        for log in Path("/var/lib/dkms/thinmgr").rglob("make.log"):
            t.log(log.read_text()[-4000:])
    t.equal(done.status, 0, what)
    t.log(f"{what}: {time.monotonic() - began:.0f} s, {used_mib() - before} MiB")
    return done


def run(t):
    release = os.uname().release
    others = sorted(path.name for path in Path("/lib/modules").iterdir()
                    if path.name != release and (path / "build").exists())
    t.equal(len(others), 1, "other kernels with headers")

    # Not without what it depends on; with it, dpkg alone is enough.
    t.check("dkms" in tm.sh(["dpkg-deb", "-f", PACKAGE_FILE, "Depends"]).out, "it depends on dkms")
    timed(t, "installation", ["dpkg", "-i", PACKAGE_FILE])
    t.equal(status().get(release), "installed", f"its state for {release}")
    info = tm.sh(["modinfo", "dm-thinmgr"]).out
    field = dict(re.findall(r"^(\w+): +(.*)$", info, re.MULTILINE))
    t.check("/updates/dkms/dm-thinmgr.ko" in field["filename"], f"where it lies: {field['filename']}")
    t.equal(field["version"], tm.sh(["dpkg-query", "-W", "-f", "${Version}", "thinmgr-dkms"]).out, "version")
    t.check(field["vermagic"].startswith(release + " "), f"for this kernel: {field['vermagic']}")
    # With a key of this machine, made by DKMS, which an administrator can have the firmware accept.
    t.check(field.get("signer"), "it is signed")
    t.check(Path("/var/lib/dkms/mok.pub").exists(), "the key's public half is there to be enrolled")
    t.log(f"signed by: {field['signer']}")

    target.unload()
    tm.sh(["modprobe", "dm-thinmgr"])
    t.equal(target.current(), "ours", "the targets in use")
    for name in ("dm_persistent_data", "dm_bufio"):
        t.check(target.loaded(name), f"modprobe brought {name}")
    tm.sh(["rmmod", "dm_thinmgr"])

    # As the packages of kernels do it when they are installed. Debian 13 builds for all there are at
    # once, so that has to be taken away.
    if others[0] in status():
        tm.sh(["dkms", "remove", "-m", "thinmgr", "-v", field["version"], "-k", others[0]], limit=BUILD)
    t.equal(status(), {release: "installed"}, "built for")
    timed(t, f"for {others[0]}", ["run-parts", "--report", "--exit-on-error", "--arg", others[0],
                                  "/etc/kernel/header_postinst.d"])
    t.equal(status(), {release: "installed", others[0]: "installed"}, "built for")

    timed(t, "removal", ["dpkg", "--purge", "thinmgr-dkms"])
    t.equal(status(), {}, "built for")
    t.equal(list(Path("/lib/modules").rglob("dm-thinmgr*")), [], "modules that stay")
    t.check(not Path("/usr/src").joinpath(f"thinmgr-{field['version']}").exists(), "the sources are gone")
    t.check(tm.sh(["modprobe", "dm-thinmgr"], check=False).status != 0, "it cannot be loaded any more")
    target.use("stock")
