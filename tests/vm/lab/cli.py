# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line of tests/vm/run."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from . import cases, deb, debugkernel, image, scan, schedule, vm
from .util import BUILD, REPO, VM_DIR, LabError, record, say


DEMOS = ("growth", "repair")
KERNEL_PARTS = ("counted", "timed")  # of --bench-kernel


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="tests/vm/run", description=(
        "Boots a disposable Debian machine and runs thinmgr's cases in it."))
    what = p.add_mutually_exclusive_group()
    what.add_argument("--shell-cmd", metavar="COMMAND", help="run one shell command as root, then end")
    what.add_argument("--shell", action="store_true", help="an interactive shell, then end")
    what.add_argument("--cases", nargs="*", metavar="CASE",
                      help="run the cases named, or all that run on the suite")
    what.add_argument("--list", action="store_true", help="list the cases")
    what.add_argument("--deb", action="store_true", help="only build the suite's package")
    what.add_argument("--demo", nargs="?", const="growth", choices=DEMOS, metavar="NAME",
                      help="a story of tests/vm/demo/ in a fresh machine: " + ", ".join(DEMOS))
    what.add_argument("--bench", action="store_true",
                      help="tests/bench/run.py in a machine whose time counts instructions")
    what.add_argument("--bench-kernel", action="store_true",
                      help="tests/bench/kernel.py in two machines: one that counts instructions, one that does not")
    what.add_argument("--image", action="store_true", help="only make sure the image exists")
    p.add_argument("--bench-args", default="", metavar="ARGS",
                   help="more arguments for tests/bench/run.py (or kernel.py), as in '--rounds 3 --only lvm2,tie'")
    p.add_argument("--part", default="", choices=("", *KERNEL_PARTS), help="only this one of --bench-kernel")
    p.add_argument("--suite", default=os.environ.get("SUITE") or "bookworm", choices=image.SUITES)
    p.add_argument("--target", default=os.environ.get("TARGET") or "ours", choices=cases.TARGETS,
                   help="whose thin-pool and thin: ours, built for the machine, or the distribution's")
    p.add_argument("--install", action="store_true",
                   help="build thinmgr's package and install it in the machine first")
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
    p.add_argument("--debug-kernel", action="store_true",
                   help="with KASAN, lockdep, kmemleak and fault injection; built first, which takes minutes")
    p.add_argument("--machines", type=int, default=int(os.environ.get("MACHINES") or 0), metavar="N",
                   help="run the cases in that many machines at once; without it, as many as the host has "
                        "cores and memory for (MACHINES=N)")
    p.add_argument("--append", default="", help="more kernel arguments")
    p.add_argument("--keep", action="store_true", default=os.environ.get("KEEP") == "1",
                   help="leave the machine running and say how to get in (KEEP=1)")
    return p


def accel(suite: str) -> str:
    """TCG unless KVM is asked for and proves that it works."""
    if os.environ.get("ACCEL") != "kvm":
        return "tcg"
    if vm.kvm_works(image.get(suite)):
        return "kvm"
    say("lab: ACCEL=kvm asked for, but no guest starts under KVM here; using emulation")
    return "tcg"


def debug_kernel(args: argparse.Namespace) -> debugkernel.DebugKernel | None:
    return debugkernel.get(args.suite) if args.debug_kernel else None


def options(args: argparse.Namespace) -> vm.Options:
    return vm.Options(suite=args.suite, memory_mib=args.memory, disks=args.disk,
                      cache=args.disk_cache, icount=args.icount, accel=accel(args.suite), kernel=args.kernel,
                      append=args.append, keep=args.keep, debug=debug_kernel(args))


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
        if args.install or args.target == "ours":
            cases.provide(machine, args.install, args.target)
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


def run_cases(args: argparse.Namespace) -> int:
    started = time.monotonic()
    how = schedule.How(args.suite, args.target, accel(args.suite), args.keep, debug_kernel(args))
    verdicts = schedule.run_cases(args.cases, how, args.machines)
    failed = [v for v in verdicts if not v.ok]
    passed = len(verdicts) - len(failed)
    say("")
    for v in sorted(verdicts, key=lambda v: not v.ok):  # what failed last, where a cut-off log has it
        word = "FAILED" if not v.ok else "skipped" if v.skipped else "passed"
        say(f"  {v.name:<28} {word:<8} {v.seconds:7.1f} s" + (f"  {v.why[:600]}" if v.why else ""))
    record(f"vm-{args.suite}", passed, len(failed))
    say(f"  {args.suite}: {time.monotonic() - started:.0f} s in all")
    say(f"{passed} passed, {len(failed)} failed")
    return 1 if failed else 0


