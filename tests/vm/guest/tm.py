# SPDX-License-Identifier: GPL-2.0-or-later
"""What cases use inside the test machine: programs, the API, device-mapper, data to write and check.

Only the standard library, because this is also read on the host, and a machine has little else.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import random
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SOCKET = "/run/thinmgr/thinmgr.sock"
HOME = Path("/usr/local/lib/thinlab")
TOOLS = HOME / "tools"
NAMES = Path("/run/thinmgr/names")
PREFIX = "THINMGR-"


class Failed(Exception):
    """The case found something that is not as it should be."""


class Skipped(Exception):
    """The case cannot run here; the text says why."""


# ---- programs ------------------------------------------------------------------------------------

# Times longer than usual that everything may take: the debug kernel's machine says so.
PATIENCE = float(os.environ.get("THINLAB_PATIENCE") or 1)


@dataclass
class Result:
    status: int
    out: str
    err: str


def sh(argv: Sequence[str], check: bool = True, limit: float = 60, data: str | bytes | None = None,
       env: dict[str, str] | None = None) -> Result:
    """Run a program (never a shell) and return its status and what it said."""
    sent = data.encode() if isinstance(data, str) else data
    limit *= PATIENCE
    try:
        done = subprocess.run([str(a) for a in argv], input=sent if sent is not None else b"",
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=limit,
                              env={**os.environ, **env} if env else None)
    except subprocess.TimeoutExpired as err:
        raise Failed(f"{' '.join(map(str, argv))}: not done after {limit:.0f} s") from err
    result = Result(done.returncode, done.stdout.decode(errors="replace"),
                    done.stderr.decode(errors="replace"))
    if check and result.status != 0:
        raise Failed(f"{' '.join(map(str, argv))}: exit status {result.status}\n"
                     f"{result.out}{result.err}".rstrip())
    return result


def wait_for(condition: Callable[[], object], limit: float, what: str, every: float = 0.05) -> object:
    """Ask until `condition` answers something true; `limit` seconds at most."""
    limit *= PATIENCE
    end = time.monotonic() + limit
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= end:
            raise Failed(f"{what}: not within {limit:g} s")
        time.sleep(every)


# ---- the API and the command line ----------------------------------------------------------------

@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> object:
        return json.loads(self.raw) if self.raw else None


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, limit: float) -> None:
        super().__init__("localhost", timeout=limit * PATIENCE)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def api(method: str, path: str, body: object = None, headers: dict[str, str] | None = None,
        limit: float = 60, expect: int | Sequence[int] | None = None, raw: bytes | None = None) -> Reply:
    """One request over the daemon's socket. `raw` sends bytes as they are instead of `body`'s JSON."""
    sent = dict(headers or {})
    data = raw
    if body is not None:
        data = json.dumps(body).encode()
    if data is not None:
        sent.setdefault("Content-Type", "application/json")
    connection = UnixConnection(SOCKET, limit)
    try:
        connection.request(method, path, body=data, headers=sent)
        answer = connection.getresponse()
        reply = Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()
    if expect is not None:
        wanted = [expect] if isinstance(expect, int) else list(expect)
        if reply.status not in wanted:
            raise Failed(f"{method} {path}: status {reply.status}, expected {wanted}: "
                         f"{reply.raw.decode(errors='replace')}")
    return reply


def cli(*args: str, check: bool = True, limit: float = 120) -> object:
    """`thinmgr --json ARGS`: the document it prints (None when it prints nothing)."""
    result = sh(["thinmgr", "--json", *args], check=check, limit=limit)
    return json.loads(result.out) if result.out.strip() else None


def items(document: object) -> list[dict]:
    """The list in a list answer, whatever its envelope calls it."""
    if isinstance(document, list):
        return document
    if isinstance(document, dict):
        for value in document.values():
            if isinstance(value, list):
                return value
    return []


# ---- the service ---------------------------------------------------------------------------------

def installed() -> bool:
    return Path("/usr/sbin/thinmgrd").exists()


def active() -> bool:
    return sh(["systemctl", "is-active", "--quiet", "thinmgrd"], check=False).status == 0


def answers() -> bool:
    """Whether the daemon answers requests."""
    try:
        return api("GET", "/v1/health", limit=10).status == 200
    except (OSError, http.client.HTTPException):
        return False


def main_pid() -> int:
    return int(sh(["systemctl", "show", "-P", "MainPID", "thinmgrd"]).out)


def wait_ready(limit: float = 60) -> None:
    wait_for(lambda: active() and answers(), limit, "thinmgrd active and answering")


def restart(kill: bool = False) -> None:
    """Restart the daemon; `kill`: by SIGKILL, as a crash would."""
    if kill:
        pid = main_pid()
        os.kill(pid, 9)
        # Its end first: until systemd has seen it, the unit still looks active.
        wait_for(lambda: main_pid() not in (0, pid), 30, "systemd starting thinmgrd again")
    else:
        sh(["systemctl", "restart", "thinmgrd"], limit=120)
    wait_ready()


def journal(since_cursor: str | None = None, unit: str = "thinmgrd") -> list[dict]:
    """A unit's messages, or those after one message of the whole journal."""
    argv = ["journalctl", "--no-pager", "-o", "json", "-u", unit]
    if since_cursor:
        # Not --after-cursor: where the cursor's own message is another unit's, that leaves out one of this unit's.
        argv.append(f"--cursor={since_cursor}")
    found = [json.loads(line) for line in sh(argv).out.splitlines() if line.startswith("{")]
    return [entry for entry in found if entry["__CURSOR"] != since_cursor]


