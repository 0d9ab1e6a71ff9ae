# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the cases, and runs them in a machine, one after the other. Which of them in which: schedule.py.

A case is a file in cases/. Constants at its top say how it wants to run; they are read without
running the file:

    SUITES    suites it runs on; ["bookworm"] unless given
    LIMIT     seconds it may take; 60 unless given
    DISKS     sizes of the throw-away disks it needs, as in ["2G"]
    OWN_BOOT  True: a machine of its own
    IMAGE     the variant of the image it needs, as image/packages names it; then OWN_BOOT as well
    DEFAULT   False: runs only when it is asked for by name
    HOST      True: run(t) runs on the host and drives the machine (resets it, say)
    PACKAGE   False: runs without thinmgr installed as well as with it
    MODULE    True: needs our kernel module in the machine, whichever target is in use
    ALLOW_LOG patterns of kernel messages that it provokes on purpose

Its function run(t) does the work: with a tm.Case inside the machine, or a HostCase on the host.
Either tells as t.target whose thin-pool and thin targets are to be in use: "ours" or "stock".
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import queue
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType

from . import deb, module, scan, vm
from .util import VM_DIR, LabError, say

GUEST_HOME = "/usr/local/lib/thinlab"
MARK = "\x1eRESULT "
CASES_DIR = VM_DIR / "cases"
# What a shared machine has at least, so that adding a case seldom changes it.
SHARED_DISKS = ("4G", "4G")
# Whose thin-pool and thin: those of kernel/, or the distribution's.
TARGETS = ("ours", "stock")


@dataclass
class CaseInfo:
    name: str
    path: Path
    suites: list[str] = field(default_factory=lambda: ["bookworm"])
    limit: float = 60
    disks: list[str] = field(default_factory=list)
    own_boot: bool = False
    image: str = ""
    default: bool = True
    host: bool = False
    package: bool = True
    module: bool = False
    allow_log: list[str] = field(default_factory=list)


def read_info(path: Path) -> CaseInfo:
    """A case's constants, without running it."""
    info = CaseInfo(path.stem, path)
    for node in ast.parse(path.read_text(), str(path)).body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and \
                isinstance(node.targets[0], ast.Name):
            key = node.targets[0].id
            if key in ("SUITES", "LIMIT", "DISKS", "OWN_BOOT", "HOST", "PACKAGE", "MODULE",
                       "IMAGE", "DEFAULT", "ALLOW_LOG"):
                setattr(info, key.lower(), ast.literal_eval(node.value))
    return info


def find(directory: Path = CASES_DIR) -> list[CaseInfo]:
    return [read_info(path) for path in sorted(directory.glob("*.py"))]


def size_bytes(text: str) -> int:
    unit = {"K": 10, "M": 20, "G": 30, "T": 40}
    return int(text[:-1]) << unit[text[-1]] if text[-1] in unit else int(text)


def shared_disks(cases: Sequence[CaseInfo]) -> list[str]:
    """For each place the largest size any case asks for."""
    wanted = [list(SHARED_DISKS), *(c.disks for c in cases)]
    count = max(len(d) for d in wanted)
    return [max((d[i] for d in wanted if i < len(d)), key=size_bytes) for i in range(count)]


@dataclass
class Verdict:
    name: str
    ok: bool
    seconds: float
    skipped: bool = False
    why: str = ""  # the first thing that was said of a failure


