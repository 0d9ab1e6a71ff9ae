# SPDX-License-Identifier: GPL-2.0-or-later
"""Shares cases out among machines that run at the same time.

Most cases can share a machine, and the start of one costs as much as some of them take; others want one of
their own. Each worker has one machine at a time. The first keeps a shared one for as long as there are cases
for it and turns to the others after that; the second does the same the other way round; and so on. The longest
come first, so that nobody is left with a long one at the end.
"""

from __future__ import annotations

import os
import re
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from . import cases, deb, debugkernel, image, module, vm
from .cases import CaseInfo, Machine, Verdict
from .util import LabError, say

# A machine keeps about one core busy: two processors, which mostly wait for one another or for a disk.
MOST_MACHINES = 4
MEMORY_MIB = 2048
DEBUG_MEMORY_MIB = 4096  # the kernel keeps its own records of every allocation
HOST_NEEDS_MIB = 1024
# Seconds that a machine lives beyond what its cases may take; what hangs must not stay for ever.
SPARE_LIFE = 900


@dataclass(frozen=True)
class How:
    """What all machines of a run have in common."""
    suite: str
    target: str
    accel: str = "tcg"
    keep: bool = False
    debug: debugkernel.DebugKernel | None = None

    @property
    def memory_mib(self) -> int:
        return DEBUG_MEMORY_MIB if self.debug else MEMORY_MIB


@dataclass
class Plan:
    """The cases still to run, and what became of the others."""
    shared: list[CaseInfo]
    own: list[CaseInfo]
    sharing: tuple[CaseInfo, ...] = ()  # all that any shared machine may be asked to run
    verdicts: list[Verdict] = field(default_factory=list)
    trouble: str = ""
    machines: list[Machine] = field(default_factory=list)
    ended: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, cases_left: list[CaseInfo]) -> CaseInfo | None:
        with self.lock:
            return None if self.ended or not cases_left else cases_left.pop(0)

    def done(self, verdict: Verdict) -> None:
        with self.lock:
            self.verdicts.append(verdict)

    def begin(self, machine: Machine) -> Machine:
        with self.lock:
            if self.ended:
                raise LabError("interrupted")
            self.machines.append(machine)
        return machine

    def end(self) -> None:
        """Nothing more is begun, and what runs ends with its machine; one that is to be kept stays."""
        with self.lock:
            self.ended = True
        for machine in self.machines:
            proc = machine.vm.proc  # its worker may be ending it as well
            if proc and proc.poll() is None and not machine.vm.options.keep:
                machine.vm.save_logs(limit=20)
                proc.kill()


def plan(chosen: Sequence[CaseInfo], count: int = 2) -> Plan:
    """For `count` machines: the longest first, and those with the same limit as they were. One takes all as they were."""
    order = sorted(chosen, key=lambda c: -c.limit) if count > 1 else chosen
    shared = [c for c in order if not c.own_boot]
    return Plan(shared, [c for c in order if c.own_boot], tuple(shared))


def available_mib() -> int:
    """Memory that can be had without swapping. (What is merely free leaves out what the page cache would give back.)"""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    return int(found[1]) >> 10 if found else 0