def journal_cursor(unit: str = "thinmgrd") -> str | None:
    """Where the unit's journal ends. (After the cursor of another's line journalctl leaves out one
    line too many.)"""
    # It fails where the unit never said anything, as where it is not installed.
    text = sh(["journalctl", "--no-pager", "-n", "1", "--show-cursor", "-o", "cat", "-u", unit],
              check=False).out
    found = re.search(r"^-- cursor: (.+)$", text, re.MULTILINE)
    return found[1] if found else None


# ---- device-mapper and loop devices --------------------------------------------------------------

@dataclass
class DmDevice:
    name: str
    uuid: str
    major: int
    minor: int
    open_count: int
    suspended: bool


def dm_devices(prefix: str = "") -> list[DmDevice]:
    """All device-mapper devices whose UUID begins with `prefix`."""
    done = sh(["dmsetup", "info", "-c", "--noheadings", "--separator", "|", "-o",
               "name,uuid,major,minor,open,suspended"], check=False)
    found = []
    for line in done.out.splitlines():
        part = line.split("|")
        if len(part) == 6 and part[1].startswith(prefix):
            found.append(DmDevice(part[0], part[1], int(part[2]), int(part[3]), int(part[4]),
                                  part[5] == "Suspended"))
    return found


@dataclass
class PoolStatus:
    transaction_id: int
    metadata_used: int
    metadata_total: int
    data_used: int
    data_total: int
    mode: str
    queue: bool
    needs_check: bool
    line: str = field(repr=False)


def thin_status(name: str) -> PoolStatus:
    """A pool's status line, read without making it commit."""
    line = sh(["dmsetup", "status", "--noflush", name]).out.strip()
    part = line.split()
    if len(part) < 3 or part[2] != "thin-pool":
        raise Failed(f"{name} is no thin-pool: {line}")
    if part[3] in ("Fail", "Error"):
        return PoolStatus(0, 0, 0, 0, 0, "fail", False, False, line)
    meta, data = part[4].split("/"), part[5].split("/")
    mode = {"rw": "write", "ro": "read_only"}.get(part[7], part[7])
    return PoolStatus(int(part[3]), int(meta[0]), int(meta[1]), int(data[0]), int(data[1]), mode,
                      "queue_if_no_space" in part, "needs_check" in part, line)


def loops() -> list[tuple[str, str]]:
    text = sh(["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"], check=False).out
    return [(p[0], p[1] if len(p) > 1 else "") for p in (line.split(None, 1) for line in text.splitlines())]


def mounts(below: str) -> list[str]:
    """Mount points below a directory, deepest first."""
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return sorted((p for p in points if p == below or p.startswith(below.rstrip("/") + "/")),
                  key=len, reverse=True)


def settle() -> None:
    sh(["udevadm", "settle", "--timeout=30"])


@contextlib.contextmanager
def mounted(device: str, point: Path, *options: str) -> Iterator[Path]:
    point.mkdir(parents=True, exist_ok=True)
    sh(["mount", *options, device, str(point)])
    try:
        yield point
    except BaseException:
        sh(["umount", str(point)], check=False, limit=120)  # what went wrong before is to be told
        raise
    sh(["umount", str(point)], limit=120)


# ---- data ----------------------------------------------------------------------------------------

def _blocks(seed: int, mib: int) -> Iterator[bytes]:
    rng = random.Random(seed)
    block = rng.randbytes(1 << 20)
    for number in range(mib):
        # Each block differs, at no cost of new random numbers.
        yield number.to_bytes(8, "little") + block[8:]


def write_pattern(path: str | Path, mib: int, seed: int, offset_mib: int = 0) -> str:
    """Write `mib` MiB that depend on `seed`, make them durable, and return their SHA-256."""
    total = hashlib.sha256()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.lseek(fd, offset_mib << 20, os.SEEK_SET)
        for block in _blocks(seed, mib):
            view = memoryview(block)
            while view:
                view = view[os.write(fd, view):]
            total.update(block)
        os.fsync(fd)
    finally:
        os.close(fd)
    return total.hexdigest()


def digest(path: str | Path, mib: int | None = None, offset_mib: int = 0) -> str:
    """The SHA-256 of a file, or of `mib` MiB of it."""
    total = hashlib.sha256()
    left = None if mib is None else mib << 20
    with open(path, "rb") as source:
        source.seek(offset_mib << 20)
        while left is None or left > 0:
            block = source.read(1 << 20 if left is None else min(left, 1 << 20))
            if not block:
                break
            total.update(block)
            if left is not None:
                left -= len(block)
    return total.hexdigest()