def demo(args: argparse.Namespace) -> int:
    """The whole story in a fresh machine; with --keep the API is reachable afterwards."""
    opts = options(args)
    opts.disks = opts.disks or ["6G"]
    with vm.VM(opts, vm.new_run_dir(f"{args.suite}-demo")) as machine:
        cases.provide(machine, True, args.target)
        machine.put([(VM_DIR / "demo", f"{cases.GUEST_HOME}/demo")])
        status = machine.stream(
            f"cd / && exec env KEEP={int(args.keep)} python3 -u {cases.GUEST_HOME}/demo/{args.demo}.py",
            args.limit, say)
        machine.save_logs()
        bad = scan.bad_lines(machine.scanner.new_text())
        for line in bad:
            say(f"lab: kernel: {line}")
        say(f"lab: journal and kernel log in {machine.dir}")
        if args.keep:
            sock = machine.forward_socket("/run/thinmgr/thinmgr.sock")
            say("lab: the machine keeps running\n" + machine.how_to_get_in() +
                f"\n  the API:      curl --unix-socket {sock} http://localhost/v1/pools")
    return status or (1 if bad else 0)


BENCH_LIMIT = 3600  # seconds of the host


def bench(args: argparse.Namespace) -> int:
    opts = options(args)
    opts.icount = True
    opts.memory_mib = max(opts.memory_mib, 6144)  # what is measured lies on RAM disks
    opts.lifetime = BENCH_LIMIT + 600
    with vm.VM(opts, vm.new_run_dir(f"{args.suite}-bench")) as machine:
        cases.provide(machine, True, args.target)
        machine.put([(REPO / "tests" / "bench", f"{cases.GUEST_HOME}/bench")])
        status = machine.stream(
            f"cd / && exec env PYTHONPATH={cases.GUEST_HOME} python3 -u "
            f"{cases.GUEST_HOME}/bench/run.py /root/bench.json {args.bench_args}",
            max(args.limit, BENCH_LIMIT), say)
        machine.save_logs()
        bad = scan.bad_lines(machine.scanner.new_text())
        for line in bad:
            say(f"lab: kernel: {line}")
        if status == 0:
            machine.get("/root/bench.json", BUILD / "bench.json")
            say(f"lab: results in {BUILD / 'bench.json'}")
        say(f"lab: journal and kernel log in {machine.dir}")
    return status or (1 if bad else 0)


def bench_kernel(args: argparse.Namespace) -> int:
    """Our targets and the distribution's side by side: by instructions, then by time."""
    workloads: list[dict] = []
    release = ""
    for part in [p for p in KERNEL_PARTS if args.part in ("", p)]:
        opts = options(args)
        opts.icount = part == "counted"
        opts.lifetime = BENCH_LIMIT + 600
        with vm.VM(opts, vm.new_run_dir(f"{args.suite}-bench-{part}")) as machine:
            cases.provide(machine, False, "stock", with_module=True)
            machine.put([(REPO / "tests" / "bench", f"{cases.GUEST_HOME}/bench"),
                         (deb.get(args.suite).tools, "/root/tools.tar")])
            machine.sh(f"mkdir -p {cases.GUEST_HOME}/tools && tar -C {cases.GUEST_HOME}/tools -xf /root/tools.tar")
            release = machine.sh("uname -r").strip()
            status = machine.stream(
                f"cd / && exec env PYTHONPATH={cases.GUEST_HOME} python3 -u "
                f"{cases.GUEST_HOME}/bench/kernel.py {part} /root/bench.json {args.bench_args}",
                max(args.limit, BENCH_LIMIT), say)
            machine.save_logs()
            bad = scan.bad_lines(machine.scanner.new_text())
            for line in bad:
                say(f"lab: kernel: {line}")
            if status or bad:
                say(f"lab: journal and kernel log in {machine.dir}")
                return status or 1
            result = BUILD / f"bench-kernel-{part}.json"
            machine.get("/root/bench.json", result)
            workloads += json.loads(result.read_text())["workloads"]
    worse = [w["name"] for w in workloads if w["ratio"] > 1]
    result = BUILD / "bench-kernel.json"
    result.write_text(json.dumps({"suite": args.suite, "kernel": release, "workloads": workloads}, indent=1) + "\n")
    say(f"lab: {len(workloads)} workloads, {len(worse)} of them dearer with ours; results in {result}")
    return 0


def main() -> int:
    args = parser().parse_args()
    vm.on_signals()
    try:
        if args.image:
            say(str(image.get(args.suite).path))
            return 0
        if args.list:
            for case in cases.find():
                say(f"{case.name:<28} {','.join(case.suites):<18} {case.limit:5g} s")
            return 0
        if args.deb:
            say(str(deb.get(args.suite).deb))
            return 0
        if args.demo:
            return demo(args)
        if args.bench:
            return bench(args)
        if args.bench_kernel:
            return bench_kernel(args)
        if args.shell_cmd or args.shell:
            return command(args)
        args.cases = args.cases or []
        return run_cases(args)
    except LabError as err:
        print(f"lab: {err}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted", file=sys.stderr)
        return 130
