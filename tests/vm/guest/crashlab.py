# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon run by hand with a fault armed, and a look at whether all that tells of pools agrees.

The crash cases start thinmgrd hundreds of times, so they do it without systemd, and ask the kernel
through its files and the control device instead of starting programs.
"""

from __future__ import annotations

import copy
import fcntl
import http.client
import json
import os
import re
import signal
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import metadata
import tm

MIB = 1 << 20
DATABASE = Path("/var/lib/thinmgr/state.db")
# Nothing grows by itself, so that sizes are those the operations leave.
QUIET = {"data": {"auto_extend": False}, "metadata": {"auto_extend": False}, "repair": "manual"}


# ---- device-mapper, without programs -------------------------------------------------------------

@dataclass
class DmInfo:
    name: str
    uuid: str
    suspended: bool
    inactive_table: bool


def _ioctl(number: int, name: str, flags: int = 0, room: int = 0) -> tuple[int, bytearray]:
    buffer = bytearray(struct.pack("<3I2I i i 3I Q 128s 129s 7x", 4, 0, 0, 312 + room, 312, 0, 0,
                                   flags, 0, 0, 0, name.encode(), b"") + bytes(room))
    with open("/dev/mapper/control", "rb+", buffering=0) as control:
        fcntl.ioctl(control, 0xC138FD00 | number, buffer, True)
    return struct.unpack_from("<I", buffer, 28)[0], buffer


def dm_list() -> list[DmInfo]:
    """All device-mapper devices."""
    found = []
    for path in Path("/sys/block").glob("dm-*/dm"):
        try:
            name = (path / "name").read_text().strip()
            flags, buffer = _ioctl(7, name)
        except OSError:
            continue  # it went away in between
        uuid = bytes(buffer[176:305]).split(b"\0")[0].decode()
        found.append(DmInfo(name, uuid, bool(flags & 2), bool(flags & 64)))
    return found


def dm_suspend(name: str) -> None:
    _ioctl(6, name, 2 | 1024 | 2048)


def dm_resume(name: str) -> None:
    _ioctl(6, name, 1024 | 2048)


def pool_status(pool: str) -> list[str]:
    """The fields of a pool's status line, read without making it commit."""
    _, buffer = _ioctl(12, f"{pool}:_pool", 2048, 2048)
    return bytes(buffer[312 + 40:]).split(b"\0")[0].decode().split()


def loop_files() -> list[str]:
    files = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            files.append(path.read_text().strip())
        except OSError:
            continue
    return sorted(files)


# ---- the daemon ----------------------------------------------------------------------------------

