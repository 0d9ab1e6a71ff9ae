# SPDX-License-Identifier: GPL-2.0-or-later
"""The package as installed: the service runs confined, and every file is where it belongs."""

import grp
import os
import re
from pathlib import Path

import tm

SUITES = ["bookworm", "trixie"]
LIMIT = 240


def run(t):
    t.check(tm.active(), "thinmgrd is active after installation")
    t.equal(tm.sh(["systemctl", "is-enabled", "thinmgrd"]).out.strip(), "enabled", "the unit")
    pid = tm.main_pid()

    for name in ("thinmgr", "thinmgr-view"):
        t.check(grp.getgrnam(name), f"group {name}")

    listed = [Path(line) for line in tm.sh(["dpkg", "-L", "thinmgr"]).out.splitlines()]
    files = {p.name for p in listed if p.is_file()}
    for name in ("thinmgrd", "thinmgr", "thinmgrd.service", "thinmgrd.conf", "56-thinmgr.rules",
                 "org.thinmgr1.conf", "openapi.yaml"):
        t.check(name in files, f"{name} is in the package")
    # The machine keeps no documentation on its disk, but dpkg knows what was in the package.
    for page in ("README.md", "docs/guide.md", "docs/repair.md", "docs/errors.md"):
        t.check(Path("/usr/share/doc/thinmgr", page) in listed, f"{page} is in the package, and not compressed")
    t.check(Path("/usr/share/bash-completion/completions/thinmgr").exists(), "completion")
    for page in ("man8/thinmgrd.8", "man1/thinmgr.1", "man5/thinmgrd.conf.5"):
        found = list(Path("/usr/share/man").glob(f"{page}*"))
        t.check(found, f"manual page {page}")
    conffiles = tm.sh(["dpkg-query", "-W", "-f", "${Conffiles}", "thinmgr"]).out
    t.check("/etc/thinmgr/thinmgrd.conf" in conffiles, "thinmgrd.conf is kept when edited")
    t.check(tm.sh(["udevadm", "verify", "/usr/lib/udev/rules.d/56-thinmgr.rules"],
                  check=False).status in (0, 1), "udev rules readable")

    # Started by the package's own scripts, with the confinement its unit asks for.
    status = Path(f"/proc/{pid}/status").read_text()
    t.check(re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE), "no new privileges")
    t.check(re.search(r"^Seccomp:\s+2$", status, re.MULTILINE), "a system call filter")
    t.equal(os.readlink(f"/proc/{pid}/ns/mnt"), os.readlink("/proc/1/ns/mnt"),
            "the daemon sees the machine's own mounts")
    verify = tm.sh(["systemd-analyze", "--man=no", "verify", "thinmgrd.service"], check=False)
    t.check("thinmgrd" not in verify.err, f"the unit file is clean: {verify.err}")
    score = tm.sh(["systemd-analyze", "--no-pager", "security", "thinmgrd"], check=False).out
    t.log(score.strip().splitlines()[-1])
    show = tm.sh(["systemctl", "show", "thinmgrd", "-P", "StatusText", "-P", "MemoryCurrent"]).out
    t.log("status text and memory: " + " / ".join(show.split("\n")).strip(" /"))

    tm.restart()
    t.check(tm.main_pid() != pid, "a restart gives a new process")
    tm.restart(kill=True)
    t.log("came back after SIGKILL")
