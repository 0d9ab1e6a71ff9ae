# SPDX-License-Identifier: GPL-2.0-or-later
"""Resets of the machine at a step of an operation, for cases that run on the host.

The daemon arms the fault from a drop-in below /run, which the reset takes away.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import crashlab
import tm

FAULT = Path("/run/systemd/system/thinmgrd.service.d/fault.conf")


# ---- in the machine ------------------------------------------------------------------------------

def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def arm(point: str) -> dict:
    """The state before, with the machine to be reset at KIND:STEP:before|after."""
    before = crashlab.state()
    FAULT.parent.mkdir(parents=True, exist_ok=True)
    FAULT.write_text(f"[Service]\nEnvironment=THINMGR_FAULT=reset:{point}\n")
    tm.sh(["systemctl", "daemon-reload"])
    os.sync()  # what was prepared is not what is tried
    tm.sh(["systemctl", "restart", "thinmgrd"])
    tm.wait_ready()
    return before


# ---- on the host ---------------------------------------------------------------------------------

def wait_booted(t: Any, before: str, provoked: subprocess.Popen, limit: float = 600) -> str:
    """Until the machine, which resets itself, is up as another boot. Nothing is asked of it before QEMU tells of
    the reset: a new connection would cut off the one in which `provoked` is about to cause it."""
    end = time.monotonic() + limit
    why = "it goes on as it was"
    while t.vm.resets() == t.vm.resets_when_up and time.monotonic() < end:
        time.sleep(0.2)
        if provoked.poll():  # it failed, or the reset has just cut it off
            end = min(end, time.monotonic() + 10)
            why = f"what asked for it ended with status {provoked.returncode}"
    if t.vm.resets() != t.vm.resets_when_up:
        t.vm.wait_up(limit)
        now = t.call("boot_id", limit=60)
        if now != before:
            return now
        why = "it is the same boot"
    provoked.kill()
    t.log(f"what asked for it said: {provoked.stdout.read().decode(errors='replace')}")
    console = t.vm.console.read_text(errors="replace").splitlines()
    t.log("the end of the console:\n" + "\n".join(console[-30:]))
    raise tm.Failed(f"the machine did not reset within {limit:g} s: {why}")
