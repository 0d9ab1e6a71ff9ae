# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds what must never be in a kernel log: bugs, warnings, lock-order reports, hung tasks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

BAD = re.compile(
    r"\bBUG:|\bWARNING: |\bOops\b|kernel BUG|possible circular locking|possible recursive locking|"
    r"inconsistent lock state|lockdep|\bINFO: (task|rcu)|blocked for more than|Call Trace:|"
    r"general protection fault|Kernel panic|KASAN|UBSAN|refcount_t:|scheduling while atomic|"
    r"sleeping function called|unable to handle|soft lockup|hard LOCKUP|rcu_sched self-detected|"
    r"kmemleak: [0-9]+ new|bad: scheduling|list_(add|del) corruption|DEBUG_LOCKS_WARN_ON|"
    r"(?<!Not )\btaint(s|ing|ed)?\b|Tainted: ")

# Said by the emulated hardware, not by anything thinmgr has a hand in; and that our module is not
# part of the kernel, nor signed by who built the kernel.
HARMLESS = re.compile(
    r"lockdep is turned off|WARNING: can't open objdir|"
    r"\bdm_thinmgr: loading out-of-tree module taints kernel\.$|"
    r"\bdm_thinmgr: module verification failed: signature and/or required key missing - tainting kernel$")


# A report with a stack: the line after its first, and its last.
STACK_BEGINS = re.compile(r"\bCPU: \d+ PID: \d+ Comm: ")
STACK_ENDS = re.compile(r"</TASK>")


def _reports(lines: list[str]) -> Iterator[list[str]]:
    """The lines, each by itself, but those of a report with a stack together."""
    number = 0
    while number < len(lines):
        end = number + 1
        if end < len(lines) and STACK_BEGINS.search(lines[end]):
            while end < len(lines) and not STACK_ENDS.search(lines[end]):
                end += 1
            end += 1
        yield lines[number:end]
        number = end


def bad_lines(text: str, allowed: Iterable[str] = ()) -> list[str]:
    """The lines of a kernel log that fail a case. `allowed`: patterns of what this case provokes
    itself, a line or a report with all of its stack."""
    own = [re.compile(pattern, re.DOTALL) for pattern in allowed]
    return [line.rstrip() for report in _reports(text.splitlines())
            if not any(pattern.search("\n".join(report)) for pattern in own)
            for line in report if BAD.search(line) and not HARMLESS.search(line)]


class LogScanner:
    """Reads a growing log file piece by piece; each piece is judged once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0

    def new_text(self) -> str:
        if not self.path.exists():
            return ""
        with self.path.open("rb") as log:
            log.seek(self.offset)
            data = log.read()
        # A line cut in half is left for the next look.
        whole = data[:data.rfind(b"\n") + 1]
        self.offset += len(whole)
        return whole.decode(errors="replace")
