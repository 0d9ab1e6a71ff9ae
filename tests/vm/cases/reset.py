# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine is reset while a volume is in use: all is back afterwards, synced data included."""

import tm

HOST = True
LIMIT = 400
POOL = "/srv/reset"


def prepare():
    tm.api("POST", "/v1/pools?wait=60", {
        "name": "reset", "backing": {"kind": "file", "directory": POOL}, "data_size": 128 << 20},
        expect=[200, 201])
    tm.api("POST", "/v1/pools/reset/volumes?wait=60", {"name": "vol", "size": 256 << 20},
           expect=[200, 201])
    tm.write_pattern("/dev/thinmgr/reset/vol", 32, seed=7)
    return tm.sh(["cat", "/proc/sys/kernel/random/boot_id"]).out


def verify():
    tm.wait_ready()
    tm.wait_for(lambda: tm.items(tm.api("GET", "/v1/pools/reset/volumes").body), 30, "the volume")
    tm.settle()
    tm.verify_pattern("/dev/thinmgr/reset/vol", 32, seed=7)
    suspended = [d.name for d in tm.dm_devices() if d.suspended]
    if suspended:
        raise tm.Failed(f"left suspended: {suspended}")
    return tm.sh(["cat", "/proc/sys/kernel/random/boot_id"]).out


def clean():
    tm.api("DELETE", "/v1/pools/reset?with_volumes=true&wait=60", expect=[200, 204])
    tm.assert_clean()
    return True


def run(t):
    first = t.call("prepare")
    t.reset()
    second = t.call("verify")
    t.check(first != second, "another boot")
    t.call("clean")