def verify_pattern(path: str | Path, mib: int, seed: int, offset_mib: int = 0) -> None:
    """Fail unless what write_pattern wrote is there."""
    with open(path, "rb") as source:
        source.seek(offset_mib << 20)
        for number, block in enumerate(_blocks(seed, mib)):
            if source.read(1 << 20) != block:
                raise Failed(f"{path}: MiB {offset_mib + number} is not what was written")


def drop_caches() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")


# ---- nothing may be left -------------------------------------------------------------------------

def leftovers() -> list[str]:
    """What a case must not leave behind, as sentences."""
    left = [f"device-mapper device {d.name} ({d.uuid or 'no UUID'})" for d in dm_devices()]
    left += [f"loop device {name} on {file or 'nothing'}" for name, file in loops()]
    left += [f"mount {point}" for below in ("/mnt", "/scratch") for point in mounts(below)]
    if NAMES.is_dir():
        left += [f"name file {path}" for path in NAMES.iterdir()]
    nodes = Path("/dev/thinmgr")
    if nodes.is_dir():
        left += [f"node {path}" for path in nodes.rglob("*") if not path.is_dir()]
    if installed():
        if not active():
            left.append("thinmgrd is not active")
        else:
            try:
                left += [f"pool {pool.get('name')}"
                         for pool in items(api("GET", "/v1/pools", limit=20).body)]
            except (OSError, ValueError, http.client.HTTPException) as err:
                left.append(f"thinmgrd does not answer: {err}")
    return left


def assert_clean() -> None:
    left = leftovers()
    if left:
        raise Failed("left behind: " + "; ".join(left))


def force_clean() -> None:
    """Remove everything by force, the daemon's records too, so that the next case starts from nothing."""
    for below in ("/mnt", "/scratch"):
        for point in mounts(below):
            sh(["umount", "-l", point], check=False)
    if installed():
        sh(["systemctl", "kill", "-s", "KILL", "thinmgrd"], check=False)
        sh(["systemctl", "stop", "thinmgrd"], check=False, limit=120)
    # Stacked devices go from the top down, so try until a round removes nothing.
    while True:
        before = len(dm_devices())
        for device in dm_devices():
            if device.suspended:
                sh(["dmsetup", "resume", "--noudevsync", device.name], check=False, limit=20)
            sh(["dmsetup", "remove", "--noudevsync", device.name], check=False, limit=20)
        if len(dm_devices()) in (0, before):
            break
    for device in dm_devices():
        sh(["dmsetup", "remove", "--force", "--noudevsync", device.name], check=False, limit=20)
    sh(["losetup", "-D"], check=False)
    shutil.rmtree("/scratch", ignore_errors=True)
    shutil.rmtree(NAMES, ignore_errors=True)
    if installed():
        shutil.rmtree("/var/lib/thinmgr", ignore_errors=True)
        for path in Path("/etc/thinmgr/thinmgrd.conf.d").glob("*"):
            path.unlink()
        sh(["systemctl", "reset-failed", "thinmgrd"], check=False)
        sh(["systemctl", "start", "thinmgrd"], check=False, limit=120)


# ---- a case --------------------------------------------------------------------------------------

class Case:
    """What run(t) gets: a place to work in, checks, and what to undo at the end."""

    def __init__(self, name: str, disks: Sequence[str] = (), full: bool = False,
                 target: str = "stock") -> None:
        self.name = name
        self.full = full  # FULL=1: all there is to try, however long it takes
        self.target = target  # whose thin-pool and thin are in use: "ours" or "stock"
        self.disks = list(disks)
        self.scratch = Path("/scratch") / name
        self.checks = 0
        self._undo: list[Callable[[], object]] = []

    def log(self, text: str) -> None:
        print(text, flush=True)

    step = log

    def check(self, condition: object, text: str) -> None:
        """Fail with `text` (what should be so) unless `condition`."""
        self.checks += 1
        if not condition:
            raise Failed(f"not so: {text}")

    def equal(self, got: object, wanted: object, text: str) -> None:
        self.checks += 1
        if got != wanted:
            raise Failed(f"{text}: {got!r}, expected {wanted!r}")

    def skip(self, why: str) -> None:
        raise Skipped(why)

    def defer(self, function: Callable[..., object], *args: object) -> None:
        """Call this at the end, last first, whatever happens in between."""
        self._undo.append(lambda: function(*args))

    def tool(self, name: str) -> str:
        """Path of one of the test programs built with the package."""
        path = TOOLS / name
        if not path.exists():
            raise Failed(f"the test program {name} was not built")
        return str(path)

    def close(self) -> None:
        error: Exception | None = None
        while self._undo:
            try:
                self._undo.pop()()
            except Exception as err:  # the rest still has to be undone
                error = error or err
        if error:
            raise error
