# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line of tests/vm/run."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from . import image, vm
from .util import LabError, say


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="tests/vm/run", description=(
        "Boots a disposable Debian machine and runs thinmgr's cases in it."))
    what = p.add_mutually_exclusive_group()
    what.add_argument("--shell-cmd", metavar="COMMAND", help="run one shell command as root, then end")
    what.add_argument("--shell", action="store_true", help="an interactive shell, then end")
    what.add_argument("--image", action="store_true", help="only make sure the image exists")
    p.add_argument("--suite", default=os.environ.get("SUITE") or "bookworm", choices=image.SUITES)
    p.add_argument("--put", action="append", default=[], metavar="HOST:GUEST",
                   help="copy a file or directory into the machine first")
    p.add_argument("--get", action="append", default=[], metavar="GUEST:HOST",
                   help="copy a file out at the end")
    p.add_argument("--disk", action="append", default=[], metavar="SIZE",
                   help="a throw-away disk, as in 2G (/dev/vdb, /dev/vdc, ...)")
    p.add_argument("--disk-cache", default="unsafe", help="QEMU's cache mode of those disks")
    p.add_argument("--memory", type=int, default=2048, metavar="MIB")
    p.add_argument("--icount", action="store_true", help="time counts instructions (one CPU)")
    p.add_argument("--limit", type=float, default=600, help="seconds for the command")
    p.add_argument("--kernel", type=Path, help="boot this kernel, without an initrd")
    p.add_argument("--append", default="", help="more kernel arguments")
    p.add_argument("--keep", action="store_true", default=os.environ.get("KEEP") == "1",
                   help="leave the machine running and say how to get in (KEEP=1)")
    return p


def accel() -> str:
    """TCG unless KVM is asked for and proves that it works."""
    if os.environ.get("ACCEL") != "kvm":
        return "tcg"
    if vm.kvm_works():
        return "kvm"
    say("lab: ACCEL=kvm asked for, but no guest starts under KVM here; using emulation")
    return "tcg"


def options(args: argparse.Namespace) -> vm.Options:
    return vm.Options(suite=args.suite, memory_mib=args.memory, disks=args.disk,
                      cache=args.disk_cache, icount=args.icount, accel=accel(), kernel=args.kernel,
                      append=args.append, keep=args.keep)


def pair(text: str) -> tuple[str, str]:
    left, colon, right = text.partition(":")
    if not colon or not left or not right:
        raise LabError(f"not of the form FROM:TO: {text}")
    return left, right


def command(args: argparse.Namespace) -> int:
    """--shell-cmd and --shell: a machine for one purpose."""
    puts = [(Path(a), b) for a, b in map(pair, args.put)]
    gets = [(a, Path(b)) for a, b in map(pair, args.get)]
    with vm.VM(options(args), vm.new_run_dir(f"{args.suite}-shell")) as machine:
        if puts:
            machine.put(puts)
        if args.shell:
            argv = [a for a in machine.ssh_argv() if a not in ("-T", "-q")]
            status = subprocess.run([*argv[:1], "-t", *argv[1:]]).returncode
        else:
            status = machine.stream(args.shell_cmd, args.limit, say)
        for source, target in gets:
            machine.get(source, target)
        machine.save_logs()
        say(f"lab: logs in {machine.dir}")
        if args.keep:
            say("lab: the machine keeps running\n" + machine.how_to_get_in())
    return status


def main() -> int:
    args = parser().parse_args()
    vm.on_signals()
    try:
        if args.image:
            say(str(image.get(args.suite).path))
            return 0
        if args.shell_cmd or args.shell:
            return command(args)
        return 0
    except LabError as err:
        print(f"lab: {err}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted", file=sys.stderr)
        return 130
