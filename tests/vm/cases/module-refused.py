# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel, or the administrator, will not have our module: thinmgrd says so for as long as that
lasts, with what to do, and works with the distribution's targets.
"""

import os
from pathlib import Path

import pools
import target
import tm

SUITES = ["bookworm", "trixie"]
LIMIT = 240
OWN_BOOT = True  # what is signed is asked for until the next boot
MODULE = True

INSTALLED = Path("/lib/modules") / os.uname().release / "updates" / "dm-thinmgr.ko"
BLACKLIST = Path("/etc/modprobe.d/no-thinmgr.conf")
ENFORCE = Path("/sys/module/module/parameters/sig_enforce")


def install(content):
    INSTALLED.parent.mkdir(exist_ok=True)
    INSTALLED.write_bytes(content)
    tm.sh(["depmod", "-a"])


def fresh_start():
    """The daemon finds neither target loaded."""
    tm.sh(["systemctl", "stop", "thinmgrd"])
    target.unload()
    tm.sh(["systemctl", "start", "thinmgrd"])
    tm.wait_ready()


def said():
    return [line for line in tm.api("GET", "/v1/system", expect=200).body["degraded"] if "dm_thinmgr" in line]


def goes_on_without(t, *words):
    fresh_start()
    t.equal(target.current(), "stock", "the targets in use")
    about = tm.api("GET", "/v1/system", expect=200).body["kernel"]["target"]
    t.equal((about["module"], about["origin"]), ("dm_thin_pool", "distribution"), "and what is said of them")
    [line] = said()
    for word in words:
        t.check(word in line, f"{word!r} in {line!r}")
    t.log(line)
    t.equal(pools.create(t, "plain")["state"], "active", "a pool all the same")
    pools.destroy("plain")


def while_it_runs(t):
    """Which one is loaded is settled anew when none is there and a pool is activated, and why as well."""
    fresh_start()
    pools.create(t, "kept")
    for blacklist, current, lines in (("", "ours", 0), ("blacklist dm_thinmgr\n", "stock", 1), ("", "ours", 0)):
        BLACKLIST.write_text(blacklist)
        pools.change("POST", "/v1/pools/kept/deactivate")
        target.unload()
        pools.change("POST", "/v1/pools/kept/activate")
        t.equal((target.current(), len(said())), (current, lines), f"with {blacklist!r}")
    BLACKLIST.unlink()
    pools.destroy("kept")


def run(t):
    good = target.OURS.read_bytes()
    t.defer(tm.sh, ["depmod", "-a"])
    t.defer(tm.sh, ["rm", "-f", INSTALLED, BLACKLIST])
    t.defer(target.unload)  # ours, which is not signed, does not come back in this boot

    install(good)
    fresh_start()
    t.equal((target.current(), said()), ("ours", []), "one that is as it should be")
    while_it_runs(t)

    BLACKLIST.write_text("blacklist dm_thinmgr\n")
    goes_on_without(t, "blacklist", "modprobe.d")
    BLACKLIST.unlink()

    t.check(good.count(b" mod_unload ") == 1, "what the module says of the kernel it was built for")
    install(good.replace(b" mod_unload ", b" mod_unloaX "))
    goes_on_without(t, "Exec format error", "built for this kernel")

    install(good)
    ENFORCE.write_text("1\n")
    goes_on_without(t, "Key was rejected", "Secure Boot", "enrolled")
