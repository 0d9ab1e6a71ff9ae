# SPDX-License-Identifier: GPL-2.0-or-later
"""Telling a story in the machine: commands are shown with what they print, claims are checked.

A demonstration uses the installed package and nothing but what a user has. It ends with status 0 only
if every claim holds.
"""
from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

failures: list[str] = []


def say(text: str = "") -> None:
    print(text, flush=True)


def title(text: str) -> None:
    say(f"\n== {text}")


def run(*argv: str, show: bool = True, check: bool = True) -> str:
    if show:
        say("  $ " + " ".join(argv))
    done = subprocess.run(argv, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if show:
        for line in done.stdout.splitlines():
            say("    " + line)
    if check and done.returncode != 0:
        if not show:
            say(done.stdout)
        sys.exit(f"demo: '{' '.join(argv)}' ended with status {done.returncode}")
    return done.stdout


def claim(what: str, holds: bool, shown: str = "") -> None:
    say(f"  [{'ok' if holds else 'NOT SO'}] {what}{': ' + shown if shown else ''}")
    if not holds:
        failures.append(what)


def cli_json(*argv: str) -> dict:
    return json.loads(run("thinmgr", "--json", *argv, show=False))


def wait_for(what: str, condition: Callable[[], object], limit: float = 30) -> None:
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            sys.exit(f"demo: waited {limit:g} s in vain until {what}")
        time.sleep(0.1)


def kernel_log() -> str:
    return run("dmesg", show=False)


def events() -> list[dict]:
    return cli_json("event", "list", "--limit", "1000")["items"]


def service_runs() -> None:
    title("The package is installed and its service runs")
    run("dpkg-query", "-W", "-f=${Package} ${Version} ${Status}\n", "thinmgr")
    claim("thinmgrd is active", run("systemctl", "is-active", "thinmgrd").strip() == "active")
    run("thinmgr", "system")


def the_end(began: float, put_away: Callable[[], None]) -> int:
    """Unless the machine is to be looked around in, nothing is left. The status to end with."""
    title("The end")
    if os.environ.get("KEEP") != "1":
        put_away()
    say(f"  {time.monotonic() - began:.0f} s inside the machine")
    for text in failures:
        say(f"  NOT SO: {text}")
    say("  Every claim held." if not failures else f"  {len(failures)} claims did not hold.")
    return 1 if failures else 0
