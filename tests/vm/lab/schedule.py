# SPDX-License-Identifier: GPL-2.0-or-later
"""Shares cases out among machines that run at the same time.

Most cases can share a machine, and the start of one costs as much as some of them take; others want one of
their own. Each worker has one machine at a time. The first keeps a shared one for as long as there are cases
for it and turns to the others after that; the second does the same the other way round; and so on. The longest
come first, so that nobody is left with a long one at the end.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

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
        """Nothing more is begun, and what runs ends with its machine."""
        with self.lock:
            self.ended = True
        for machine in self.machines:
            machine.vm.kill()


def plan(chosen: Sequence[CaseInfo]) -> Plan:
    """The longest first; those with the same limit as they were."""
    longest = sorted(chosen, key=lambda c: -c.limit)
    shared = [c for c in longest if not c.own_boot]
    return Plan(shared, [c for c in longest if c.own_boot], tuple(shared))


def machines_at_once(wanted: int, jobs: int, memory_mib: int, cores: int | None = None,
                     available_mib: int | None = None) -> int:
    """How many machines to run: as many as asked for, or as the host has cores and memory for."""
    if wanted <= 0:
        cores = cores or len(os.sched_getaffinity(0))
        if available_mib is None:
            available_mib = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20
        wanted = min(cores, MOST_MACHINES, (available_mib - HOST_NEEDS_MIB) // memory_mib)
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

    try:
        for turn in (run_shared, run_own) if number % 2 == 0 else (run_own, run_shared):
            turn()
    except LabError as err:
        todo.trouble = str(err)  # others may fare better; what nobody takes is said in the end
    except Exception as err:  # a thread's end would not be noticed otherwise
        todo.trouble = f"{type(err).__name__}: {err}"
        say(f"lab: {todo.trouble}")


def build(chosen: Sequence[CaseInfo], how: How) -> None:
    """What the machines are made of, so that they need not wait for one another for it."""
    for variant in sorted({c.image for c in chosen}):
        image.get(how.suite, variant)
    if any(c.package for c in chosen):
        deb.get(how.suite)
    if how.target == "ours" or any(c.module for c in chosen):
        module.get(how.suite, how.debug)


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
    todo = plan(chosen)
    count = 1 if how.keep else machines_at_once(machines, len(chosen), how.memory_mib)
    if count > 1:
        say(f"lab: {len(chosen)} cases in {count} machines at once")
    return verdicts + share_out(todo, how, count, run)


def share_out(todo: Plan, how: How, count: int, run: Callable[[int, Plan, How], None] = worker) -> list[Verdict]:
    """Have `count` workers do all of it. What none of them took has failed, too."""
    threads = [threading.Thread(target=run, args=(number, todo, how), daemon=True) for number in range(count)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        todo.end()
        raise
    return todo.verdicts + [Verdict(c.name, False, 0, why=todo.trouble or "not run")
                            for c in [*todo.shared, *todo.own]]
