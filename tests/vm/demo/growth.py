# SPDX-License-Identifier: GPL-2.0-or-later
"""The main job, narrated: a pool is kept from running out while a file system on it is filled.

Runs inside the machine, with the thinmgr command, mkfs, mount, busctl, the kernel log.
"""
from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from narration import claim, cli_json, events, kernel_log, run, say, service_runs, the_end, title, wait_for

POOL, VOLUME = "web", "data"
DIRECTORY = Path("/srv/web")
DEVICE = Path(f"/dev/thinmgr/{POOL}/{VOLUME}")
POINT = Path("/mnt/data")
BUS_LOG = Path("/run/demo-bus.log")
MIB = 1 << 20
FILES, FILE_MIB = 64, 16  # 1 GiB


class Content:
    """Random bytes from memory, different for every file, so that the disk is the only brake."""

    def __init__(self) -> None:
        self.base = os.urandom(2 * FILE_MIB * MIB)

    def of(self, number: int) -> memoryview:
        start = (number * 262147) % (FILE_MIB * MIB)  # a prime: no two files alike
        return memoryview(self.base)[start:start + FILE_MIB * MIB]


def bar(used: int, total: int, width: int = 30) -> str:
    full = used * width // total if total else 0
    return "#" * full + "-" * (width - full)


def write_files(content: Content) -> float:
    began = time.monotonic()
    shown = 0.0
    for number in range(FILES):
        with open(POINT / f"file-{number:03d}", "wb", buffering=0) as out:
            data = content.of(number)
            for at in range(0, len(data), 4 * MIB):
                out.write(data[at:at + 4 * MIB])
        if time.monotonic() - shown > 2 or number == FILES - 1:
            shown = time.monotonic()
            pool = cli_json("pool", "show", POOL)["data"]
            say(f"    {(number + 1) * FILE_MIB:5d} MiB written   pool "
                f"[{bar(pool['used'], pool['size'])}] {pool['used'] >> 20} of "
                f"{pool['size'] >> 20} MiB, extended {pool['extensions']} times")
    run("sync")
    return time.monotonic() - began


def verify_files(content: Content) -> int:
    wrong = 0
    for number in range(FILES):
        want = hashlib.md5(content.of(number), usedforsecurity=False).digest()
        got = hashlib.md5((POINT / f"file-{number:03d}").read_bytes(), usedforsecurity=False).digest()
        wrong += want != got
    return wrong


def main() -> int:
    began = time.monotonic()
    service_runs()
    with open(BUS_LOG, "wb") as log:
        monitor = subprocess.Popen(
            ["busctl", "monitor", "--match", "type='signal',interface='org.thinmgr1.Manager'"],
            stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for("busctl monitors the bus", lambda: b"onitoring" in BUS_LOG.read_bytes())
        story()
        # A signal is sent when its event is on disk: the last of them may still be under way.
        wait_for("the bus has told of the last extension", lambda: BUS_LOG.read_bytes().count(
            b"Member=Extended") >= sum(e["type"] == "extended" for e in events()))
    finally:
        monitor.terminate()
        monitor.wait()
    proof()

    return the_end(began, put_away)


def put_away() -> None:
    run("umount", str(POINT))
    run("thinmgr", "pool", "delete", POOL, "--with-volumes", "--yes")


def story() -> None:
    title("A pool of 256 MiB that may grow to 1.5 GiB, and a volume of 4 GiB in it")
    run("thinmgr", "pool", "create", POOL, "--directory", str(DIRECTORY), "--size", "256M",
        "--max", "1536M", "--metadata-size", "640K")
    run("thinmgr", "volume", "create", f"{POOL}/{VOLUME}", "--size", "4G")
    run("mkfs.ext4", "-q", str(DEVICE))
    POINT.mkdir(exist_ok=True)
    run("mount", str(DEVICE), str(POINT))
    run("thinmgr", "pool", "list")

    title("1 GiB of random files, written as fast as this machine can")
    content = Content()
    took = write_files(content)
    say(f"    {FILES * FILE_MIB / took:.0f} MiB/s, the last byte on disk after {took:.0f} s")

    title("Is all of it there? Unmount, forget the caches, mount again, compare")
    run("umount", str(POINT))
    Path("/proc/sys/vm/drop_caches").write_text("3\n")
    run("mount", str(DEVICE), str(POINT))
    wrong = verify_files(content)
    claim(f"{FILES} files, every checksum right", wrong == 0, f"{FILES - wrong} right, {wrong} wrong")


def proof() -> None:
    title("What thinmgrd did meanwhile, by itself")
    run("thinmgr", "pool", "show", POOL)
    run("thinmgr", "event", "list")
    seen = events()
    extended = [e["data"]["space"] for e in seen if e["type"] == "extended"]
    claim("at least three extensions of data", extended.count("data") >= 3,
          f"{extended.count('data')}")
    claim("at least one extension of metadata", extended.count("metadata") >= 1,
          f"{extended.count('metadata')}")
    claim("all of them made by the daemon alone",
          all(e["data"]["reason"] != "requested" for e in seen if e["type"] == "extended"))
    numbers = [e["seq"] for e in seen]
    claim("events are numbered without repeats", len(set(numbers)) == len(numbers))

    title("What the kernel says")
    log = kernel_log()
    errors = [line for line in log.splitlines()
              if re.search(r"I/O error|EXT4-fs error|Buffer I/O|lost .* write", line)]
    claim("no I/O error in the kernel log", not errors, "; ".join(errors[:3]))
    claim("never in out_of_data_space", "out-of-data-space" not in log and not any(
        e["type"] in ("out-of-space", "queueing") for e in seen))
    for line in log.splitlines():
        if "growing the" in line:
            say("    " + line)

    title("What the bus heard")
    bus = BUS_LOG.read_text(errors="replace")
    for member in ("LowSpace", "Extended"):
        count = len(re.findall(rf"Member={member}\b", bus))
        claim(f"{member} was seen by busctl", count > 0, f"{count} times")


if __name__ == "__main__":
    sys.exit(main())
