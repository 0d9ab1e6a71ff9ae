# SPDX-License-Identifier: GPL-2.0-or-later
"""Where things live, how programs are run, how content is hashed, and waiting with a limit."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]
VM_DIR = REPO / "tests" / "vm"
BUILD = REPO / "build"


class LabError(Exception):
    """Something the lab cannot do; the text says what and what would help."""


def cache_dir() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    path = Path(base) / "thinmgr"
    path.mkdir(parents=True, exist_ok=True)
    return path


def say(text: str) -> None:
    """A line for the person watching, written whole so that parallel lines do not mix."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def as_root(argv: Sequence[str]) -> list[str]:
    """Image files belong to many users, so the few commands that make them need root."""
    if os.geteuid() == 0:
        return list(argv)
    return ["sudo", "--", *argv]


def run(argv: Sequence[str], log: Path | None = None, limit: float = 1800, **kwargs) -> None:
    """Run a program to its end; its output goes to `log`, whose tail is shown if it fails."""
    out = log.open("ab") if log else None
    try:
        done = subprocess.run(list(argv), stdin=subprocess.DEVNULL, stdout=out,
                              stderr=subprocess.STDOUT if out else None, timeout=limit, **kwargs)
    except FileNotFoundError as err:
        raise LabError(f"{argv[0]} is not installed: run packaging/install-deps") from err
    except subprocess.TimeoutExpired as err:
        raise LabError(f"{' '.join(argv)}: not done after {limit:.0f} s") from err
    finally:
        if out:
            out.close()
    if done.returncode != 0:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-40:]) if log else ""
        raise LabError(f"{' '.join(argv)}: exit status {done.returncode}\n{tail}".rstrip())


def digest(parts: Iterable[str | bytes]) -> str:
    """A short name for content. Lengths go in too, so that ("ab", "c") and ("a", "bc") differ."""
    total = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        total.update(len(data).to_bytes(8, "big"))
        total.update(data)
    return total.hexdigest()[:16]


def tree_digest(root: Path, paths: Iterable[str]) -> str:
    """The digest of the files in `root` that git knows or would add below `paths`, by content.

    Asking git leaves out what is ignored (build results, editors' files) and keeps uncommitted work.
    """
    listing = subprocess.run(
        ["git", "-c", "safe.directory=*", "-C", str(root), "ls-files", "-z", "--cached", "--others",
         "--exclude-standard", "--", *paths], check=True, stdout=subprocess.PIPE).stdout
    parts: list[str | bytes] = []
    for name in sorted({n.decode() for n in listing.split(b"\0") if n}):
        path = root / name
        if path.is_symlink():
            parts += [name, "link", os.readlink(path)]
        elif path.is_file():
            parts += [name, "x" if os.access(path, os.X_OK) else "-", path.read_bytes()]
    return digest(parts)


def record(stage: str, passed: int, failed: int) -> None:
    """Leave a stage's count where `make check` adds them up."""
    results = BUILD / "results"
    results.mkdir(parents=True, exist_ok=True)
    (results / stage).write_text(f"{passed} {failed}\n")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock: two runs that want the same image build it once."""
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def wait_for(condition: Callable[[], object], limit: float, what: str, every: float = 0.1) -> object:
    """Ask until `condition` answers something true, or say what did not come in time."""
    end = time.monotonic() + limit
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() >= end:
            raise LabError(f"{what}: not within {limit:.0f} s")
        time.sleep(every)
