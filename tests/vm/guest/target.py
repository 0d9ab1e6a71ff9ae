# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose thin-pool and thin targets are in use: "ours" (dm-thinmgr), or "stock", the distribution's.

Both register the same names, so only one of them is loaded at a time. use() changes over, within one
machine and as often as wanted, as long as no device is there.
"""

from __future__ import annotations

import re
from pathlib import Path

import tm

OURS = tm.HOME / "module" / "dm-thinmgr.ko"
MODULES = {"ours": "dm_thinmgr", "stock": "dm_thin_pool"}
# What ours uses of the kernel; modprobe would find these out for an installed module.
NEEDED = ("dm_mod", "dm_bufio", "dm_bio_prison", "dm_persistent_data")


def loaded(module: str) -> bool:
    """Whether a module is there, and done with its start. What is built in does not count."""
    try:
        return (Path("/sys/module") / module / "initstate").read_text().strip() == "live"
    except OSError:
        return False


def current() -> str | None:
    """Whose targets are in use: "ours", "stock", or None when neither is loaded."""
    found = [name for name, module in MODULES.items() if loaded(module)]
    if len(found) > 1:
        raise tm.Failed("the modules of both targets are loaded")
    return found[0] if found else None


def versions() -> dict[str, str]:
    """The targets that are registered, with their versions."""
    return {part[0]: part[1].removeprefix("v") for part in
            (line.split() for line in tm.sh(["dmsetup", "targets"]).out.splitlines()) if len(part) == 2}


def devices() -> list[str]:
    """Devices that use thin-pool or thin, in a live or a waiting table."""
    found = []
    for device in tm.dm_devices():
        tables = "".join(tm.sh(["dmsetup", "table", *slot, device.name], check=False).out
                         for slot in ([], ["--inactive"]))
        if re.search(r"^\d+ \d+ thin(-pool)? ", tables, re.MULTILINE):
            found.append(device.name)
    return found


def unload() -> None:
    """Neither target loaded. Fails, and changes nothing, while devices use one."""
    name = current()
    if name is None:
        return
    there = devices()
    if there:
        raise tm.Failed(f"the {name} targets cannot be unloaded, devices use them: {', '.join(there)}")
    tm.sh(["rmmod", MODULES[name]])
    if current() is not None:
        raise tm.Failed(f"{MODULES[name]} is still there after rmmod")


def use(name: str) -> None:
    """Have the targets of one of the two in use, the other's unloaded."""
    if name not in MODULES:
        raise tm.Failed(f"no such target: {name}")
    if current() == name:
        return
    unload()
    if name == "stock":
        tm.sh(["modprobe", "dm_thin_pool"])
    else:
        done = load_ours()
        if done.status != 0:
            raise tm.Failed(f"dm_thinmgr does not load: {done.err.strip()}\n" +
                            "\n".join(tm.sh(["dmesg"]).out.splitlines()[-5:]))
    if current() != name:
        raise tm.Failed(f"{MODULES[name]} was loaded, but the targets in use are {current()}")
    missing = {"thin-pool", "thin"} - set(versions())
    if missing:
        raise tm.Failed(f"{MODULES[name]} is loaded, but not registered: {', '.join(sorted(missing))}")


def load_ours(*parameters: str) -> tm.Result:
    """Load our module, whether or not that succeeds. Parameters as in "no_space_timeout=1"."""
    if not OURS.exists():
        raise tm.Failed(f"{OURS} is not there; a case that needs it says MODULE = True")
    tm.sh(["modprobe", "-a", *NEEDED])
    return tm.sh(["insmod", OURS, *parameters], check=False)
