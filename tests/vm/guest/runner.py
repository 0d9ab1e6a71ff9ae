# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs cases inside the test machine.

    runner.py --serve           requests on stdin, one JSON object a line; each case in a child
    runner.py --call CASE FUNCTION JSON-ARGUMENTS

Serving costs one start of Python for all cases, which under emulation takes longer than many of
them. What a case prints goes out as it comes; then one line with MARK and the verdict.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path
from types import ModuleType

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))

import target  # noqa: E402
import tm  # noqa: E402

MARK = "\x1eRESULT "
CASES = Path(__file__).resolve().parent / "cases"


def load(name: str) -> ModuleType:
    path = CASES / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"case_{name.replace('-', '_')}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def child(request: dict) -> int:
    """The case itself, in a process of its own. Exit status: 0 passed, 1 failed, 77 skipped."""
    case = tm.Case(request["case"], request.get("disks", ()), request.get("full", False),
                   request.get("target", "stock"))
    case.scratch.mkdir(parents=True, exist_ok=True)
    status = 0
    try:
        load(request["file"]).run(case)
    except tm.Skipped as err:
        print(f"skipped: {err}", flush=True)
        status = 77
    except tm.Failed as err:
        frame = traceback.extract_tb(err.__traceback__)
        # Where in the case, not where in tm.py.
        where = [f for f in frame if "/cases/" in f.filename] or list(frame)
        print(f"FAILED at {Path(where[-1].filename).name}:{where[-1].lineno}: {err}", flush=True)
        status = 1
    except Exception:
        traceback.print_exc(file=sys.stdout)
        status = 1
    try:
        case.close()
    except Exception as err:
        print(f"FAILED while undoing: {err}", flush=True)
        status = 1
    sys.stdout.flush()
    return status


def wait_child(pid: int, limit: float) -> int | None:
    """The child's status, or None when it was killed for taking too long."""
    fd = os.pidfd_open(pid)
    try:
        import select
        ready, _, _ = select.select([fd], [], [], limit)
        if not ready:
            return None
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        os.close(fd)


def blocked() -> None:
    """Say who hangs where, before the hanging ones are killed."""
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            state = (proc / "stat").read_text().rsplit(")", 1)[1].split()[0]
            if state == "D":
                print(f"blocked: {proc.name} {(proc / 'comm').read_text().strip()}\n"
                      f"{(proc / 'stack').read_text()}", flush=True)
        except OSError:
            continue


def one(request: dict) -> dict:
    started = time.monotonic()
    cursor = tm.journal_cursor()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        code = 1
        try:
            code = child(request)
        finally:
            os._exit(code)
    limit = request["limit"] * tm.PATIENCE
    status = wait_child(pid, limit)
    if status is None:
        print(f"FAILED: not done after {limit:g} s", flush=True)
        blocked()
    # Whatever the case started in its session ends with it.
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    if status is None:
        os.waitpid(pid, 0)
    # Events of what it made and removed: udev would still be at them in the next case, and take away
    # links of the same names there.
    tm.sh(["udevadm", "settle", "--timeout=60"], check=False, limit=90)
    ok = status in (0, 77)
    wanted = request.get("target", "stock")
    left = tm.leftovers()
    if left:
        # What udev or the kernel is still taking away is not left behind.
        try:
            tm.wait_for(lambda: not tm.leftovers(), 5, "clean", every=0.3)
            left = []
        except tm.Failed:
            left = tm.leftovers()
    if left:
        ok = False
        for line in left:
            print(f"FAILED: left behind: {line}", flush=True)
    if not ok and tm.installed():
        argv = ["journalctl", "--no-pager", "-o", "short-precise", "-u", "thinmgrd", "-n", "80"]
        if cursor:
            argv.append(f"--cursor={cursor}")
        for line in tm.sh(argv, check=False).out.splitlines():
            print(f"journal: {line}", flush=True)
    # Last, when nothing is mounted there or uses files in it.
    if left:
        tm.force_clean()
    if target.current() not in (wanted, None):
        print(f"FAILED: left behind: the targets in use are {target.current()}, not {wanted}", flush=True)
        ok = False
        target.use(wanted)
    shutil.rmtree(tm.Case(request["case"]).scratch, ignore_errors=True)
    return {"case": request["case"], "ok": ok, "skipped": status == 77 and ok,
            "seconds": round(time.monotonic() - started, 2)}


def serve() -> None:
    for line in sys.stdin:
        result = one(json.loads(line))
        print(MARK + json.dumps(result), flush=True)


def main(argv: list[str]) -> int:
    if argv[:1] == ["--serve"]:
        serve()
        return 0
    if argv[:1] == ["--call"] and len(argv) == 4:
        try:
            result = getattr(load(argv[1]), argv[2])(*json.loads(argv[3]))
        except tm.Failed as err:
            print(f"FAILED: {err}", flush=True)
            return 1
        print(MARK + json.dumps(result), flush=True)
        return 0
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
