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
    """Until the machine, which resets itself, is up as another boot."""
    end = time.monotonic() + limit
    why = "it goes on as it was"
    while time.monotonic() < end:
        time.sleep(1)
        try:
            t.vm.wait_up(30)
            now = t.call("boot_id", limit=30)
        except Exception as err:
            why = str(err)
            continue
        if now != before:
            return now
        if provoked.poll() is not None:
            break
    provoked.kill()
    t.log(f"what asked for it said: {provoked.stdout.read().decode(errors='replace')}")
    console = t.vm.console.read_text(errors="replace").splitlines()
    t.log("the end of the console:\n" + "\n".join(console[-30:]))
    raise tm.Failed(f"the machine did not reset within {limit} s: {why}")
