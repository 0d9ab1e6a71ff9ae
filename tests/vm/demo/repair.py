# SPDX-License-Identifier: GPL-2.0-or-later
"""Metadata fills up, the pool breaks, and comes back by itself: repaired, with more metadata, writing.

Runs inside the machine, with the thinmgr command, mkfs, mount, thin_check, dd.
"""
from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

from narration import claim, cli_json, events, run, say, service_runs, the_end, title, wait_for

POOL, VOLUME = "web", "data"
DIRECTORY = Path("/srv/web")
DEVICE = Path(f"/dev/thinmgr/{POOL}/{VOLUME}")
POINT = Path("/mnt/data")

MIB = 1 << 20
FILES, FILE_MIB = 16, 4


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def shown() -> dict:
    return cli_json("pool", "show", POOL)


def seen(kind: str) -> dict | None:
    return next((e for e in events() if e["type"] == kind), None)


def main() -> int:
    began = time.monotonic()
    service_runs()

    title("A pool whose metadata nobody may extend: 256 KiB of it")
    run("thinmgr", "pool", "create", POOL, "--directory", str(DIRECTORY), "--size", "256M",
        "--metadata-size", "256K", "--metadata-auto-extend", "no")
    run("thinmgr", "volume", "create", f"{POOL}/{VOLUME}", "--size", "512M")
    run("mkfs.ext4", "-q", str(DEVICE))
    POINT.mkdir(exist_ok=True)
    run("mount", str(DEVICE), str(POINT))
    wanted = {}
    for number in range(FILES):
        path = POINT / f"file-{number:02d}"
        path.write_bytes(os.urandom(FILE_MIB * MIB))
        wanted[path.name] = digest(path)
    run("sync")
    before = shown()
    say(f"    {FILES * FILE_MIB} MiB in {FILES} files are safely on disk")

    title("Snapshots, each with changes after it, until no metadata is left")
    taken = fill()
    say(f"    {taken} snapshots were taken")
    wait_for("the pool is read-only", lambda: shown()["mode"] != "write")
    broken = shown()
    run("thinmgr", "pool", "show", POOL)
    claim("the kernel made the pool read-only and wants a check",
          broken["mode"] == "read_only" and broken["needs_check"], f"mode {broken['mode']}")

    title("The volume is mounted: nothing is touched, and who is in the way is said")
    wait_for("the event", lambda: seen("repair-waits"))
    say("    " + seen("repair-waits")["message"])
    claim("it names the mount point", str(POINT) in seen("repair-waits")["message"])
    claim("what is there can still be read", digest(POINT / "file-00") == wanted["file-00"])

    title("It is unmounted. Nobody does anything else")
    run("umount", str(POINT))
    let_go = time.monotonic()
    wait_for("the repair has begun", lambda: seen("repair-started") or seen("repaired"), 60)
    say(f"    it had begun {time.monotonic() - let_go:.1f} s after the umount, as this command saw it")
    wait_for("the pool writes again", lambda: shown()["mode"] == "write", 60)
    report = seen("repaired")
    say("    " + report["message"] + " " + report["data"]["text"])
    after = shown()
    run("thinmgr", "pool", "show", POOL)
    claim("it is in mode write, without needs_check", after["mode"] == "write" and not after["needs_check"])
    claim("its metadata is larger", after["metadata"]["size"] > before["metadata"]["size"],
          f"{before['metadata']['size'] >> 10} KiB, now {after['metadata']['size'] >> 10} KiB")
    claim("nothing was lost", report["data"]["verdict"] == "accept")
    kept = sorted((DIRECTORY / "kept").iterdir())
    claim("the metadata there was is kept", len(kept) == 1, kept[0].name if kept else "")

    title("Is all of it there, and can it be written to?")
    run("mount", str(DEVICE), str(POINT))
    wrong = [name for name, want in wanted.items() if digest(POINT / name) != want]
    claim(f"{FILES} files, every checksum right", not wrong, ", ".join(wrong))
    run("dd", "if=/dev/urandom", f"of={POINT}/after", "bs=1M", "count=32", "conv=fsync")
    claim("32 MiB more are on disk", (POINT / "after").stat().st_size == 32 * MIB)
    run("umount", str(POINT))
    run("thinmgr", "pool", "deactivate", POOL)
    run("thin_check", str(DIRECTORY / "metadata"))
    run("thinmgr", "pool", "activate", POOL)
    run("mount", str(DEVICE), str(POINT))
    run("thinmgr", "event", "list")
    return the_end(began, put_away)


def fill() -> int:
    """Snapshots and small changes, each on disk before the next; how many there are at the end."""
    for number in range(200):
        made = subprocess.run(["thinmgr", "snapshot", "create", f"{POOL}/{VOLUME}=s{number}"],
                              text=True, capture_output=True)
        if made.returncode != 0:
            say("    " + made.stderr.strip().splitlines()[0])
            return number
        for name in range(0, FILES, 4):
            try:
                with open(POINT / f"change-{name}", "wb") as file:
                    file.write(os.urandom(4096))
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                say(f"    {error.strerror} after {number + 1} snapshots")
                return number + 1
        if shown()["mode"] != "write":
            return number + 1
    sys.exit("demo: the metadata is never used up")


def put_away() -> None:
    run("umount", str(POINT))
    run("thinmgr", "pool", "delete", POOL, "--with-volumes", "--yes")


if __name__ == "__main__":
    sys.exit(main())