class Machine:
    """A booted machine with the cases' files, the test programs and the package in it."""

    def __init__(self, options: vm.Options, label: str, package: bool, module: bool,
                 target: str) -> None:
        self.vm = vm.VM(options, vm.new_run_dir(f"{options.suite}-{label}"))
        self.package = package
        self.module = module
        self.target = target
        self.server: subprocess.Popen | None = None
        self.lines: queue.Queue[str | None] = queue.Queue()

    def __enter__(self) -> Machine:
        started = time.monotonic()
        self.vm.start()
        try:
            provide(self.vm, self.package, self.target, self.module)
        except BaseException:
            self.vm.save_logs()
            self.vm.kill()
            raise
        say(f"lab: {self.vm.options.suite} is up, {time.monotonic() - started:.1f} s; "
            f"logs in {self.vm.dir}")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop_server()
        if self.vm.alive():
            self.vm.save_logs()
        if not self.vm.options.keep:
            self.vm.kill()

    # The runner in the guest: a thread reads its lines, so that waiting for one can have a limit.

    def start_server(self) -> None:
        self.server = self.vm.popen(f"cd / && exec {self.vm.environment()} python3 -u {GUEST_HOME}/runner.py --serve",
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                    stderr=subprocess.STDOUT)
        self.lines = queue.Queue()
        threading.Thread(target=self._read, args=(self.server, self.lines), daemon=True).start()

    @staticmethod
    def _read(server: subprocess.Popen, lines: queue.Queue[str | None]) -> None:
        assert server.stdout is not None
        for raw in server.stdout:
            lines.put(raw.decode(errors="replace").rstrip("\n"))
        lines.put(None)

    def stop_server(self) -> None:
        if self.server is not None:
            self.server.kill()
            self.server.wait()
            self.server = None

    def run_inside(self, case: CaseInfo) -> Verdict:
        """Run a case by the guest's runner. LabError: the machine is of no use any more."""
        if self.server is None or self.server.poll() is not None:
            self.start_server()
        assert self.server is not None and self.server.stdin is not None
        disks = [f"/dev/vd{chr(ord('b') + i)}" for i in range(len(self.vm.options.disks))]
        request = {"case": case.name, "file": case.path.stem, "limit": case.limit, "disks": disks,
                   "full": os.environ.get("FULL") == "1", "target": self.target}
        self.server.stdin.write(json.dumps(request).encode() + b"\n")
        self.server.stdin.flush()
        # The runner ends the case itself at its limit; past this the machine hangs.
        end = time.monotonic() + (case.limit + 90) * self.vm.patience
        why = ""
        while True:
            try:
                line = self.lines.get(timeout=max(0.1, end - time.monotonic()))
            except queue.Empty:
                self.vm.show_blocked()
                raise LabError(f"{case.name}: the machine hangs") from None
            if line is None:
                raise LabError(f"{case.name}: the connection to the machine broke")
            if line.startswith(MARK):
                result = json.loads(line[len(MARK):])
                return Verdict(case.name, result["ok"], result["seconds"], result["skipped"], why)
            if not why and (line.startswith("FAILED") or ": FAILED:" in line):
                why = line
            say(f"[{self.vm.options.suite} {case.name}] {line}")


# Loads our module whenever the machine starts, before anything asks for thin-pool.
LOAD_OURS = """# SPDX-License-Identifier: GPL-2.0-or-later
[Unit]
Before=thinmgrd.service
[Service]
Type=oneshot
RemainAfterExit=yes
WorkingDirectory={home}
ExecStart=python3 -B -c 'import target; target.use("ours")'
[Install]
WantedBy=multi-user.target
"""


def provide(machine: vm.VM, package: bool, target: str = "stock", with_module: bool = False) -> None:
    """Copy the cases and what they use into a machine, put the target into use, and install thinmgr."""
    files = [*((path, f"{GUEST_HOME}/{path.name}") for path in (VM_DIR / "guest").glob("*.py")),
             (CASES_DIR, f"{GUEST_HOME}/cases")]
    built = deb.get(machine.options.suite) if package else None
    if built:
        files += [(built.deb, "/root/thinmgr.deb"), (built.dkms, "/root/thinmgr-dkms.deb"), (built.tools, "/root/tools.tar")]
    if machine.options.debug:
        files.append((machine.options.debug.modules, "/root/modules.tar.gz"))
    if with_module or target == "ours":
        built_module = module.get(machine.options.suite, machine.options.debug)
        booted = machine.sh("uname -r").strip()
        if booted != built_module.release:
            raise LabError(f"the machine runs kernel {booted}, but the module was built for {built_module.release}")
        files.append((built_module.ko, f"{GUEST_HOME}/module/{module.NAME}"))
    machine.put(files)
    if machine.options.debug:
        machine.sh("tar -C /usr -xf /root/modules.tar.gz && depmod")
    if target == "ours":
        machine.sh("cat >/etc/systemd/system/thinlab-target.service",
                   data=LOAD_OURS.format(home=GUEST_HOME).encode())
        machine.sh("systemctl -q enable --now thinlab-target.service")
    if built:
        machine.sh(f"mkdir -p {GUEST_HOME}/tools && tar -C {GUEST_HOME}/tools -xf /root/tools.tar")
        machine.sh("dpkg -i /root/thinmgr.deb", limit=180)
        try:
            machine.sh(f"cd {GUEST_HOME} && python3 -c 'import tm; tm.wait_ready(60)'", limit=120)
        except LabError as err:
            status = machine.sh("systemctl status --no-pager --full -n 50 thinmgrd", check=False)
            raise LabError(f"thinmgrd does not come up after installation: {err}\n{status}") from err
    # A case may reset the machine: that must not undo the installation.
    machine.sh("sync")