class Daemon:
    """thinmgrd as a child, with a fault armed or without."""

    def __init__(self, t: tm.Case) -> None:
        self.process: subprocess.Popen | None = None
        self.log = t.scratch / "thinmgrd.log"
        tm.sh(["systemctl", "stop", "thinmgrd"])
        t.defer(tm.sh, ["systemctl", "start", "thinmgrd"])
        t.defer(self.stop)

    def _spawn(self, fault: str | None) -> None:
        env = {k: v for k, v in os.environ.items() if k != "NOTIFY_SOCKET"}
        if fault:
            env["THINMGR_FAULT"] = fault
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(["/usr/sbin/thinmgrd"], env=env, cwd="/",
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start(self, fault: str | None = None, limit: float = 60) -> None:
        self._spawn(fault)
        end = time.monotonic() + limit
        while True:
            if self.process.poll() is not None:
                raise tm.Failed(f"thinmgrd ended at once: {self.said()}")
            try:
                if tm.api("GET", "/v1/health", limit=10).status == 200:
                    return
            except (OSError, http.client.HTTPException):
                pass
            if time.monotonic() > end:
                raise tm.Failed(f"thinmgrd is not ready after {limit:g} s: {self.said()}")
            time.sleep(0.01)

    def start_killed(self, fault: str) -> None:
        """Start, to be struck again while settling what the last end cut off."""
        self._spawn(fault)
        self.wait_killed()

    def wait_killed(self, limit: float = 30) -> None:
        """Until the fault has struck."""
        assert self.process is not None
        try:
            status = self.process.wait(limit)
        except subprocess.TimeoutExpired as err:
            raise tm.Failed(f"the fault did not strike: {self.said()}") from err
        self.process = None
        if status != -signal.SIGKILL:
            raise tm.Failed(f"thinmgrd ended with status {status}: {self.said()}")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
                raise tm.Failed("thinmgrd did not end within 30 s of SIGTERM") from None
            self.process = None

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


# ---- requests ------------------------------------------------------------------------------------

def change(method: str, path: str, body: object = None) -> str:
    """Ask for a change; its operation's id. Does not wait for it."""
    return tm.api(method, path, body, expect=202).body["id"]


def operation(op: str) -> dict:
    return tm.api("GET", f"/v1/operations/{op}", expect=200).body


def ended(op: str, limit: float = 60) -> dict:
    """Wait until the operation is done or failed."""
    def asked() -> dict | None:
        found = operation(op)
        return found if found["status"] in ("done", "failed") else None
    return tm.wait_for(asked, limit, f"the end of operation {op}", every=0.02)


def do(method: str, path: str, body: object = None) -> dict:
    """A change that must succeed."""
    op = ended(change(method, path, body))
    if op["status"] != "done":
        raise tm.Failed(f"{method} {path}: {op['error']}")
    return op


def make_pool(name: str, directory: Path, mib: int, policy: dict | None = None, **more: object) -> None:
    do("POST", "/v1/pools", {"name": name, "data_size": mib * MIB, "block_size": 65536,
                             "policy": QUIET if policy is None else policy,
                             "backing": {"kind": "file", "directory": str(directory)}, **more})


def make_volume(pool: str, name: str, mib: int) -> str:
    do("POST", f"/v1/pools/{pool}/volumes", {"name": name, "size": mib * MIB})
    return f"/dev/thinmgr/{pool}/{name}"


# ---- what there is -------------------------------------------------------------------------------

def pools() -> list[dict]:
    return tm.items(tm.api("GET", "/v1/pools", expect=200).body)


def volumes(pool: str) -> list[dict]:
    return tm.items(tm.api("GET", f"/v1/pools/{pool}/volumes", expect=200).body)


def state() -> dict:
    """What users see of pools and volumes, to be compared over an operation."""
    return {p["name"]: {
        "active": p["state"] == "active",
        "data": p["data"]["size"],
        "metadata": p["metadata"]["size"],
        "policy": p["policy"],
        "volumes": {v["name"]: {"size": v["size"], "active": v["active"], "origin": v["origin"]}
                    for v in volumes(p["name"])},
    } for p in pools()}


class Disagreement(tm.Failed):
    pass


def _same(got: object, wanted: object, what: str) -> None:
    if got != wanted:
        raise Disagreement(f"{what}: {got!r}, expected {wanted!r}")


def examine_metadata(path: Path, copy_to: Path, pool: dict, dev_ids: list[int]) -> None:
    """thin_check a pool's metadata, and compare the devices in it with those recorded."""
    if pool["state"] == "active":
        # A suspend makes the kernel commit, so that the copy is of one moment.
        dm_suspend(f"{pool['name']}:_pool")
        try:
            copy_to.write_bytes(path.read_bytes())
        finally:
            dm_resume(f"{pool['name']}:_pool")
        path = copy_to
    elif not path.read_bytes()[:4096].strip(b"\0"):
        return  # never activated: the kernel has not formatted it yet
    done = tm.sh(["thin_check", path], check=False)
    if done.status != 0:
        raise Disagreement(f"thin_check of pool {pool['name']}: {done.out}{done.err}")
    dump = tm.sh(["thin_dump", path]).out
    _same(int(re.search(r'transaction="(\d+)"', dump)[1]), pool["transaction_id"],
          f"transaction id in the metadata of pool {pool['name']}")
    _same(sorted(int(x) for x in re.findall(r'<device dev_id="(\d+)"', dump)), sorted(dev_ids),
          f"devices in the metadata of pool {pool['name']}")


def verify(scratch: Path, deep: set[str] | None = None, claims: dict[str, Path] | None = None) -> None:
    """Fail unless API, descriptor, files, loop devices, kernel, nodes and name files all agree.

    `deep`: pools whose metadata is checked as well (None: all). `claims`: directories that hold
    the files of a pool the daemon does not know, by that pool's name.
    """
    wanted_dm, wanted_loops, wanted_names, wanted_nodes = set(), [], set(), set()
    directories = {str(path): None for path in (claims or {}).values()}
    for pool in pools():
        name, short = pool["name"], pool["id"].replace("-", "")
        where = Path(pool["backing"]["directory"])
        _same(pool["state"] in ("active", "inactive") and pool["state_reason"] is None, True,
              f"pool {name} settled ({pool['state']}: {pool['state_reason']})")
        vols = volumes(name)
        directories[str(where)] = pool
        descriptor = json.loads((where / "pool.json").read_text())
        _same(descriptor["pool"]["id"], pool["id"], f"id in the descriptor of pool {name}")
        _same(descriptor["pool"]["transaction_id"], pool["transaction_id"],
              f"transaction id in the descriptor of pool {name}")
        _same(descriptor["pool"]["data_size"], pool["data"]["size"],
              f"data size in the descriptor of pool {name}")
        _same(descriptor["pool"]["policy"], pool["policy"], f"policy in the descriptor of pool {name}")
        _same({v["name"]: (v["id"], v["dev_id"], v["size"]) for v in descriptor["volumes"]},
              {v["name"]: (v["id"], v["dev_id"], v["size"]) for v in vols},
              f"volumes in the descriptor of pool {name}")
        for part in ("data", "metadata"):
            _same((where / part).stat().st_size, pool[part]["size"] + pool[part]["reserve"],
                  f"size of the {part} file of pool {name}")
        if pool["state"] == "active":
            wanted_dm |= {f"{tm.PREFIX}{short}-{role}" for role in ("pool", "data", "meta")}
            wanted_loops += [str(where / "data"), str(where / "metadata")]
            line = pool_status(name)
            _same(int(line[0]), pool["transaction_id"], f"the kernel's transaction id of pool {name}")
            _same(int(line[2].split("/")[1]) * pool["block_size"], pool["data"]["size"],
                  f"the kernel's data size of pool {name}")
            _same(line[3], "-", f"metadata snapshot held of pool {name}")
            _same(line[4], "ro" if metadata.needs_check(where / "metadata") else "rw", f"the kernel's mode of pool {name}")
        for v in vols:
            if v["active"]:
                uuid = f"{tm.PREFIX}{short}-vol-{v['id'].replace('-', '')}"
                wanted_dm.add(uuid)
                wanted_names.add(uuid)
                node = Path(v["device"])
                wanted_nodes.add(str(node))
                _same(node.is_block_device(), True, f"{node} leads to a device")
                size = Path(f"/sys/class/block/{node.resolve().name}/size").read_text()
                _same(int(size) * 512, v["size"], f"size of {node}")
        if deep is None or name in deep:
            examine_metadata(where / "metadata", scratch / "metadata.copy", pool,
                             [v["dev_id"] for v in vols])
    for path in scratch.glob("*/"):
        if str(path) in directories:
            # What a repair replaced is kept, and room for one set aside.
            _same(sorted(p.name for p in path.iterdir() if p.name not in ("lost+found", "kept", "metadata.spare")),
                  ["data", "metadata", "pool.json"], f"files in {path}")
        elif path.name != "mnt":
            raise Disagreement(f"{path} was left behind: {sorted(p.name for p in path.iterdir())}")
    infos = dm_list()
    for info in infos:
        _same((info.suspended, info.inactive_table), (False, False),
              f"device {info.name} (suspended, second table loaded)")
    _same(sorted(i.uuid for i in infos), sorted(wanted_dm), "devices there are")
    _same(loop_files(), sorted(wanted_loops), "files behind loop devices")
    _same({p.name for p in tm.NAMES.iterdir()} if tm.NAMES.is_dir() else set(), wanted_names,
          "name files")
    nodes = Path("/dev/thinmgr")
    _same({str(p) for p in nodes.rglob("*") if not p.is_dir()} if nodes.is_dir() else set(),
          wanted_nodes, "nodes")
    for status in ("queued", "running", "undoing"):
        _same(tm.items(tm.api("GET", f"/v1/operations?status={status}", expect=200).body), [],
              f"operations {status}")


def verify_soon(scratch: Path, deep: set[str] | None = None,
                claims: dict[str, Path] | None = None) -> None:
    """verify(), but links that udev is still taking away and a view about to be swapped may pass."""
    end = time.monotonic() + 3
    while True:
        try:
            return verify(scratch, deep, claims)
        except Disagreement:
            if time.monotonic() > end:
                raise
            time.sleep(0.1)


# ---- scenarios: how each kind of operation is provoked -------------------------------------------

def _frozen(*_: object) -> None:
    raise tm.Failed("the mounted file system takes no writes")


@dataclass
class World:
    """Pools for the operations to work on, and data that must outlive all of it."""

    t: tm.Case
    daemon: Daemon
    digests: dict[str, str] = field(default_factory=dict)  # of the first MiB, by volume
    file: str = ""  # of the file in the mounted volume

    @property
    def scratch(self) -> Path:
        return self.t.scratch

    def set_up(self) -> None:
        t = self.t
        make_pool("keep", t.scratch / "keep", 16)
        make_pool("a", t.scratch / "a", 64)
        make_pool("b", t.scratch / "b", 16)
        for seed, (pool, volume, mib) in enumerate((("keep", "data", 8), ("a", "vol", 16),
                                                    ("b", "vol", 16))):
            self.digests[f"{pool}/{volume}"] = tm.write_pattern(make_volume(pool, volume, mib), 1, seed)
        node = make_volume("a", "fs", 32)
        tm.sh(["mkfs.ext4", "-q", "-O", "^has_journal", node])
        tm.sh(["mkdir", "-p", t.scratch / "mnt"])
        tm.sh(["mount", node, t.scratch / "mnt"])
        self.file = tm.write_pattern(t.scratch / "mnt/file", 1, 77)

    def tear_down(self) -> None:
        for point in tm.mounts(str(self.scratch / "mnt")):
            tm.sh(["umount", point])
        for pool in pools():
            do("DELETE", f"/v1/pools/{pool['name']}?with_volumes=true")

    def verify_data(self) -> None:
        there = {f"{p['name']}/{v['name']}": v for p in pools() for v in volumes(p["name"])}
        for name, wanted in self.digests.items():
            # A renamed one is found under its other name; an inactive one is read later.
            v = there.get(name) or there.get(f"{name}-renamed")
            if v is None:
                raise tm.Failed(f"volume {name} is gone")
            if v["active"]:
                _same(tm.digest(v["device"], 1), wanted, f"what was written to {name}")
        # A file system left frozen would hang here.
        signal.signal(signal.SIGALRM, _frozen)
        signal.alarm(30)
        fd = os.open(self.scratch / "mnt/probe", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.write(fd, os.urandom(4096))
            os.fsync(fd)
            # Not what is left in memory, but what is on the volume.
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            with open(self.scratch / "mnt/file", "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)
            signal.alarm(0)
        _same(tm.digest(self.scratch / "mnt/file"), self.file, "the file in the mounted volume")


@dataclass
class Scenario:
    """One kind of operation: how it is asked for, and what it makes of the state."""

    ask: Callable[[World], str]  # returns the operation's id
    after: Callable[[dict], None]  # changes a copy of the state as the operation shall
    prepare: Callable[[World], None] = lambda w: None
    revert: Callable[[World], None] = lambda w: None  # when it is done
    drop: Callable[[World], None] = lambda w: None  # whatever came of it, at the end
    unknown: str | None = None  # pool whose files lie there while the daemon does not know it


def _new_pool(w: World) -> None:
    make_pool("n", w.scratch / "n", 16)
    tm.write_pattern(make_volume("n", "vol", 8), 1, 99)


def _new_file_system(w: World) -> None:
    make_pool("n", w.scratch / "n", 16)
    tm.sh(["mkfs.ext4", "-q", make_volume("n", "vol", 8)])
    tm.settle()


def _forget_new_pool(w: World) -> None:
    """The pool is made, put to rest, and then struck from the database behind the daemon's back."""
    _new_pool(w)
    do("POST", "/v1/pools/n/deactivate")
    w.daemon.stop()
    tm.sh(["sqlite3", DATABASE, "PRAGMA foreign_keys=ON; DELETE FROM pools WHERE name = 'n';"])
    w.daemon.start()


def _have(name: str) -> bool:
    return tm.api("GET", f"/v1/pools/{name}").status == 200


def _drop_new_pool(w: World) -> None:
    if not _have("n") and (w.scratch / "n").exists():
        do("POST", "/v1/pools/import", {"directory": str(w.scratch / "n"), "activate": False})
    if _have("n"):
        do("DELETE", "/v1/pools/n?with_volumes=true")


def _extend(w: World) -> str:
    pool = tm.api("GET", "/v1/pools/a", expect=200).body
    return change("POST", "/v1/pools/a/extend", {"data_size": pool["data"]["size"] + 8 * MIB,
                                                 "metadata_size": pool["metadata"]["size"] + MIB})


def _after_extend(s: dict) -> None:
    s["a"]["data"] += 8 * MIB
    s["a"]["metadata"] += MIB


def _policy(w: World) -> str:
    step = tm.api("GET", "/v1/pools/a/policy", expect=200).body["data"]["step_percent"]
    return change("PATCH", "/v1/pools/a/policy", {"data": {"step_percent": step + 1}})


def _after_policy(s: dict) -> None:
    s["a"]["policy"]["data"]["step_percent"] += 1


def _break(w: World) -> None:
    """Pool b needs a check, as after an error of its metadata device."""
    do("POST", "/v1/pools/b/deactivate")
    metadata.set_needs_check(w.scratch / "b/metadata")
    do("POST", "/v1/pools/b/activate")


def _break_and_repair(w: World) -> None:
    """Pool b has metadata that is kept."""
    _break(w)
    do("POST", "/v1/pools/b/repair")


def _restore(w: World) -> str:
    kept = tm.items(tm.api("GET", "/v1/pools/b/copies", expect=200).body)
    newest = [c["name"] for c in kept if c["why"] == "repair"][-1]
    return change("POST", "/v1/pools/b/restore-metadata", {"copy": newest})


def _resize(w: World) -> str:
    size = tm.api("GET", "/v1/pools/a/volumes/vol", expect=200).body["size"]
    return change("PATCH", "/v1/pools/a/volumes/vol", {"size": size + MIB})


def _after_resize(s: dict) -> None:
    s["a"]["volumes"]["vol"]["size"] += MIB


def _volume(size: int, active: bool = True, origin: str | None = None) -> dict:
    return {"size": size, "active": active, "origin": origin}


def _after_create(s: dict) -> None:
    # What the rule makes of its metadata is not this test's matter.
    s["n"] = {"active": True, "data": 16 * MIB, "metadata": s["b"]["metadata"],
              "policy": s["b"]["policy"], "volumes": {}}


def _after_import(s: dict) -> None:
    _after_create(s)
    s["n"]["volumes"]["vol"] = _volume(8 * MIB)


def _after_rename(s: dict) -> None:
    s["a"]["volumes"]["vol-renamed"] = s["a"]["volumes"].pop("vol")


def _after_snapshots(s: dict) -> None:
    vols = s["a"]["volumes"]
    vols["s1"] = _volume(vols["vol"]["size"], True, "vol")
    vols["s2"] = _volume(vols["fs"]["size"], True, "fs")


def _active(pool: str, volume: str, yes: bool) -> Callable[[dict], None]:
    def after(s: dict) -> None:
        if not volume:
            s[pool]["active"] = yes
        for name, v in s[pool]["volumes"].items():
            if volume in ("", name):
                v["active"] = yes
    return after


SCENARIOS: dict[str, Scenario] = {
    "pool-create": Scenario(
        ask=lambda w: change("POST", "/v1/pools", {
            "name": "n", "data_size": 16 * MIB, "block_size": 65536, "policy": QUIET,
            "backing": {"kind": "file", "directory": str(w.scratch / "n")}}),
        after=_after_create,
        revert=lambda w: do("DELETE", "/v1/pools/n"),
        drop=_drop_new_pool),
    "pool-import": Scenario(
        ask=lambda w: change("POST", "/v1/pools/import", {"directory": str(w.scratch / "n")}),
        after=_after_import,
        prepare=_forget_new_pool,
        drop=_drop_new_pool,
        unknown="n"),
    "pool-delete": Scenario(
        ask=lambda w: change("DELETE", "/v1/pools/n?with_volumes=true"),
        after=lambda s: s.pop("n"),
        prepare=_new_pool,
        drop=_drop_new_pool),
    "pool-activate": Scenario(
        ask=lambda w: change("POST", "/v1/pools/b/activate"),
        after=_active("b", "", True),
        prepare=lambda w: do("POST", "/v1/pools/b/deactivate")),
    "pool-deactivate": Scenario(
        ask=lambda w: change("POST", "/v1/pools/b/deactivate"),
        after=_active("b", "", False),
        revert=lambda w: do("POST", "/v1/pools/b/activate")),
    "pool-extend": Scenario(ask=_extend, after=_after_extend),
    "pool-policy": Scenario(ask=_policy, after=_after_policy),
    "pool-repair": Scenario(
        ask=lambda w: change("POST", "/v1/pools/b/repair"),
        after=lambda s: None,
        prepare=_break),
    "pool-restore": Scenario(
        ask=_restore,
        after=lambda s: None,
        prepare=_break_and_repair),
    "pool-check": Scenario(
        ask=lambda w: change("POST", "/v1/pools/a/check", {"copy": True}),
        after=lambda s: None),
    "volume-create": Scenario(
        ask=lambda w: change("POST", "/v1/pools/a/volumes", {"name": "new", "size": 4 * MIB}),
        after=lambda s: s["a"]["volumes"].update(new=_volume(4 * MIB)),
        revert=lambda w: do("DELETE", "/v1/pools/a/volumes/new")),
    "volume-delete": Scenario(
        ask=lambda w: change("DELETE", "/v1/pools/a/volumes/new"),
        after=lambda s: s["a"]["volumes"].pop("new"),
        prepare=lambda w: make_volume("a", "new", 4)),
    "volume-resize": Scenario(ask=_resize, after=_after_resize),
    "volume-rename": Scenario(
        ask=lambda w: change("PATCH", "/v1/pools/a/volumes/vol", {"name": "vol-renamed"}),
        after=_after_rename,
        revert=lambda w: do("PATCH", "/v1/pools/a/volumes/vol-renamed", {"name": "vol"})),
    "volume-activate": Scenario(
        ask=lambda w: change("POST", "/v1/pools/a/volumes/vol/activate"),
        after=_active("a", "vol", True),
        prepare=lambda w: do("POST", "/v1/pools/a/volumes/vol/deactivate")),
    "volume-deactivate": Scenario(
        ask=lambda w: change("POST", "/v1/pools/a/volumes/vol/deactivate"),
        after=_active("a", "vol", False),
        revert=lambda w: do("POST", "/v1/pools/a/volumes/vol/activate")),
    "volume-check": Scenario(
        ask=lambda w: change("POST", "/v1/pools/n/volumes/vol/check"),
        after=lambda s: None,
        prepare=_new_file_system,
        drop=_drop_new_pool),
    "volume-clear-suspect": Scenario(
        ask=lambda w: change("POST", "/v1/pools/a/volumes/vol/clear-suspect"),
        after=lambda s: None),
    "snapshot-create": Scenario(
        ask=lambda w: change("POST", "/v1/pools/a/snapshots", {
            "snapshots": [{"volume": "vol", "name": "s1"}, {"volume": "fs", "name": "s2"}],
            "activate": True}),
        after=_after_snapshots,
        revert=lambda w: [do("DELETE", f"/v1/pools/a/volumes/{n}") for n in ("s1", "s2")]),
}


# ---- points: where a fault can strike ------------------------------------------------------------

@dataclass(frozen=True)
class Point:
    kind: str
    index: int
    step: str
    when: str  # "before" or "after"
    done: bool  # the operation is to be finished rather than undone
    can_wait: bool  # the step may fail without harm
    again: bool  # settling it comes by here once more

    def __str__(self) -> str:
        return f"{self.kind}:{self.step}:{self.when}"


def operations() -> dict[str, list[dict]]:
    """Every operation with its steps, as the daemon itself lists them."""
    return json.loads(tm.sh(["/usr/sbin/thinmgrd", "--list-operations"]).out)


def points() -> list[Point]:
    """Every operation, every step, before and after. An operation nobody can provoke is an error."""
    listed = operations()
    missing = sorted(set(listed) ^ set(SCENARIOS))
    if missing:
        raise tm.Failed(f"operations without a scenario, or the other way round: {missing}")
    found = []
    for kind, steps in listed.items():
        commits = [i for i, s in enumerate(steps) if s["commit"]]
        if len(commits) != 1:
            raise tm.Failed(f"{kind} has {len(commits)} points of no return")
        for i, step in enumerate(steps):
            for when in ("before", "after"):
                # A step that only records is in the journal once it is done, any other before.
                journaled = when == "after" or not step["record"]
                found.append(Point(kind, i, step["name"], when,
                                   i > commits[0] or (i == commits[0] and journaled),
                                   step["can_wait"], not (step["record"] and when == "after")))
    return found


def reduced(all_points: list[Point]) -> list[Point]:
    """Every step once: before it or after it, in turns."""
    return [p for p in all_points if (p.index % 2 == 0) == (p.when == "before")]


def expected(before: dict, scenario: Scenario, done: bool) -> dict:
    s = copy.deepcopy(before)
    if done:
        scenario.after(s)
    return s


def same_state(got: dict, wanted: dict, what: str) -> None:
    if got == wanted:
        return
    names = sorted(set(got) | set(wanted))
    odd = [f"{n}: {got.get(n)} where {wanted.get(n)} was expected" for n in names
           if got.get(n) != wanted.get(n)]
    raise tm.Failed(f"{what}: " + "; ".join(odd))


def strike_all(t: tm.Case, chosen: list[Point], strike: Callable[[World, Point], bool],
               most: int = 8) -> None:
    """Each point in turn; fail if any failed.

    `strike` says whether the world can be used further: otherwise, and after a failure, it is made
    anew.
    """
    failed: list[Point] = []
    w = None
    for point in chosen:
        began = time.monotonic()
        if w is None:
            w = World(t, Daemon(t))
            w.daemon.start()
            w.set_up()
        try:
            usable = strike(w, point)
        except Exception as err:
            failed.append(point)
            t.log(f"{point}: FAILED: {err}\nthinmgrd said:\n{w.daemon.said()}")
            if len(failed) >= most:
                w.daemon.kill()
                raise tm.Failed(f"{len(failed)} points failed, the rest was not tried") from err
            usable = False
        else:
            t.log(f"{str(point):<48} {'done' if point.done else 'undone':<6} "
                  f"{time.monotonic() - began:5.1f} s")
        if not usable:
            w.daemon.kill()
            tm.force_clean()
            t.scratch.mkdir(parents=True, exist_ok=True)
            w = None
    if w is not None:
        verify_soon(t.scratch)
        w.tear_down()
        verify_soon(t.scratch)
        w.daemon.stop()  # the next series has a daemon of its own
    if failed:
        raise tm.Failed(f"{len(failed)} of {len(chosen)} points failed: "
                        + ", ".join(map(str, failed)))
