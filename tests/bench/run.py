# SPDX-License-Identifier: GPL-2.0-or-later
"""How fast a pool is made larger: thinmgrd, a bare libdevmapper program, and LVM2's dmeventd.

    run.py RESULT.json [--rounds N] [--only PART,...]

Runs inside the test machine, whose time counts instructions (see docs/performance.md). Everything
lies on RAM disks: an instruction counter knows no disk latency. Nothing here passes or fails by
a time; what is wrong is said and ends the run.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, "/usr/local/lib/thinlab")
import repair  # noqa: E402
import tm  # noqa: E402

MIB = 1 << 20
BLOCK = 64 << 10
TRACING = Path("/sys/kernel/tracing")
TRACE = TRACING / "instances" / "bench"
PLACE = Path("/bench")
CGROUPS = Path("/sys/fs/cgroup/system.slice")

# Both managers are asked for the same: extend at 70 % used, by a fifth.
THRESHOLD, STEP = 70, 20
SERIES = {"data": 2, "metadata": 2, "tie": 1, "steady": 2}  # extensions of a pool, then a new one is made
TIE_MIB = 205         # 3,280 blocks: 70 % of them is a whole number, as it is of 9,840
# A pool's data space; for metadata enough never to grow.
START_MIB = {"data": 128, "metadata": 768, "tie": TIE_MIB, "steady": 768}
META_MIB = 4
SETTLE, WINDOW, LIMIT = 90, 3, 60   # seconds; a wait costs no real time here
RACE_START, RACE_MOST, RACE_WRITE = 512, 4096, 3072

# Where time is taken in the kernel: when a pool speaks up, when it is larger and runs again, and
# the requests in between.
PROBES = """
p:bench/event dm_table_event
r:bench/resumed pool_resume
p:bench/list list_devices
r:bench/list_end list_devices
p:bench/status table_status
r:bench/status_end table_status
p:bench/load table_load
r:bench/load_end table_load
p:bench/resume dev_suspend
r:bench/resume_end dev_suspend
p:bench/suspend dm_suspend
r:bench/suspend_end dm_suspend
p:bench/allocate vfs_fallocate
r:bench/allocate_end vfs_fallocate
p:bench/sync vfs_fsync_range
r:bench/sync_end vfs_fsync_range
"""
STOCK_PROBES = """
p:bench/larger_data dm_pool_resize_data_dev blocks=%si:u64
p:bench/larger_metadata dm_pool_resize_metadata_dev blocks=%si:u64
p:bench/mode set_pool_mode mode=%si:u32
"""
# Ours grows by a message, too: then it is larger when that is done.
OUR_PROBES = """
p:bench/larger_data dtm_pool_grow_data blocks=%si:u64
p:bench/larger_metadata dtm_pool_grow_metadata blocks=%si:u64
r:bench/grown_data dtm_pool_grow_data
r:bench/grown_metadata dtm_pool_grow_metadata
p:bench/mode dtm_events_add cause=%si:u32 mode=%dx:u32
"""
OUR_MODE_CAUSE = 2
OUT_OF_DATA_SPACE = 1  # of the modes of either
LINE = re.compile(r"^\s*(.+)-(\d+)\s+\[\d+\]\s+\S+\s+([\d.]+): (\w+):(.*)$")


def sh(argv: list[str], check: bool = True, data: str | None = None) -> tm.Result:
    # While the machine waits for its host its clock runs ahead, so a limit would mean nothing.
    return tm.sh(argv, check=check, data=data, limit=36000)


def tool(name: str) -> str:
    return str(tm.TOOLS / name)


def dmsetup(*args: str, data: str | None = None) -> str:
    return sh(["dmsetup", *args], data=data).out


# ---- the kernel's trace --------------------------------------------------------------------------

@dataclass
class Mark:
    task: str
    pid: int
    ms: float
    name: str
    rest: str

    def value(self, key: str) -> int:
        found = re.search(rf"\b{key}=(\d+)", self.rest)
        return int(found[1]) if found else -1


def ours() -> bool:
    """Whether our kernel target is measured."""
    return Path("/sys/module/dm_thinmgr").exists()


def trace_remove() -> None:
    if TRACE.exists():
        (TRACE / "events/enable").write_text("0")
        TRACE.rmdir()
    (TRACING / "kprobe_events").write_text("")


def trace_setup() -> None:
    if not (TRACING / "kprobe_events").exists():
        sh(["mount", "-t", "tracefs", "tracefs", str(TRACING)])
    trace_remove()
    TRACE.mkdir()
    (TRACE / "tracing_on").write_text("0")
    (TRACE / "trace_clock").write_text("mono")
    (TRACE / "buffer_size_kb").write_text("4096")
    probes = PROBES + (OUR_PROBES if ours() else STOCK_PROBES)
    for probe in filter(None, probes.split("\n")):
        fd = os.open(TRACING / "kprobe_events", os.O_WRONLY | os.O_APPEND)
        try:
            os.write(fd, probe.encode() + b"\n")
        except OSError as err:
            raise tm.Failed(f"the kernel does not take the probe {probe}: {err}") from err
        finally:
            os.close(fd)
    (TRACE / "events/bench/enable").write_text("1")
    for name in ("exec", "fork"):
        (TRACE / f"events/sched/sched_process_{name}/enable").write_text("1")
    (TRACE / "tracing_on").write_text("1")


def trace_clear() -> None:
    (TRACE / "trace").write_text("")


def trace_read() -> list[Mark]:
    marks = []
    for line in (TRACE / "trace").read_text(errors="replace").splitlines():
        found = LINE.match(line)
        if found:
            marks.append(Mark(found[1].strip(), int(found[2]), float(found[3]) * 1000, found[4],
                              found[5]))
    return marks


@dataclass
class Round:
    """One extension as the kernel saw it."""
    ms: float                      # event to larger table live
    system_ms: float               # CPU time of the whole machine, rest subtracted
    manager_ms: float              # of the manager and what it started
    execs: int                     # programs that were run, by whomever
    manager_execs: int             # and by the manager
    write_ms: float                # the longest of the writes that crossed the mark
    steps: dict[str, float] = field(default_factory=dict)


def steps_of(marks: list[Mark], began: float) -> dict[str, float]:
    """When, after the event, each request of the extension began, and how long it took."""
    steps = {}
    for mark in marks:
        if mark.name in ("list", "status", "load", "resume") and mark.name not in steps:
            end = next((m for m in marks if m.name == mark.name + "_end" and m.pid == mark.pid
                        and m.ms >= mark.ms), None)
            steps[mark.name] = round(mark.ms - began, 3)
            if end:
                steps[mark.name + "_took"] = round(end.ms - mark.ms, 3)
    return steps


def executed_by(threads: set[int], marks: list[Mark]) -> int:
    """How many programs these threads and their children ran."""
    family, n = set(threads), 0
    for mark in marks:
        if mark.name == "sched_process_fork" and mark.pid in family:
            family.add(mark.value("child_pid"))
        elif mark.name == "sched_process_exec" and mark.pid in family:
            n += 1
    return n


def began_before(request: Mark, marks: list[Mark], moment: Mark) -> bool:
    """Whether a resume was under way at this moment, in the same thread."""
    end = next((m for m in marks if m.name == "resume_end" and m.pid == request.pid
                and m.ms >= request.ms), None)
    return request.ms <= moment.ms and (end is None or moment.ms <= end.ms)


def judge(kind: str, report: dict, marks: list[Mark], system: System) -> Round:
    event = next((m for m in marks if m.name == "event"), None)
    space = "data" if kind == "data" else "metadata"
    larger = next((m for m in marks if m.name == f"larger_{space}"), None)
    if not larger or (kind != "steady" and not event):
        raise tm.Failed(f"the trace has no {'event' if larger else 'growth'}: {report}")
    threads = system.threads()
    if larger.pid not in threads:
        raise tm.Failed(f"{larger.task} made the pool larger, not {system.name}")
    after = [m for m in marks if m.pid == larger.pid and m.ms >= larger.ms]
    grown = next((m for m in after if m.name == f"grown_{space}"), None)
    # Larger by a table is larger once that is resumed.
    by_table = not grown or any(m.name == "resume" and m.pid == larger.pid
                                and began_before(m, marks, larger) for m in marks)
    live = next(m for m in after if m.name == "resumed") if by_table else grown
    # Slow growth: no time at all where the pool was larger before the threshold was passed.
    began = event.ms if event and kind != "steady" else report["passed_ms"] or live.ms
    rest, whole = report["rest"], report["round"]
    share = whole["seconds"] / rest["seconds"]
    inside = [m for m in marks if m.pid in threads and began <= m.ms]
    manager_ms = system.after_round()
    return Round(
        ms=live.ms - began,
        system_ms=whole["system_ms"] - rest["system_ms"] * share,
        manager_ms=manager_ms if manager_ms is not None
        else whole["manager_ms"] - rest["manager_ms"] * share,
        execs=sum(m.name == "sched_process_exec" for m in marks),
        manager_execs=executed_by(threads, marks),
        write_ms=report["longest_write_ms"],
        steps=steps_of(inside, began))


# ---- the three systems ---------------------------------------------------------------------------

class System:
    """Makes pools, one at a time, and knows who looks after them."""
    name = ""
    cgroup: Path | None = None

    def start(self) -> None:
        """Whatever has to run; nothing of the others does."""

    def stop(self) -> None:
        """And its end."""

    def threads(self) -> set[int]:
        """Those of the manager."""
        assert self.cgroup
        return {int(line) for line in (self.cgroup / "cgroup.threads").read_text().split()}

    def make(self, data_mib: int, meta_mib: int, zeroing: bool = True) -> None:
        raise NotImplementedError

    def remove(self) -> None:
        raise NotImplementedError

    pool = ""        # its device-mapper name
    volume = ""      # path of a thin volume in it

    def before_round(self, kind: str) -> None:
        """Called before each round."""

    def after_round(self) -> float | None:
        """The manager's CPU time in ms where that is not its control group's."""
        return None


class Thinmgr(System):
    name = "thinmgr"
    cgroup = CGROUPS / "thinmgrd.service"
    STATE = Path("/var/lib/thinmgr")

    def __init__(self, defaults: bool = False, most_mib: int | None = None) -> None:
        self.defaults = defaults
        self.most_mib = most_mib

    def start(self) -> None:
        on_ram_disk(self.STATE)
        sh(["systemctl", "start", "thinmgrd"])
        tm.wait_ready()

    def stop(self) -> None:
        sh(["systemctl", "stop", "thinmgrd"])
        sh(["umount", str(self.STATE)])

    def make(self, data_mib: int, meta_mib: int, zeroing: bool = True) -> None:
        policy = [] if self.defaults else [
            "--low-water", str(100 - THRESHOLD), "--step", str(STEP), "--step-min", "1M",
            "--metadata-low-water", "25", "--metadata-step", str(STEP), "--metadata-step-min", "1M"]
        if not zeroing:
            policy += ["--no-zeroing"]
        if self.most_mib:
            policy += ["--max", f"{self.most_mib}M"]
        sh(["thinmgr", "pool", "create", "bench", "-d", f"{PLACE}/bench", "-s", f"{data_mib}M",
            "--metadata-size", f"{meta_mib}M", "--block-size", str(BLOCK), *policy])
        sh(["thinmgr", "volume", "create", "bench/volume", "-s", "16G"])
        tm.wait_for(lambda: tm.cli("pool", "show", "bench")["data"]["reserve"], 600,
                    "a reserve below the new pool")
        self.pool = next(d.name for d in tm.dm_devices("THINMGR-") if d.uuid.endswith("-pool"))
        self.volume = "/dev/thinmgr/bench/volume"

    def remove(self) -> None:
        sh(["thinmgr", "pool", "delete", "bench", "--with-volumes", "--yes"])


class Floor(System):
    """The same stack as thinmgrd's, made by hand."""
    name = "floor"
    pool = "floor-pool"
    volume = "/dev/mapper/floor-volume"

    def __init__(self) -> None:
        self.loops: list[str] = []
        self.process: subprocess.Popen | None = None
        self.meta_sectors = 0
        self.features: list[str] = []

    def make(self, data_mib: int, meta_mib: int, zeroing: bool = True) -> None:
        place = PLACE / "floor"
        place.mkdir()
        for part, mib in (("data", data_mib * 2), ("meta", meta_mib * 8)):
            path = place / part
            with path.open("wb") as out:
                os.posix_fallocate(out.fileno(), 0, mib * MIB)
            loop = sh(["losetup", "--find", "--show", "--direct-io=on", str(path)]).out.strip()
            self.loops.append(loop)
            sectors = mib * 2048 if part == "data" else meta_mib * 2048
            sh(["dd", "if=/dev/zero", f"of={loop}", "bs=4096", "count=1", "oflag=direct"])
            dmsetup("create", f"floor-{part}", "--table", f"0 {sectors} linear {loop} 0")
        self.meta_sectors = meta_mib * 2048
        self.features = [] if zeroing else ["skip_block_zeroing"]
        blocks = data_mib * MIB // BLOCK
        dmsetup("create", "floor-pool", "--table", self.table(blocks))
        dmsetup("message", "floor-pool", "0", "create_thin 1")
        dmsetup("create", "floor-volume", "--table",
                f"0 {16 << 21} thin /dev/mapper/floor-pool 1")
        tm.settle()

    def table(self, blocks: int) -> str:
        low = blocks * (100 - THRESHOLD) // 100
        features = ["no_discard_passdown", *self.features]
        return (f"0 {blocks * BLOCK // 512} thin-pool /dev/mapper/floor-meta /dev/mapper/floor-data "
                f"{BLOCK // 512} {low} {len(features)} {' '.join(features)}")

    def before_round(self, kind: str) -> None:
        status = tm.thin_status(self.pool)
        if kind == "data":
            # The mark that belongs to this size: the floor itself keeps the table it finds.
            dmsetup("load", self.pool, "--table", self.table(status.data_total))
            dmsetup("resume", "--noflush", "--nolockfs", self.pool)
            more = [str((status.data_total + status.data_total * STEP // 100) * BLOCK // 512)]
        else:
            more = []
            self.meta_sectors = tm_round(status.metadata_total * 4096 * (100 + STEP) // 100) // 512
            dmsetup("load", "floor-meta", "--table",
                    f"0 {self.meta_sectors} linear {self.loops[1]} 0")
            dmsetup("resume", "--noflush", "--nolockfs", "floor-meta")
        self.process = subprocess.Popen([tool("floor"), self.pool, kind, *more],
                                        stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        if self.process.stdout.readline() != "ready\n":
            raise tm.Failed("the floor program is not ready")

    def threads(self) -> set[int]:
        assert self.process
        return {self.process.pid}

    def after_round(self) -> float:
        assert self.process
        out, _ = self.process.communicate()
        return json.loads(out)["cpu_ms"]

    def remove(self) -> None:
        for name in ("floor-volume", "floor-pool", "floor-data", "floor-meta"):
            dmsetup("remove", "--retry", name)
        for loop in self.loops:
            sh(["losetup", "--detach", loop])
        self.loops = []
        shutil.rmtree(PLACE / "floor")


def tm_round(size: int) -> int:
    return (size + MIB - 1) // MIB * MIB


class Lvm(System):
    """LVM2 with its monitor, on a disk of its own without files and loop devices in between."""
    name = "lvm2"
    cgroup = CGROUPS / "dm-event.service"
    STATE = (Path("/etc/lvm/archive"), Path("/etc/lvm/backup"))
    pool = "bench-pool-tpool"
    volume = "/dev/bench/volume"
    UNITS = ("dm-event.socket", "dm-event.service")

    def start(self) -> None:
        conf = Path("/etc/lvm/lvm.conf")
        text = conf.read_text()
        for key, value in (("thin_pool_autoextend_threshold", THRESHOLD),
                           ("thin_pool_autoextend_percent", STEP)):
            text, n = re.subn(rf"^\s*#?\s*{key}\s*=.*$", f"\t{key} = {value}", text,
                              count=1, flags=re.M)
            if n == 0:
                text += f"\nactivation {{ {key} = {value} }}\n"
        conf.write_text(text)
        for key, value in (("threshold", THRESHOLD), ("percent", STEP)):
            said = sh(["lvmconfig", "--type", "full", f"activation/thin_pool_autoextend_{key}"]).out
            if said.strip() != f"thin_pool_autoextend_{key}={value}":
                raise tm.Failed(f"LVM2 takes another {key}: {said}")
        for path in self.STATE:
            on_ram_disk(path)
        sh(["systemctl", "unmask", *self.UNITS])
        sh(["systemctl", "daemon-reload"])
        sh(["systemctl", "start", "dm-event.socket"])
        sh(["vgcreate", "-y", "-s", "1m", "bench", "/dev/ram1"])

    def stop(self) -> None:
        sh(["vgremove", "-y", "bench"])
        sh(["systemctl", "stop", *self.UNITS])
        for path in self.STATE:
            sh(["umount", str(path)])

    def make(self, data_mib: int, meta_mib: int, zeroing: bool = True) -> None:
        sh(["lvcreate", "-y", "-q", "--type", "thin-pool", "-L", f"{data_mib}m",
               "--poolmetadatasize", f"{meta_mib}m", "-c", str(BLOCK // 1024) + "k",
               "-Z", "y" if zeroing else "n", "-n", "pool", "bench"])
        sh(["lvcreate", "-y", "-q", "-T", "bench/pool", "-V", "16g", "-n", "volume"])
        monitored = sh(["lvs", "--noheadings", "-o", "seg_monitor", "bench/pool"]).out.strip()
        if monitored != "monitored":
            raise tm.Failed(f"dmeventd does not monitor the pool: {monitored}")

    def remove(self) -> None:
        sh(["lvremove", "-y", "-q", "bench"])


# ---- measuring -----------------------------------------------------------------------------------

def one_round(system: System, kind: str, phase: random.Random) -> Round | None:
    system.before_round(kind)
    # LVM2's monitor also looks every ten seconds: meet it at any point of that.
    time.sleep(phase.random() * 10)
    way = f"steady{THRESHOLD}" if kind == "steady" else kind
    argv = [tool("probe"), way, system.pool, system.volume, str(SETTLE), str(WINDOW),
            str(5 * LIMIT if kind == "steady" else LIMIT), str(TRACE)]
    if system.cgroup:
        argv.append(str(system.cgroup / "cpu.stat"))
    done = sh(argv, check=False)
    if done.status == 2:
        say(f"bench: {system.name}, {kind}: not a round: {done.err.strip()}")
        return None  # the manager looked by itself in between
    if done.status:
        raise tm.Failed(f"{system.name}, {kind}: {done.err}")
    return judge(kind, json.loads(done.out), trace_read(), system)


def extend(system: System, kind: str, rounds: int, phase: random.Random) -> list[Round]:
    """`rounds` extensions of pools that each grow SERIES times."""
    results: list[Round] = []
    spoilt = 0
    probed = "data" if kind == "tie" else kind
    while len(results) < rounds:
        # In metadata rounds data is written in pieces of blocks, many times over.
        system.make(START_MIB[kind], META_MIB, zeroing=probed == "data")
        if kind == "metadata":
            sh([tool("probe"), "leaves", system.pool, system.volume, "0", "0", "0", "-"])
        for _ in range(min(SERIES[kind], rounds - len(results))):
            done = one_round(system, probed, phase)
            if not done:
                spoilt += 1
                break
            results.append(done)
        system.remove()
        if spoilt > rounds:
            raise tm.Failed(f"{system.name}, {kind}: hardly ever left alone until the mark")
        if results:
            say(f"bench: {system.name}, {kind}: {len(results)} of {rounds} rounds,"
                f" {results[-1].ms:.1f} ms the last")
    return results


def meanwhile(marks: list[Mark], stall: dict) -> list[str]:
    """What the kernel was asked to do while a write took long."""
    until = stall["began_ms"] + stall["ms"]
    return [f"{m.name} of {m.task} after {m.ms - stall['began_ms']:.1f} ms" for m in marks
            if stall["began_ms"] <= m.ms <= until]


def race(system: System, start_mib: int = RACE_START) -> dict:
    system.make(start_mib, 8)
    (TRACE / "events/bench/status/enable").write_text("0")
    (TRACE / "events/bench/status_end/enable").write_text("0")
    trace_clear()
    done = json.loads(sh([tool("race"), system.volume, str(RACE_WRITE)]).out)
    marks = trace_read()
    (TRACE / "events/bench/enable").write_text("1")
    out_ms, since = 0.0, None
    for mark in (m for m in marks if m.name == "mode"):
        if ours() and mark.value("cause") != OUR_MODE_CAUSE:
            continue
        mode = mark.value("mode")
        if mode == OUT_OF_DATA_SPACE:
            since = since if since is not None else mark.ms
        elif since is not None:
            out_ms, since = out_ms + mark.ms - since, None
    if since is not None:
        out_ms += marks[-1].ms - since
    status = tm.thin_status(system.pool)
    system.remove()
    stalls = [{**stall, "meanwhile": meanwhile(marks, stall)} for stall in done["stalls"]]
    return {"out_of_data_space_ms": round(out_ms, 3),
            "longest_stall_ms": done["longest_stall_ms"], "mib_per_s": done["mib_per_s"],
            "writes_over_100_ms": done["writes_over_100_ms"],
            "longest_at_extension_ms": max(
                (s["ms"] for s in stalls if any(m.startswith("larger_data ") for m in s["meanwhile"])), default=None),
            "stalls": stalls,
            "suspends": sum(m.name == "suspend" for m in marks),
            "extensions": sum(m.name == "larger_data" for m in marks),
            "final_mib": status.data_total * BLOCK // MIB}


# ---- many pools ----------------------------------------------------------------------------------

def cpu_usec() -> int:
    found = re.search(r"usage_usec (\d+)", (CGROUPS / "thinmgrd.service/cpu.stat").read_text())
    assert found
    return int(found[1])


def wakeups(pid: int) -> int:
    """How often the daemon's threads went to sleep of themselves: as often were they woken."""
    total = 0
    for path in Path(f"/proc/{pid}/task").glob("*/status"):
        found = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", path.read_text(), re.M)
        total += int(found[1]) if found else 0
    return total


def forks() -> int:
    found = re.search(r"^processes (\d+)", Path("/proc/stat").read_text(), re.M)
    assert found
    return int(found[1])


def idle(seconds: int) -> dict:
    """What the daemon costs while nothing happens."""
    pid = tm.main_pid()

    def quiet() -> bool:
        """Ten seconds without anything: what was asked for is done and recorded."""
        before = cpu_usec()
        time.sleep(10)
        return cpu_usec() == before

    tm.wait_for(quiet, 600, "thinmgrd at rest")
    cpu, woken, forked = cpu_usec(), wakeups(pid), forks()
    time.sleep(seconds)
    return {"cpu_percent": round((cpu_usec() - cpu) / 1e4 / seconds, 4),
            "seconds_per_wakeup": round(seconds / max(1, wakeups(pid) - woken), 2),
            "forks": forks() - forked}


def rest_of_one() -> dict:
    system = Thinmgr()
    system.make(START_MIB["data"], META_MIB)
    result = idle(600)
    system.remove()
    return result


def many(pools: int, rounds: int, single: list[Round]) -> dict:
    """`pools` small pools at rest beside the one that is measured."""
    for number in range(pools - 1):
        tm.api("POST", "/v1/pools?wait=60", {
            "name": f"rest{number}",
            "backing": {"kind": "file", "directory": f"{PLACE}/rest{number}"},
            "data_size": 16 * MIB, "policy": {"data": {"maximum": 32 * MIB}}}, expect=200)
    phase = random.Random(1)
    floor = extend(Floor(), "data", rounds, phase)
    own = extend(Thinmgr(), "data", rounds, phase)
    system = Thinmgr()
    system.make(START_MIB["data"], META_MIB)
    result = idle(600)
    pid = tm.main_pid()
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    assert found
    result.update(summary({"thinmgr": own, "floor": floor}), pools=pools,
                  rss_mib=round(int(found[1]) / 1024, 1),
                  threads=len(os.listdir(f"/proc/{pid}/task")),
                  ratio_to_one_pool=round(median([r.ms for r in own])
                                          / median([r.ms for r in single]), 3))
    return result


# ---- results -------------------------------------------------------------------------------------

def figures(values: list[float]) -> dict:
    return {"min": round(min(values), 3), "median": round(statistics.median(values), 3),
            "max": round(max(values), 3), "n": len(values)}


def median(values: list[float]) -> float:
    return round(statistics.median(values), 3)


def summary(results: dict[str, list[Round]]) -> dict:
    """One kind of extension, all systems."""
    out: dict = {f"{name}_ms": figures([r.ms for r in rounds]) for name, rounds in results.items()}
    own = results.get("thinmgr")
    for other in ("floor", "lvm2"):
        if own and other in results:
            out[f"ratio_to_{other}"] = round(out["thinmgr_ms"]["median"]
                                             / out[f"{other}_ms"]["median"], 3)
    if own:
        out["cpu_ms"] = median([r.manager_ms for r in own])
    out["cpu_of_manager_ms"] = {n: figures([r.manager_ms for r in rs]) for n, rs in results.items()}
    out["cpu_of_system_ms"] = {n: figures([r.system_ms for r in rs]) for n, rs in results.items()}
    out["execs"] = {n: median([r.execs for r in rs]) for n, rs in results.items()}
    out["execs_of_manager"] = {n: max(r.manager_execs for r in rs) for n, rs in results.items()}
    out["longest_write_ms"] = {n: figures([r.write_ms for r in rs]) for n, rs in results.items()}
    out["steps_ms"] = {n: {k: median([r.steps[k] for r in rs if k in r.steps])
                           for k in {k: 0 for r in rs for k in r.steps}}
                       for n, rs in results.items() if n != "lvm2"}
    out["rounds_ms"] = {n: [round(r.ms, 3) for r in rs] for n, rs in results.items()}
    return out


def table(bench: dict) -> str:
    lines = [f"{'':34}{'thinmgrd':>10}{'floor':>10}{'LVM2':>10}"]

    def row(text: str, values: list, aim: str = "") -> None:
        cells = "".join(f"{v:>10.2f}" if isinstance(v, (int, float)) else f"{'' if v is None else v:>10}"
                        for v in values)
        lines.append(f"{text:34}{cells}   {aim}".rstrip())

    systems = ("thinmgr", "floor", "lvm2")
    for kind, what in (("data", "data"), ("metadata", "metadata"), ("tie", "data, an exact tie"),
                       ("steady", "metadata that grows slowly, without an event")):
        e = bench["extend"].get(kind)
        if not e:
            continue
        rounds = "/".join(str(e[f"{s}_ms"]["n"]) for s in systems if f"{s}_ms" in e)
        lines.append(f"extension of {what} ({rounds} rounds)")
        for key in ("median", "min", "max"):
            row(f"  {'threshold' if kind == 'steady' else 'event'} to table live, {key}, ms",
                [e.get(f"{s}_ms", {}).get(key) for s in systems])
        aim = {"data": "aim: at most 1.3 times the floor, 0.5 of LVM2's",
               "metadata": "aim: at most 1.3 times the floor, 0.02 of LVM2's",
               "tie": "aim: as any other crossing", "steady": ""}[kind]
        row("  thinmgrd's, times the other's", [None, e.get("ratio_to_floor"), e.get("ratio_to_lvm2")], aim)
        if kind == "steady":
            continue  # takes so long that what it costs to rest is more than the rest
        row("  CPU, manager, median, ms",
            [e["cpu_of_manager_ms"].get(s, {}).get("median") for s in systems], "aim: at most 4")
        row("  CPU, whole system, median, ms",
            [e["cpu_of_system_ms"].get(s, {}).get("median") for s in systems])
        row("  programs run by the manager", [e["execs_of_manager"].get(s) for s in systems],
            "aim: none")
        row("  and by udev's rules meanwhile",
            [e["execs"][s] - e["execs_of_manager"][s] if s in e["execs"] else None for s in systems])
    if bench["race"]:
        lines.append(f"fill race: {RACE_WRITE} MiB into a pool of {RACE_START} MiB")
        for key, text, aim in (
                ("out_of_data_space_ms", "  time out of data space, ms", "aim: none"),
                ("longest_stall_ms", "  longest stall of a write, ms", "aim: a tenth of LVM2's"),
                ("longest_at_extension_ms", "  longest stall at an extension, ms", "aim: as an extension of the floor"),
                ("suspends", "  devices suspended", "aim: none"),
                ("mib_per_s", "  written, MiB/s", "")):
            row(text, [bench["race"].get(s, {}).get(key) for s in systems], aim)
        row("  the same stall in a pool that is large, ms",
            [bench["race"].get(s, {}).get("large", {}).get("longest_stall_ms") for s in systems])
    done = bench.get("repair")
    if done:
        lines.append(f"repair of a pool with {done['mappings']} mappings")
        row("  thin_check, thin_repair, thin_check by hand, s", [done["by_hand_s"]])
        row("  by thinmgrd, s", [done["by_thinmgrd_s"]])
        row("  times that by hand", [done["ratio"]], "aim: at most 1.25")
        row("  memory of the daemon before, KiB", [done["memory_kib"]])
        row("  and at most meanwhile, KiB", [done["memory_peak_kib"]], "aim: flat")
    m = bench.get("many")
    if m:
        lines.append(f"{m['pools']} pools, all but one at rest")
        row("  event to table live, median, ms", [m["thinmgr_ms"]["median"], m["floor_ms"]["median"]])
        row("  times that with one pool", [m["ratio_to_one_pool"]], "aim: at most 1.5")
        row("  CPU at rest, % of a core", [m["cpu_percent"]], "aim: under 1")
        row("  resident memory, MiB", [m["rss_mib"]], "aim: under 48")
    i = bench.get("idle")
    if i:
        lines.append("one pool at rest")
        row("  seconds per wake-up", [i["seconds_per_wakeup"]], "aim: at least 5")
        row("  processes made in ten minutes", [i["forks"]], "aim: none")
    return "\n".join(lines)


# ---- the machine ---------------------------------------------------------------------------------

def ram_disks(mib: int) -> None:
    """Empty RAM disks: ram0 with a file system at PLACE, ram1 bare."""
    if Path("/dev/ram0").exists():
        sh(["umount", str(PLACE)], check=False)
        sh(["modprobe", "-r", "brd"])
    sh(["modprobe", "brd", "rd_nr=2", f"rd_size={mib * 1024}"])
    tm.settle()
    sh(["mkfs.ext4", "-q", "-i", "1048576", "-E", "lazy_itable_init=0,lazy_journal_init=0", "/dev/ram0"])
    PLACE.mkdir(exist_ok=True)
    sh(["mount", "/dev/ram0", str(PLACE)])


def on_ram_disk(path: Path) -> None:
    """Have what a manager writes there lie on the RAM disk, too: how long the machine's own disk
    takes is the host's affair."""
    below = PLACE / "state" / path.name
    for directory in (below, path):
        directory.mkdir(parents=True, exist_ok=True)
    sh(["mount", "--bind", str(below), str(path)])


def say(text: str) -> None:
    print(text, flush=True)


PARTS = ("data", "metadata", "tie", "steady", "race", "idle", "many", "repair")
USUAL = set(PARTS) - {"many", "repair"}


def main() -> int:
    p = argparse.ArgumentParser()
    p.add_argument("result", type=Path)
    p.add_argument("--rounds", type=int, default=20)
    p.add_argument("--pools", type=int, default=200)
    p.add_argument("--only", default="", help="systems and parts, with commas")
    args = p.parse_args()
    only = set(filter(None, args.only.split(",")))
    parts = only & set(PARTS) or USUAL
    systems = [s for s in (Thinmgr(), Floor(), Lvm())
               if s.name in only or not only & {"thinmgr", "floor", "lvm2"}]

    sh(["systemctl", "stop", "thinmgrd"])
    trace_setup()
    results: dict[str, dict[str, list[Round]]] = {}
    bench: dict = {"extend": {}, "race": {}}
    for system in systems:
        ram_disks(16 * 1024)
        system.start()
        # The same sequence for each.
        phase = random.Random(1)
        for kind in ("data", "metadata", "tie", "steady"):
            if kind not in parts or (kind in ("tie", "steady") and system.name == "floor"):
                continue
            rounds = extend(system, kind, args.rounds, phase)
            results.setdefault(kind, {})[system.name] = rounds
            say(f"bench: {system.name}, {kind}: {median([r.ms for r in rounds])} ms")
        if "race" in parts and system.name != "floor":
            racer = Thinmgr(True, RACE_MOST) if system.name == "thinmgr" else system
            say(f"bench: {system.name}, race: {RACE_WRITE} MiB")
            bench["race"][system.name] = race(racer)
            # What a write may take without any extension, in the same place.
            roomy = Thinmgr(True, 3 * RACE_WRITE) if system.name == "thinmgr" else system
            bench["race"][system.name]["large"] = race(roomy, 2 * RACE_WRITE)
            say(f"bench: {system.name}, race: {bench['race'][system.name]}")
        system.stop()
    bench["extend"] = {kind: summary(by_system) for kind, by_system in results.items()}
    # At the end, for many pools take long to remove: the machine is thrown away.
    if parts & {"idle", "many", "repair"}:
        ram_disks(16 * 1024)
        Thinmgr().start()
    if "idle" in parts:
        bench["idle"] = rest_of_one()
        say(f"bench: one pool at rest: {bench['idle']}")
    if "many" in parts and "thinmgr" in results.get("data", {}):
        bench["many"] = many(args.pools, 5, results["data"]["thinmgr"])
        say(f"bench: {args.pools} pools: {bench['many']}")
    if "repair" in parts:
        bench["repair"] = repair.run(PLACE, min(args.rounds, 3), say)
    args.result.write_text(json.dumps(bench, indent=1) + "\n")
    say(table(bench))
    trace_remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