class HostCase:
    """What run(t) gets on the host: the machine, and calls of the case's own functions in it."""

    def __init__(self, case: CaseInfo, machine: vm.VM, target: str) -> None:
        self.name = case.name
        self.case = case
        self.vm = machine
        self.target = target

    def log(self, text: str) -> None:
        say(f"[{self.vm.options.suite} {self.name}] {text}")

    step = log

    def check(self, condition: object, text: str) -> None:
        if not condition:
            raise LabError(f"not so: {text}")

    def equal(self, got: object, wanted: object, text: str) -> None:
        if got != wanted:
            raise LabError(f"{text}: {got!r}, expected {wanted!r}")

    def call(self, function: str, *args: object, limit: float = 120) -> object:
        """Run a function of the case's file inside the machine and return its (JSON) result."""
        result: list[object] = []

        def line(text: str) -> None:
            if text.startswith(MARK):
                result.append(json.loads(text[len(MARK):]))
            else:
                self.log(text)

        status = self.vm.stream(
            f"cd / && {self.vm.environment()} python3 -u {GUEST_HOME}/runner.py --call {self.case.path.stem} {function} "
            f"{shlex.quote(json.dumps(list(args)))}", limit, line)
        if status != 0 or not result:
            raise LabError(f"{function}() in the machine failed, exit status {status}")
        return result[0]

    def start(self, function: str, *args: object) -> subprocess.Popen:
        """Start a function of the case's file inside the machine, without waiting for it."""
        return self.vm.popen(
            f"cd / && exec {self.vm.environment()} python3 -u {GUEST_HOME}/runner.py --call {self.case.path.stem} {function} "
            f"{shlex.quote(json.dumps(list(args)))}",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def reset(self, limit: float = vm.BOOT_LIMIT) -> None:
        """Reset the machine and wait until it is up again."""
        self.vm.reset()
        self.vm.wait_up(limit)


def load_host_case(case: CaseInfo) -> ModuleType:
    sys.path.insert(0, str(VM_DIR / "guest"))
    try:
        spec = importlib.util.spec_from_file_location(f"case_{case.name}", case.path)
        assert spec and spec.loader
        code = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(code)
    finally:
        sys.path.pop(0)
    return code


def run_on_host(case: CaseInfo, machine: Machine) -> Verdict:
    started = time.monotonic()
    try:
        code = load_host_case(case)
    except Exception as err:
        why = f"FAILED: it cannot be loaded: {err!r}"
        say(f"[{machine.vm.options.suite} {case.name}] {why}")
        return Verdict(case.name, False, time.monotonic() - started, why=why)
    # The limit works by ending the machine, on which everything the case does depends.
    limit = case.limit * machine.vm.patience
    timer = threading.Timer(limit, machine.vm.proc.kill) if machine.vm.proc else None
    if timer:
        timer.start()
    why = ""
    try:
        code.run(HostCase(case, machine.vm, machine.target))
        if machine.target == "ours":
            machine.vm.sh("[ -d /sys/module/dm_thinmgr ] && [ ! -d /sys/module/dm_thin_pool ] || "
                          "{ echo 'the targets in use are not ours any more'; exit 1; }")
    except Exception as err:
        late = time.monotonic() - started >= limit
        why = "FAILED: " + (f"not done after {limit:g} s" if late else str(err))
        say(f"[{machine.vm.options.suite} {case.name}] {why}")
    finally:
        if timer:
            timer.cancel()
    return Verdict(case.name, not why, time.monotonic() - started, why=why)


def judge_log(case: CaseInfo, machine: Machine, verdict: Verdict) -> Verdict:
    """A case fails when the kernel complained while it ran."""
    bad = scan.bad_lines(machine.vm.scanner.new_text(), case.allow_log)
    for line in bad[:40]:
        say(f"[{machine.vm.options.suite} {case.name}] kernel: {line}")
    if bad:
        verdict = replace(verdict, ok=False, why=verdict.why or f"kernel: {bad[0]}")
    return verdict


def run_one(case: CaseInfo, machine: Machine) -> tuple[Verdict, bool]:
    """A case in a machine, and whether the machine is of use for another one after it."""
    suite = machine.vm.options.suite
    started = time.monotonic()
    try:
        verdict = run_on_host(case, machine) if case.host else machine.run_inside(case)
    except (LabError, BrokenPipeError) as err:
        say(f"[{suite} {case.name}] FAILED: {err}")
        return judge_log(case, machine, Verdict(case.name, False, time.monotonic() - started, why=str(err))), False
    verdict = judge_log(case, machine, verdict)
    # Inside, the runner cleans up after a case that failed. One on the host may have left anything, in any state.
    sound = machine.vm.alive() and (verdict.ok or not case.host)
    if sound and machine.vm.options.debug and not verdict.skipped:
        try:
            lost = leaks(machine)
        except LabError as err:
            lost, sound = f"kmemleak: {err}", False
        verdict = replace(verdict, ok=verdict.ok and not lost, why=verdict.why or lost)
    word = "skipped" if verdict.skipped else "passed" if verdict.ok else "FAILED"
    say(f"[{suite} {case.name}] {word}, {verdict.seconds:.1f} s")
    return verdict, sound


def run_group(take: Callable[[], CaseInfo | None], begin: Callable[[], Machine], done: Callable[[Verdict], None]) -> None:
    """Run the cases that take() hands out, one after the other, until it has no more. A machine that breaks is
    replaced. LabError: there is none to be had. Whatever is raised, the case that was taken is done, and failed."""
    case = take()
    while case:
        try:
            machine = begin()
            with machine:
                bad = scan.bad_lines(machine.vm.scanner.new_text())
                if bad:
                    raise LabError("the kernel complained before any case ran:\n" + "\n".join(bad))
                sound = True
                while case and sound:
                    verdict, sound = run_one(case, machine)
                    done(verdict)
                    case = take()
                if machine.vm.options.keep:
                    say("lab: the machine keeps running\n" + machine.vm.how_to_get_in())
        except BaseException as err:
            say(f"lab: {err if isinstance(err, LabError) else repr(err)}")
            if case:
                done(Verdict(case.name, False, 0, why=str(err) or repr(err)))
            raise


# Two scans: the first one leaves out what is younger than a few seconds. Only what our module allocated, by
# itself or through what it calls, is its leak.
LEAKS = """cd /sys/kernel/debug || exit 1
[ -e kmemleak ] || mount -t debugfs none . && cd /sys/kernel/debug
echo scan >kmemleak; sleep 6; echo scan >kmemleak; cat kmemleak"""


def leaks(machine: Machine) -> str:
    """What kmemleak has found since the boot, in a line; "" when that is nothing."""
    found = [report for report in re.split(r"^(?=unreferenced object)", machine.vm.sh(LEAKS, limit=600), flags=re.M)
             if "dtm_" in report or "dm_thinmgr" in report]
    machine.vm.scanner.new_text()  # it says in the log, too, that there were any
    for report in found[:10]:
        say(f"[{machine.vm.options.suite} kmemleak] {report.rstrip()}")
    text = f"{len(found)} leaks of the module"
    say(f"[{machine.vm.options.suite} kmemleak] {text}")
    return text if found else ""


def choose(wanted: Sequence[str], suite: str, all_cases: Sequence[CaseInfo]) -> list[CaseInfo]:
    """The cases named, or all that run on the suite by default. A name asked for runs on any suite."""
    if not wanted:
        return [c for c in all_cases if suite in c.suites and c.default]
    known = {c.name: c for c in all_cases}
    for name in wanted:
        if name not in known:
            raise LabError(f"no case {name}; there are: {', '.join(sorted(known))}")
    return [known[name] for name in wanted]
