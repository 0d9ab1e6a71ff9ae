# SPDX-License-Identifier: GPL-2.0-or-later
"""What udev makes of our devices: links for volumes, nothing for what lies below them."""

from pathlib import Path

import tm

SUITES = ["bookworm", "trixie"]
LIMIT = 240


def properties(node):
    text = tm.sh(["udevadm", "info", "-q", "property", node]).out
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def run(t):
    directory = t.scratch / "pool"
    tm.api("POST", "/v1/pools?wait=60", {
        "name": "nodes", "backing": {"kind": "file", "directory": str(directory)},
        "data_size": 128 << 20}, expect=[200, 201])
    t.defer(tm.api, "DELETE", "/v1/pools/nodes?with_volumes=true&wait=60", None, None, 60, [200, 204])
    tm.api("POST", "/v1/pools/nodes/volumes?wait=60", {"name": "one", "size": 256 << 20},
           expect=[200, 201])
    link = Path("/dev/thinmgr/nodes/one")
    t.check(link.is_block_device(), "the volume has its node as soon as the answer is there")

    tm.sh(["mkfs.ext4", "-q", "-U", "0f8a7e3c-5d5e-4d3c-9c0b-7a5f1c2b3d4e", str(link)], limit=120)
    tm.settle()
    seen = properties(link)
    t.equal(seen.get("ID_FS_TYPE"), "ext4", "the volume is scanned like any disk")
    t.check("/dev/disk/by-uuid/0f8a7e3c-5d5e-4d3c-9c0b-7a5f1c2b3d4e" in seen["DEVLINKS"],
            "a link by the file system's UUID")
    t.check(seen.get("SYSTEMD_READY", "1") == "1", "systemd may mount it")

    below = [d for d in tm.dm_devices(tm.PREFIX) if "-vol-" not in d.uuid]
    t.equal(len(below), 3, "pool, data and metadata device")

    def check_below():
        for device in below:
            hidden = properties(f"/dev/dm-{device.minor}")
            t.equal(hidden.get("SYSTEMD_READY"), "0", f"{device.name} is not for systemd")
            t.check(not any(key.startswith("ID_FS") for key in hidden), f"{device.name} is not scanned")
            t.check("/dev/disk/" not in hidden.get("DEVLINKS", ""), f"{device.name} has no other links")

    check_below()
    # What a new boot of udev, or an administrator, does must come out the same.
    tm.sh(["udevadm", "trigger", "--action=add", "--subsystem-match=block", "--settle"])
    t.check(link.is_block_device(), "the node after coldplug")
    t.equal(properties(link).get("ID_FS_TYPE"), "ext4", "the volume after coldplug")
    check_below()

    tm.api("PATCH", "/v1/pools/nodes/volumes/one?wait=60", {"name": "two"}, expect=200)
    renamed = link.with_name("two")
    tm.wait_for(lambda: renamed.is_block_device() and not link.exists(), 10, "the node's new name")
