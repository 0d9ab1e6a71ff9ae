# SPDX-License-Identifier: GPL-2.0-or-later
"""With nothing to do the daemon sleeps, and looking at its pools starts no program."""

import re
import time
from pathlib import Path

import pools
import tm
from contract import api

LIMIT = 240
SECONDS = 60
SAMPLES = 3
QUIET = 2  # seconds in which nothing of the daemon runs, before it counts as at rest
TRACING = Path("/sys/kernel/tracing")
SWITCH = re.compile(r" (\d+\.\d+): sched_switch: .* next_pid=(\d+) ")


def wakes(trace, tasks):
    """When the daemon woke: times at which one of its threads began to run, those close together once."""
    times = sorted(float(found[1]) for found in SWITCH.finditer(trace.read_text()) if found[2] in tasks)
    return [at for at, before in zip(times, [-1.0, *times]) if at - before > 0.25], len(times)


def trace_daemon(t, pid):
    """Have the kernel note when the daemon runs, and every fork and exec of it and of what it starts."""
    if not (TRACING / "events").exists():
        tm.sh(["mount", "-t", "tracefs", "tracefs", str(TRACING)])
        t.defer(tm.sh, ["umount", str(TRACING)])
    instance = TRACING / "instances" / "idle"
    instance.mkdir()
    t.defer(instance.rmdir)
    for event in ("sched_process_fork", "sched_process_exec", "sched_switch"):
        (instance / "events" / "sched" / event / "enable").write_text("1")
    tasks = " ".join(task.name for task in Path(f"/proc/{pid}/task").iterdir())
    (instance / "options" / "event-fork").write_text("1")  # children, too
    (instance / "set_event_pid").write_text(tasks)
    return instance / "trace"


def forks(trace):
    return [line.strip() for line in trace.read_text().splitlines() if "sched_process" in line]


def come_to_rest(trace):
    """Wait until what was asked of the daemon is over, and start the trace anew."""
    began = time.monotonic()

    def quiet():
        nonlocal began
        if trace.read_text().count("sched_switch:"):
            trace.write_text("")
            began = time.monotonic()
        return time.monotonic() - began >= QUIET
    tm.wait_for(quiet, 60, f"{QUIET} s without the daemon")


def run(t):
    tm.restart()
    pools.create(t, "quiet", 32, policy={"sample_seconds": 5})
    device = pools.volume("quiet", "v", 64)
    pools.create(t, "other", 32)
    pid = tm.main_pid()
    trace = trace_daemon(t, pid)
    # The trace must see a fork, or its silence means nothing.
    pools.change("POST", "/v1/pools/other/deactivate")
    pools.change("POST", "/v1/pools/other/activate")
    tm.wait_for(lambda: any("thin_check" in line for line in forks(trace)), 10, "thin_check in the trace")

    def samples():
        return len(api("GET", "/v1/pools/quiet/history?limit=10000", expect=200).body["items"])

    trace.write_text("")
    for n in range(SAMPLES):  # something new to see for each, or it is not kept
        kept = samples()
        tm.sh(["dd", "if=/dev/zero", f"of={device}", "bs=64k", "count=1", f"seek={n}", "oflag=direct", "status=none"])
        tm.wait_for(lambda kept=kept: samples() > kept, 20, "a sample", every=0.5)
    t.equal(forks(trace), [], f"forks for {SAMPLES} samples")

    pools.policy("quiet", sample_seconds=30)  # as it is by default
    come_to_rest(trace)
    time.sleep(SECONDS)  # what is measured
    tasks = {task.name for task in Path(f"/proc/{pid}/task").iterdir()}
    t.equal(tm.main_pid(), pid, "the daemon's process")
    times, runs = wakes(trace, tasks)
    t.equal(forks(trace), [], f"forks in {SECONDS} s")
    t.log(f"{SAMPLES} samples without a fork; woken {len(times)} times in {SECONDS} s, threads ran {runs} times")
    t.check(times, "the trace sees it wake for samples")
    t.check(len(times) <= SECONDS / 5, f"it wakes at most once in five seconds: {times}")
    t.check(runs <= SECONDS, f"and does little then: threads ran {runs} times")