def machines_at_once(wanted: int, jobs: int, memory_mib: int, cores: int, memory_there_mib: int) -> int:
    """How many machines to run: as many as asked for, or as the host has cores and memory for."""
    if wanted <= 0:
        wanted = min(cores, MOST_MACHINES, (memory_there_mib - HOST_NEEDS_MIB) // memory_mib)
    return max(1, min(wanted, jobs))


def worker(number: int, todo: Plan, how: How) -> None:
    disks = cases.shared_disks(todo.sharing)
    package, with_module = any(c.package for c in todo.sharing), any(c.module for c in todo.sharing)
    all_limits = sum(c.limit for c in todo.sharing)

    def options(wanted_disks: Sequence[str], limits: float, variant: str = "") -> vm.Options:
        return vm.Options(suite=how.suite, variant=variant, disks=wanted_disks, accel=how.accel, keep=how.keep,
                          debug=how.debug, memory_mib=how.memory_mib, lifetime=limits + SPARE_LIFE)

    def run_shared() -> None:
        cases.run_group(lambda: todo.take(todo.shared),
                        lambda: todo.begin(Machine(options(disks, all_limits), f"shared-{number}", package, with_module, how.target)),
                        todo.done)

    def run_own() -> None:
        while case := todo.take(todo.own):
            left = [case]
            name, machine_options, its_package, its_module = (
                case.name, options(case.disks, case.limit, case.image), case.package, case.module)
            try:
                cases.run_group(lambda: left.pop() if left else None,
                                lambda: todo.begin(Machine(machine_options, name, its_package, its_module, how.target)),
                                todo.done)
            except LabError:
                pass  # said, and the case's verdict; the next may fare better

    for turn in (run_shared, run_own) if number % 2 == 0 else (run_own, run_shared):
        try:
            turn()
        except LabError as err:
            todo.trouble = str(err)  # others may fare better; what nobody takes is said in the end
        except BaseException as err:  # a thread's end would not be noticed otherwise
            todo.trouble = repr(err)
            say(f"lab: {todo.trouble}")


def build(chosen: Sequence[CaseInfo], how: How) -> None:
    """What the machines are made of, so that they need not wait for one another for it. What cannot be made fails
    the cases that need it, when their turn comes."""
    parts: list[Callable[[], object]] = [partial(image.get, how.suite, v) for v in sorted({c.image for c in chosen})]
    if any(c.package for c in chosen):
        parts.append(partial(deb.get, how.suite))
    if how.target == "ours" or any(c.module for c in chosen):
        parts.append(partial(module.get, how.suite, how.debug))
    for part in parts:
        try:
            part()
        except LabError as err:
            say(f"lab: {err}")


def run_cases(wanted: Sequence[str], how: How, machines: int = 0,
              run: Callable[[int, Plan, How], None] = worker) -> list[Verdict]:
    """Run the cases named, or all; `machines` at the same time (0: as the host allows)."""
    chosen = cases.choose(wanted, how.suite, cases.find())
    verdicts: list[Verdict] = []
    if how.target == "stock" and any(c.module for c in chosen):
        try:
            module.get(how.suite, how.debug)
        except LabError as err:  # the others can do without
            say(f"lab: {err}")
            verdicts += [Verdict(c.name, False, 0, why=str(err)) for c in chosen if c.module]
            chosen = [c for c in chosen if not c.module]
    if not chosen:
        return verdicts
    build(chosen, how)
    cores, there = len(os.sched_getaffinity(0)), available_mib()
    count = 1 if how.keep else machines_at_once(machines, len(chosen), how.memory_mib, cores, there)
    if len(chosen) > 1:
        why = "one machine, which is kept" if how.keep else f"at most {count} machines at once"
        say(f"lab: {len(chosen)} cases in {why} ({cores} cores, {there} MiB of memory)")
    return verdicts + share_out(plan(chosen, count), how, count, run)


# Seconds for the workers to unwind after an interrupt, each with its machine gone.
UNWIND = 20


def share_out(todo: Plan, how: How, count: int, run: Callable[[int, Plan, How], None] = worker) -> list[Verdict]:
    """Have `count` workers do all of it. Each case has a verdict in the end: what none of them did has failed."""
    wanted = Counter(c.name for c in [*todo.shared, *todo.own])
    threads = [threading.Thread(target=run, args=(number, todo, how), daemon=True) for number in range(count)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        todo.end()
        for thread in threads:
            if thread.ident:
                thread.join(UNWIND)
        raise
    missing = wanted - Counter(v.name for v in todo.verdicts)
    return todo.verdicts + [Verdict(name, False, 0, why=todo.trouble or "not run") for name in missing.elements()]
