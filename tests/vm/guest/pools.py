# SPDX-License-Identifier: GPL-2.0-or-later
"""Pools and volumes for cases: made and removed over the API, looked at, compared."""

from __future__ import annotations

import errno
import json
import mmap
import os
import select
import signal
import time
from collections.abc import Iterable
from pathlib import Path

import tm
from contract import api

MIB = 1 << 20
WAIT = 120
# What changes in a pool's document by itself.
RESTLESS = ("write_rate", "reaction_usec")


def node(pool: str, volume: str) -> str:
    return f"/dev/thinmgr/{pool}/{volume}"


def dm_name(pool: str, role: str) -> str:
    """Device-mapper's name of a pool's device (_pool, _data, _meta) or of a volume."""
    return f"{pool}:{role}"


# ---- changes -------------------------------------------------------------------------------------

def change(method: str, path: str, body: object = None, expect: int = 200,
           headers: dict[str, str] | None = None, wait: int = WAIT) -> dict:
    """A change, waited for: the operation when it was made, the problem when it was not."""
    glue = "&" if "?" in path else "?"
    reply = api(method, f"{path}{glue}wait={wait}", body, headers, limit=wait + 30, expect=expect)
    document = reply.body
    assert isinstance(document, dict)
    if expect == 200 and document["status"] != "done":
        raise tm.Failed(f"{method} {path}: {document}")
    return document


def create(t: tm.Case, name: str, mib: int = 64, directory: Path | str | None = None,
           backing: dict | None = None, **members: object) -> dict:
    """A pool that goes away at the case's end. Members go into the request as they are."""
    place = str(directory or t.scratch / name)
    t.defer(destroy, name)
    change("POST", "/v1/pools", {
        "name": name, "backing": {"kind": "file", "directory": place, **(backing or {})},
        "data_size": mib * MIB, **members})
    return pool(name)


def destroy(name: str) -> None:
    """Delete a pool with its volumes, if it is there."""
    for writer in list(Writer.running):  # of a case that failed
        writer.kill()
    if api("GET", f"/v1/pools/{name}").status == 200:
        for point in tm.mounts("/scratch"):
            source = tm.sh(["findmnt", "-no", "SOURCE", point], check=False).out.strip()
            if source.startswith((f"/dev/thinmgr/{name}/", f"/dev/mapper/{name}:")):
                tm.sh(["umount", "-l", point])
        change("DELETE", f"/v1/pools/{name}?with_volumes=true")


def volume(pool_name: str, name: str, mib: int, **members: object) -> str:
    """A volume; its device node."""
    change("POST", f"/v1/pools/{pool_name}/volumes", {"name": name, "size": mib * MIB, **members})
    return node(pool_name, name)


def policy(name: str, **members: object) -> dict:
    return change("PATCH", f"/v1/pools/{name}/policy", members)


# ---- looking -------------------------------------------------------------------------------------

def pool(name: str) -> dict:
    return api("GET", f"/v1/pools/{name}", expect=200).body


def events(after: int = 0, **filters: str) -> list[dict]:
    """Events with a larger number, oldest first, across pages."""
    found: list[dict] = []
    query = "".join(f"&{key}={value}" for key, value in filters.items())
    cursor = ""
    while True:
        page = api("GET", f"/v1/events?after={after}{query}{cursor}", expect=200).body
        found += page["items"]
        if not page["next"]:
            return found
        cursor = f"&cursor={page['next']}"


def last_seq() -> int:
    newest = api("GET", "/v1/events?order=desc&limit=1", expect=200).body["items"]
    return newest[0]["seq"] if newest else 0


def wait_event(kind: str, after: int, limit: float = 30, **filters: str) -> dict:
    """The first event of a type after a number."""
    def found() -> dict | None:
        return next(iter(events(after, type=kind, **filters)), None)
    return tm.wait_for(found, limit, f"an event {kind}", every=0.2)


def forget_rates(documents: Iterable[dict]) -> list[dict]:
    """Pool documents without what changes by itself."""
    kept = json.loads(json.dumps(list(documents)))
    for document in kept:
        document["backing"].pop("free", None)
        for space in ("data", "metadata"):
            for key in RESTLESS:
                document[space].pop(key, None)
    return kept


def tree(top: Path) -> list[tuple]:
    """Everything below a directory: names, kinds, sizes, allocation, modes."""
    found = []
    for where, directories, files in os.walk(top):
        for name in sorted(directories + files):
            path = Path(where) / name
            try:
                st = path.lstat()
            except FileNotFoundError:
                continue
            size = 0 if path.is_dir() else st.st_size
            # In 64 KiB: a file system adds and merges blocks of its own at its leisure.
            taken = 0 if path.is_dir() else (st.st_blocks + 64) // 128
            found.append((str(path), oct(st.st_mode), size, taken))
    return sorted(found)


def picture(*places: Path) -> dict[str, object]:
    """What must be the same after a request that failed."""
    found = tm.items(api("GET", "/v1/pools", expect=200).body)
    return {
        "tables": tm.sh(["dmsetup", "table"]).out,
        "devices": [(d.name, d.uuid, d.suspended) for d in tm.dm_devices()],
        "loops": sorted(tm.loops()),
        "files": [entry for place in places for entry in tree(place)],
        "pools": forget_rates(found),
        "volumes": [api("GET", f"/v1/pools/{p['name']}/volumes", expect=200).body["items"]
                    for p in found],
    }


def same(t: tm.Case, before: dict[str, object], after: dict[str, object], what: str) -> None:
    for key, value in before.items():
        t.equal(after[key], value, f"{key} after {what}")


# ---- writing -------------------------------------------------------------------------------------

class Writer:
    """A process that writes a pattern straight to a device, past the page cache, so that it feels
    what the pool does. `pause`: seconds between two MiB."""

    running: set[Writer] = set()

    def __init__(self, device: str, mib: int, seed: int, offset_mib: int = 0, pause: float = 0) -> None:
        self.device, self.mib, self.seed, self.offset = device, mib, seed, offset_mib
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os._exit(self._write(pause))
            finally:
                os._exit(255)
        self.fd = os.pidfd_open(self.pid)
        Writer.running.add(self)

    def _write(self, pause: float) -> int:
        page = mmap.mmap(-1, MIB)  # direct I/O wants whole pages
        fd = os.open(self.device, os.O_WRONLY | os.O_DIRECT)
        try:
            os.lseek(fd, self.offset * MIB, os.SEEK_SET)
            for block in tm._blocks(self.seed, self.mib):
                page[:] = block
                if os.write(fd, page) != MIB:
                    return errno.EIO
                time.sleep(pause)
            os.fsync(fd)
        except OSError as err:
            return err.errno or errno.EIO
        return 0

    def ended(self, limit: float = 0) -> bool:
        return bool(select.select([self.fd], [], [], limit)[0])

    def _end(self) -> int:
        Writer.running.discard(self)
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        if self.ended(30):  # a write that waits for space cannot be killed
            self._end()

    def wait(self, limit: float) -> int:
        """The errno of the write that failed, 0 when all is written."""
        limit *= tm.PATIENCE
        if not self.ended(limit):
            raise tm.Failed(f"writing {self.mib} MiB to {self.device}: not done after {limit:g} s")
        return self._end()

    def finish(self, limit: float = 120) -> None:
        """All is written, and it is what is read back."""
        error = self.wait(limit)
        if error:
            raise tm.Failed(f"writing to {self.device}: {os.strerror(error)}")
        tm.drop_caches()
        tm.verify_pattern(self.device, self.mib, self.seed, self.offset)
