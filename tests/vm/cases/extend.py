# SPDX-License-Identifier: GPL-2.0-or-later
"""Pools that grow by themselves, that may not grow, that cannot grow; and who is told of it."""

import datetime
import errno
import http.client
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pools
import target
import tm
from contract import api

LIMIT = 480
DISKS = ["2G"]
MIB = pools.MIB
# Of the target in use: ours, or the distribution's.
TIMEOUTS = [Path(f"/sys/module/{module}/parameters/no_space_timeout")
            for module in ("dm_thinmgr", "dm_thin_pool")]
PATIENCE = 10  # the kernel's, in seconds, while this runs
TRACING = Path("/sys/kernel/tracing")


def when(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def kinds(after, **filters):
    return [e["type"] for e in pools.events(after, **filters)]


def mark_in_kernel(name):
    """The low-water mark of the live table, in bytes."""
    return int(tm.sh(["dmsetup", "table", f"{name}:_pool"]).out.split()[6]) * 65536


# ---- who listens ---------------------------------------------------------------------------------

class Bus:
    """What the system bus carries, as busctl sees it."""

    def __init__(self, path):
        self.path = path
        self.out = open(path, "w")
        self.process = subprocess.Popen(
            ["busctl", "--system", "monitor", "--json=short", "org.thinmgr1"],
            stdin=subprocess.DEVNULL, stdout=self.out, stderr=subprocess.DEVNULL)

    def listening(self):
        """Whether it hears what is said to the daemon."""
        tm.sh(["busctl", "--system", "call", "org.thinmgr1", "/org/thinmgr1", "org.freedesktop.DBus.Peer", "Ping"])
        return self.path.stat().st_size > 0

    def signals(self):
        found = []
        for line in self.path.read_text().splitlines():
            message = json.loads(line)
            if message.get("type") == "signal" and message.get("interface") == "org.thinmgr1.Manager":
                found.append((message["member"], message["payload"]["data"]))
        return found

    def close(self):
        self.process.kill()
        self.process.wait()
        self.out.close()


class Stream:
    """A reader of the event stream, in a process of its own: one line of JSON an event."""

    def __init__(self, path, last=None):
        self.path = path
        self.out = open(path, "a")
        argv = ["curl", "-sN", "--unix-socket", tm.SOCKET, "-H", "Accept: text/event-stream"]
        if last is not None:
            argv += ["-H", f"Last-Event-ID: {last}"]
        self.process = subprocess.Popen([*argv, "http://localhost/v1/events"],
                                        stdin=subprocess.DEVNULL, stdout=self.out)

    def events(self):
        """Those that came whole: an id, a type, the data, an empty line."""
        found = []
        for chunk in self.path.read_text().split("\n\n")[:-1]:
            lines = dict(line.split(": ", 1) for line in chunk.splitlines() if not line.startswith(":"))
            if "data" in lines:  # not only a comment, or when to come back
                event = json.loads(lines["data"])
                if (lines["id"], lines["event"]) != (str(event["seq"]), event["type"]):
                    raise tm.Failed(f"an event's head is not its own: {lines}")
                found.append(event)
        return found

    def close(self):
        self.process.kill()
        self.process.wait()
        self.out.close()


# ---- the parts -----------------------------------------------------------------------------------

def fast_writer(t):
    """Data and metadata grow ahead of a writer at full speed."""
    before = pools.last_seq()
    pools.create(t, "race", 64, metadata_size=128 * 1024,
                 policy={"data": {"maximum": 1024 * MIB}, "metadata": {"step_min": 65536}})
    device = pools.volume("race", "v", 1024)
    small = pools.pool("race")["metadata"]["size"]
    writer = pools.Writer(device, 384, seed=21)
    writer.finish(180)
    race = pools.pool("race")
    extended = [e["data"] for e in pools.events(before, pool="race", type="extended")]
    spaces = [d["space"] for d in extended]
    t.check(spaces.count("data") >= 3, f"data grew again and again: {extended}")
    t.check("metadata" in spaces and race["metadata"]["size"] > small, f"metadata grew: {extended}")
    got = set(kinds(before, pool="race"))
    t.check(not got & {"out-of-space", "queueing", "mode-changed", "extend-failed", "needs-check"},
            f"it never ran out: {sorted(got)}")
    t.check("low-space" in got, "low-space was told")
    for space in ("data", "metadata"):
        steps = [(d["from"], d["to"]) for d in extended if d["space"] == space]
        t.check(all(a[1] == b[0] for a, b in zip(steps, steps[1:])) and
                all(a < b for a, b in steps), f"one step follows the other: {steps}")
        t.equal(race[space]["size"], steps[-1][1], f"size of {space} at the end")
        t.equal(race[space]["extensions"], len(steps), f"extensions of {space}")
    times = race["data"]["reaction_usec"]
    t.check(times["count"] >= 1 and 0 < times["median"] <= times["slowest"], "its own reaction time")
    t.equal(mark_in_kernel("race"), race["data"]["low_water"], "the mark in the kernel")
    t.log(f"384 MiB: {spaces.count('data')} steps of data, {spaces.count('metadata')} of metadata; "
          f"reaction {times['median'] / 1000:.1f} ms, slowest {times['slowest'] / 1000:.1f} ms")
    pools.destroy("race")


def suspends(t):
    """How often a device was suspended, counted by the kernel from now on."""
    if not (TRACING / "kprobe_events").exists():
        tm.sh(["mount", "-t", "tracefs", "tracefs", TRACING])
        t.defer(tm.sh, ["umount", TRACING])
    group = "thinmgr_test"
    # Not by appending: Python would seek to the end, which this file does not allow.
    (TRACING / "kprobe_events").write_text(f"p:{group}/suspend dm_suspend\n")
    t.defer((TRACING / "kprobe_events").write_text, "")
    enabled = TRACING / f"events/{group}/suspend/enable"
    enabled.write_text("1\n")
    t.defer(enabled.write_text, "0\n")

    def hits():
        return sum(int(line.split()[1]) for line in (TRACING / "kprobe_profile").read_text().splitlines()
                   if line.split()[0] == "suspend")
    before = hits()
    return lambda: hits() - before


def nothing_suspended(t):
    """With our target no device stands still for a step of data, nor while the next is armed."""
    pools.create(t, "still", 64, policy={"data": {"maximum": 1024 * MIB}, "metadata": {"auto_extend": False}})
    device = pools.volume("still", "v", 1024)
    mapping = tm.sh(["dmsetup", "table", "still:_data"]).out
    was = (t.scratch / "still" / "data").stat().st_size
    before, count = pools.last_seq(), suspends(t)
    pools.Writer(device, 384, seed=22).finish(180)
    steps = [e["data"] for e in pools.events(before, pool="still", type="extended")]
    t.check(len(steps) >= 3, f"data grew again and again: {steps}")
    t.equal(tm.sh(["dmsetup", "table", "still:_data"]).out, mapping, "the table below the pool")
    if t.target == "ours":
        t.equal(count(), 0, f"suspends of {len(steps)} steps")
    else:
        t.check(count() > 0, "suspends are counted at all")
    t.log(f"{len(steps)} steps, {count()} suspends")
    shown = pools.pool("still")["data"]
    tm.wait_for(lambda: (t.scratch / "still" / "data").stat().st_size == sum(
        pools.pool("still")["data"][k] for k in ("size", "reserve")), 30, "the file is as long as what is used")
    t.check((t.scratch / "still" / "data").stat().st_size > was, f"it grew: {shown}")
    pools.destroy("still")


def exact_mark(t):
    """A pool with exactly the mark left is low: levels decide, however it came there.

    The kernel speaks up when it allocates a block while no more than the mark is free, so a writer
    that stops right there makes no event; the next look must see it.
    """
    pools.create(t, "tie", 64, policy={"sample_seconds": 3600})
    device = pools.volume("tie", "v", 512)
    done = 0

    def provision(blocks):
        nonlocal done
        tm.sh(["dd", "if=/dev/zero", f"of={device}", "bs=64k", f"count={blocks}", f"seek={done}",
               "oflag=direct", "status=none"])
        done += blocks

    def left():
        status = tm.thin_status("tie:_pool")
        return status.data_total - status.data_used - mark_in_kernel("tie") // 65536

    def come_to_the_mark():
        while left() > 0:  # the mark may move while this comes near
            provision(max(1, left() - 1))
        t.equal(left(), 0, "blocks above the mark")

    if target.current() == "ours":  # it speaks up at the mark itself
        before = pools.last_seq()
        provision(left())
        event = pools.wait_event("extended", before, 5, pool="tie")
        t.check(event["data"].get("kernel_usec", 0) > 0, f"since the kernel's own event: {event['data']}")
        t.log(f"a tie: {event['data']['kernel_usec'] / 1000:.1f} ms since the kernel said so, "
              f"{event['data']['reaction_usec'] / 1000:.1f} ms since it was heard")
        return
    come_to_the_mark()
    before = pools.last_seq()
    t.equal(kinds(0, pool="tie", type="extended"), [], "extensions so far")
    provision(1)  # the allocation that finds exactly the mark free
    event = pools.wait_event("extended", before, 5, pool="tie")
    t.equal((event["data"]["space"], event["data"]["reason"]), ("data", "low-water"), "what was extended")
    t.check("low-space" in kinds(before, pool="tie"), "low-space was told")
    t.check("kernel_usec" not in event["data"], "the distribution's target remembers nothing")
    took = event["data"]["reaction_usec"] / 1000

    pools.policy("tie", sample_seconds=5)
    before = pools.last_seq()
    provision(left())
    t.check(left() == 0 or kinds(before, pool="tie", type="extended"), "at the mark")
    event = pools.wait_event("extended", before, 15, pool="tie")
    t.equal(event["data"]["reason"], "level", "why it was extended")
    t.log(f"a tie: {took:.1f} ms by the kernel's event; one without an event: by the next sample")


def metadata_mark(t):
    """Our target is given the mark of metadata, and speaks up there; nobody has to come and look."""
    if target.current() != "ours":
        return
    marked = lambda: int(tm.thin_status("meta:_pool").line.split()[-1])  # noqa: E731
    pools.create(t, "meta", 64, metadata_size=256 * 1024,
                 policy={"sample_seconds": 3600, "metadata": {"low_water_percent": 40, "step_min": 256 * 1024}})
    tm.wait_for(lambda: marked() == 26, 10, "the mark of 64 blocks")
    before, number = pools.last_seq(), 1000
    while (status := tm.thin_status("meta:_pool")).metadata_total == 64 and number < 1064:
        t.check(status.metadata_used < 64, "it never runs out")
        tm.sh(["dmsetup", "message", "meta:_pool", "0", f"create_thin {number}"])
        number += 1
    event = pools.wait_event("extended", before, 10, pool="meta")
    t.equal((event["data"]["space"], event["data"]["reason"]), ("metadata", "low-water"), "what was extended")
    t.check(event["data"].get("kernel_usec", 0) > 0, f"since the kernel's own event: {event['data']}")
    total = tm.thin_status("meta:_pool").metadata_total
    tm.wait_for(lambda: marked() == -(-total * 40 // 100), 10, f"the mark of {total} blocks")
    for made in range(1000, number):
        tm.sh(["dmsetup", "message", "meta:_pool", "0", f"delete {made}"])
    pools.destroy("meta")


def the_mark(t):
    """The mark outlasts an extension at the rate seen, is never under the percentage or over half."""
    for name in ("tie",):
        doc = pools.pool(name)["data"]
        size, mark, times = doc["size"], doc["low_water"], doc["reaction_usec"]
        percent = pools.pool(name)["policy"]["data"]["low_water_percent"]
        need = doc["write_rate"] * 4 * times["slowest"] // 1_000_000
        t.check(mark >= min(size // 2, max(size * percent // 100, need)) - 65536,
                f"{name}: {mark} of {size} outlasts {need} at {doc['write_rate']} bytes a second")
        t.check(mark <= size // 2 + 65536, f"{name}: {mark} of {size} is not over half")
    # It follows the policy at once, in both directions.
    pools.policy("tie", data={"low_water_percent": 45})
    high = mark_in_kernel("tie")
    pools.policy("tie", data={"auto_extend": False, "low_water_percent": 5})
    low = mark_in_kernel("tie")
    size = pools.pool("tie")["data"]["size"]
    t.check(high >= size * 45 // 100 and low <= size * 6 // 100, f"the mark follows: {high}, then {low}")


def by_hand(t):
    before = pools.pool("tie")
    more = before["data"]["size"] + 64 * MIB
    plan = api("POST", "/v1/pools/tie/extend?dry_run=true", {"data_size": more}, expect=200).body
    t.equal((plan["id"], plan["kind"]), (None, "pool-extend"), "a dry run")
    t.equal(pools.pool("tie")["data"]["size"], before["data"]["size"], "size after a dry run")
    seq = pools.last_seq()
    pools.change("POST", "/v1/pools/tie/extend",
                 {"data_size": more, "metadata_size": before["metadata"]["size"] + MIB})
    after = pools.pool("tie")
    t.equal((after["data"]["size"], after["metadata"]["size"]), (more, before["metadata"]["size"] + MIB), "sizes")
    status = tm.thin_status("tie:_pool")
    t.equal((status.data_total * 65536, status.metadata_total * 4096), (more, after["metadata"]["size"]),
            "sizes in the kernel")
    t.equal([e["data"]["reason"] for e in pools.events(seq, type="extended")], ["requested"] * 2, "told as asked for")
    for body, field in (({"data_size": more - MIB}, "/data_size"),
                        ({"metadata_size": before["metadata"]["size"]}, "/metadata_size")):
        reply = api("POST", "/v1/pools/tie/extend?wait=60", body, expect=400)
        t.equal((reply.body["type"][18:], reply.body["field"]), ("out-of-range", field), "smaller")
    reply = api("POST", "/v1/pools/tie/extend?wait=60", {"data_size": 1 << 50}, expect=507)
    t.check(reply.body["type"].endswith("no-space") and reply.body["hint"], "more than there is")
    tm.sh(["thinmgr", "pool", "extend", "tie", "--data", "+32M"])
    t.equal(pools.pool("tie")["data"]["size"], more + 32 * MIB, "by the command")
    pools.destroy("tie")


def at_maximum(t):
    """A pool that may not grow: writes wait, the end of the wait is known, more space ends it."""
    before = pools.last_seq()
    pools.create(t, "full", 32, policy={"data": {"maximum": 48 * MIB, "step_min": 16 * MIB}})
    device = pools.volume("full", "v", 256)
    writer = pools.Writer(device, 64, seed=31)
    event = pools.wait_event("queueing", before, 30, pool="full")
    seen = time.time()
    doc = pools.pool("full")
    t.equal(doc["data"]["size"], 48 * MIB, "its size")
    t.equal((doc["mode"], doc["data"]["verdict"]), ("out_of_data_space", "at_maximum"), "its state")
    since, until = when(doc["queueing"]["since"]), when(doc["queueing"]["until"])
    t.check(abs(until - since - PATIENCE) < 0.01, "the wait is as long as the kernel's")
    t.check(0 <= seen - since < 5, "it began just now")
    t.equal(event["data"]["until"], doc["queueing"]["until"], "the event says the same")
    t.equal([e["data"]["until"] is not None for e in pools.events(before, type="out-of-space")], [True], "told once")
    shown = tm.sh(["thinmgr", "pool", "show", "full"]).out
    t.check("ait" in shown and "out_of_data_space" in shown or "Queueing" in shown, f"shown: {shown}")
    t.check(not writer.ended(), "the writer waits")
    failed = pools.events(before, pool="full", type="extend-failed")
    t.equal([e["data"]["reason"] for e in failed], ["at-maximum"], "told once that it may not grow")
    # In time.
    pools.change("POST", "/v1/pools/full/extend", {"data_size": 96 * MIB})
    writer.finish(60)
    doc = pools.pool("full")
    t.equal((doc["mode"], doc["queueing"]), ("write", None), "after extending")
    pools.wait_event("queueing-ended", before, 5, pool="full")

    # Not in time: the kernel gives up when it said it would.
    before = pools.last_seq()
    writer = pools.Writer(device, 64, seed=32, offset_mib=64)
    began = when(pools.wait_event("queueing", before, 30, pool="full")["time"])
    until = when(pools.pool("full")["queueing"]["until"])
    error = writer.wait(PATIENCE + 20)
    late = time.time() - until
    t.check(error in (errno.ENOSPC, errno.EIO), f"the write fails: {os.strerror(error)}")
    t.check(-1.5 < late < 5, f"it fails when it was said to: {late:+.1f} s")
    t.check(until - began < PATIENCE + 1, "counted from the beginning")
    tm.wait_for(lambda: pools.pool("full")["queueing"] is None, 10, "the end of the wait")
    ended = pools.wait_event("queueing-ended", before, 5, pool="full")
    t.check("fail" in ended["message"], "what became of the writes is told")
    pools.change("POST", "/v1/pools/full/extend", {"data_size": 160 * MIB})
    tm.wait_for(lambda: pools.pool("full")["mode"] == "write", 10, "writing again")
    pools.Writer(device, 64, seed=32, offset_mib=64).finish(60)
    t.check(not tm.thin_status("full:_pool").needs_check, "no check is needed")
    t.check(tm.thin_status("full:_pool").queue, "the next time, writes wait again")
    t.log(f"errors came {late:+.1f} s after the time announced")
    pools.destroy("full")


def room_made(t):
    """Nothing is left and nothing can be had: a trim and a delete work even so, and end the wait."""
    before = pools.last_seq()
    pools.create(t, "crammed", 48, policy={"data": {"auto_extend": False}})
    for name in "ab":
        pools.Writer(pools.volume("crammed", name, 16), 16, seed=51).finish(60)
    writer = pools.Writer(pools.volume("crammed", "v", 256), 48, seed=52)
    for free in (lambda: tm.sh(["blkdiscard", pools.node("crammed", "a")]),
                 lambda: pools.change("DELETE", "/v1/pools/crammed/volumes/b")):
        since = pools.wait_event("queueing", before, 60, pool="crammed")["seq"]
        t.check(not writer.ended(), "the writer waits")
        free()
        before = pools.wait_event("queueing-ended", since, 30, pool="crammed")["seq"]
    writer.finish(60)
    t.equal(pools.pool("crammed")["data"]["size"], 48 * MIB, "nothing was added")
    pools.destroy("crammed")


def no_backing(t):
    """The file system below is full: told once, tried less and less often, resumed when there is room."""
    disk = t.scratch / "disk"
    tm.sh(["mkfs.ext4", "-q", "-F", t.disks[0], "360M"])
    disk.mkdir()
    tm.sh(["mount", t.disks[0], str(disk)])
    t.defer(tm.sh, ["umount", str(disk)])
    before, cursor = pools.last_seq(), tm.journal_cursor()
    pools.create(t, "tight", 32, directory=disk / "pool",
                 policy={"data": {"step_min": 16 * MIB, "step_percent": 10}})
    device = pools.volume("tight", "v", 1024)
    ballast = disk / "ballast"
    room = pools.pool("tight")["backing"]["free"]
    tm.sh(["fallocate", "-l", str(room - 8 * MIB), str(ballast)])
    writer = pools.Writer(device, 128, seed=41, pause=0.05)
    failed = pools.wait_event("extend-failed", before, 60, pool="tight")
    t.equal(failed["data"]["space"], "data", "what could not grow")
    t.check("no room" in failed["data"]["detail"] or "free" in failed["data"]["detail"], failed["data"]["detail"])
    tm.wait_for(lambda: pools.pool("tight")["data"]["verdict"] == "no_backing", 10, "the verdict")
    # Looked at again and again on the way to where nothing is left, and told once.
    pools.wait_event("queueing", before, 30, pool="tight")
    t.equal(len(pools.events(before, pool="tight", type="extend-failed")), 1, "failures told of")
    ballast.unlink()
    resumed = pools.wait_event("extend-resumed", before, 70, pool="tight")
    writer.finish(90)
    doc = pools.pool("tight")
    t.equal((doc["mode"], doc["queueing"]), ("write", None), "at the end")
    t.check(doc["data"]["size"] >= 128 * MIB, "it grew")
    t.log(f"resumed {when(resumed['time']) - when(failed['time']):.1f} s after the failure; "
          f"events: {', '.join(kinds(before, pool='tight'))}")
    failures = pools.events(before, pool="tight", type="extend-failed")
    t.check(len(failures) <= 2, "no storm of failures")
    told_of = [e for e in tm.journal(cursor) if (e.get("TM_POOL"), e.get("TM_EVENT")) == ("tight", "extend-failed")]
    t.equal(len(told_of), len(failures), "failures in the journal")
    pools.destroy("tight")


def unseen(t):
    """What happened while nobody looked is told by what our target remembers, with its times."""
    if t.target != "ours":
        return
    pools.create(t, "blind", 32, policy={"sample_seconds": 3600})
    device = pools.volume("blind", "v", 512)
    tm.wait_for(lambda: pools.pool("blind")["data"]["reserve"] >= 16 * MIB, 30, "an armed reserve")
    room = pools.pool("blind")["data"]
    room = room["size"] + room["reserve"]
    pid, cursor = tm.main_pid(), tm.journal_cursor()

    def runs_out(writer):
        tm.wait_for(lambda: tm.thin_status("blind:_pool").mode == "out_of_data_space", 30, "no data space",
                    every=0.1)
        t.check(not writer.ended(), "the writer waits")

    def spells(events):
        return [(e["type"], e["data"].get("began"), e["data"].get("ended")) for e in events
                if e["type"] in ("mode-changed", "out-of-space", "queueing")]

    # It begins and ends, and the daemon finds a pool in good order.
    before, since = pools.last_seq(), time.time()
    os.kill(pid, signal.SIGSTOP)
    t.defer(tm.sh, ["systemctl", "kill", "-s", "CONT", "thinmgrd"])
    writer = pools.Writer(device, 40, seed=61)
    runs_out(writer)
    tm.sh(["dmsetup", "message", "blind:_pool", "0", f"grow_data {room // 65536}"])
    t.equal(writer.wait(60), 0, "the writer that waited")
    t.equal(tm.thin_status("blind:_pool").mode, "write", "the mode, found by nobody")
    until = time.time()
    os.kill(pid, signal.SIGCONT)
    told_of = pools.wait_event("out-of-space", before, 30, pool="blind")
    mode = pools.wait_event("mode-changed", before, 5, pool="blind")
    t.equal((mode["data"]["from"], mode["data"]["to"]), ("write", "out_of_data_space"), "the mode")
    began, ended = (when(told_of["data"][key]) for key in ("began", "ended"))
    t.check(since - 0.001 <= began <= ended <= until, f"its times: {since} {began} {ended} {until}")
    t.equal((told_of["data"]["until"], told_of["data"]["timed_out"]), (None, False), "nothing waits any more")
    t.equal(spells(pools.events(before, pool="blind")),
            [(kind, told_of["data"]["began"], told_of["data"]["ended"])
             for kind in ("mode-changed", "out-of-space", "mode-changed")],
            "told once")
    shown = tm.sh(["thinmgr", "event", "list", "--pool", "blind"]).out
    line = [text for text in shown.splitlines() if "had no data space" in text]
    t.check(len(line) == 1 and told_of["data"]["began"] in line[0] and told_of["data"]["ended"] in line[0],
            f"what the command shows: {shown}")
    t.log(line[0].strip())
    tm.verify_pattern(device, 40, 61)

    # It lasts until the daemon looks: what it sees is told by that, and how long the kernel waited.
    tm.wait_for(lambda: pools.pool("blind")["data"]["reserve"] >= 16 * MIB, 30, "an armed reserve")
    room = pools.pool("blind")["data"]["free"] // MIB
    before = pools.last_seq()
    os.kill(pid, signal.SIGSTOP)
    writer = pools.Writer(device, room + 16, seed=62, offset_mib=64)
    runs_out(writer)
    since = time.time()
    waited = time.time() - since
    os.kill(pid, signal.SIGCONT)
    writer.finish(60)
    extended = pools.wait_event("extended", before, 10, pool="blind")["data"]
    t.check(extended["kernel_usec"] >= waited * 1e6, f"the kernel waited for {waited:.3f} s: {extended}")
    t.equal([e["data"].get("began") for e in pools.events(before, pool="blind", type="out-of-space")], [None],
            "told once, by its status")
    t.log(f"extended {extended['kernel_usec'] / 1e6:.3f} s after the kernel said so, "
          f"{extended['reaction_usec'] / 1e6:.3f} s after the daemon woke")
    t.equal([e["MESSAGE"] for e in tm.journal(cursor) if "own record" in e.get("MESSAGE", "")], [], "warnings")
    pools.destroy("blind")


def sparse(t):
    pools.create(t, "thin", 256, backing={"sparse": True})
    device = pools.volume("thin", "v", 512)
    data = t.scratch / "thin" / "data"
    t.check(data.stat().st_blocks * 512 < 16 * MIB, "nothing is allocated ahead")
    pools.Writer(device, 160, seed=51).finish(60)
    t.check(pools.pool("thin")["data"]["extensions"] >= 1, "a sparse pool grows, too")
    held = data.stat().st_blocks
    tm.sh(["blkdiscard", device])
    tm.wait_for(lambda: data.stat().st_blocks < held // 2, 20, "discards reaching the file")
    pools.destroy("thin")


def told(t, bus, stream, first):
    """Every listener heard the same, nothing twice, nothing left out."""
    # The last is written down after what it tells of was answered.
    tm.wait_for(lambda: any(e["pool"] == "thin" for e in pools.events(first, type="pool-deleted")), 10, "the last event")
    events = pools.events(first)
    by_seq = {e["seq"]: e for e in events}
    t.equal(list(by_seq), list(range(first + 1, first + 1 + len(events))), "numbers without a gap")
    tm.wait_for(lambda: len(stream.events()) >= len(events), 10, "the stream's end")
    t.equal(stream.events(), events, "the stream")
    tm.wait_for(lambda: bus.signals() and bus.signals()[-1][1][0] == events[-1]["seq"], 10, "the bus's end")
    signals = bus.signals()
    t.equal([data[:3] for member, data in signals if member == "Event"],
            [[e["seq"], e["type"], e["severity"]] for e in events], "signals Event on the bus")
    special = {"low-space": "LowSpace", "metadata-low-space": "LowSpace", "extended": "Extended",
               "out-of-space": "OutOfSpace", "mode-changed": "ModeChanged", "extend-failed": "ExtendFailed"}
    heard = [(member, data[-1]) for member, data in signals if member != "Event"]
    t.equal(heard, [(special[e["type"]], e["seq"]) for e in events if e["type"] in special],
            "the signals with figures")
    t.equal({member for member, _ in heard}, set(special.values()), "each of them was heard")
    for member, data in signals:
        if member == "Extended":
            figures = by_seq[data[-1]]["data"]
            t.equal(data[1:5], [figures[k] for k in ("space", "from", "to", "reaction_usec")], "figures of Extended")
        elif member == "OutOfSpace":
            until = by_seq[data[-1]]["data"]["until"]
            t.check(abs(data[1] / 1e6 - (when(until) if until else 0)) < 0.01, "figures of OutOfSpace")
    t.log(f"{len(events)} events, {len(signals)} signals")


def in_journal(t, first, cursor):
    """The journal has each event, too: of which pool, what kind, how bad, and what to do."""
    events = pools.events(first)
    priorities = {"critical": 2, "error": 3, "warning": 4, "notice": 5, "info": 6}

    def entries():
        return [e for e in tm.journal(cursor) if "TM_EVENT" in e]
    tm.wait_for(lambda: len(entries()) >= len(events), 10, "the journal's end")
    found = entries()
    t.equal([(e["TM_EVENT"], e.get("TM_POOL"), e.get("TM_VOLUME"), int(e["PRIORITY"]), e["MESSAGE"]) for e in found],
            [(e["type"], e["pool"], e["volume"], priorities[e["severity"]], e["message"]) for e in events],
            "events in the journal")
    # An id that an administrator may ask for explains itself.
    catalog = {line.split()[0] for line in tm.sh(["journalctl", "--list-catalog"]).out.splitlines() if "thinmgr" in line}
    explained = {e["TM_EVENT"]: e["MESSAGE_ID"] for e in found if "MESSAGE_ID" in e}
    t.check(set(explained) >= {"low-space", "extended", "extend-failed", "out-of-space",
                               "queueing", "mode-changed"}, f"events with an id: {explained}")
    t.check(set(explained.values()) <= catalog, f"{explained} are all in the catalog: {catalog}")
    one = next(e for e in found if e["TM_EVENT"] == "extended" and e["TM_POOL"] == "race")
    text = tm.sh(["journalctl", "--no-pager", "-x", f"--cursor={cursor}", f"MESSAGE_ID={one['MESSAGE_ID']}",
                  "TM_POOL=race"]).out
    t.check(one["MESSAGE"] in text and "Subject: Pool race was extended" in text, f"what the catalog says: {text[:500]}")
    t.log(f"{len(found)} events in the journal, {len(explained)} kinds with an explanation")


def over_restart(t, stream):
    """Numbers go on over restarts, and a reader who comes back misses nothing."""
    last = stream.events()[-1]["seq"]
    stream.close()
    pools.create(t, "again", 16)
    tm.restart()
    pools.policy("again", sample_seconds=10)
    tm.restart(kill=True)
    pools.destroy("again")
    pools.wait_event("pool-deleted", last, 10)  # written down just after the end
    missed = pools.events(last)
    got = [e["type"] for e in missed]
    t.equal(got, ["pool-created", "daemon-started", "policy-changed", "daemon-started", "pool-deleted"], "events")
    t.equal([e["seq"] for e in missed], list(range(last + 1, last + 6)), "numbers over restarts")
    path = t.scratch / "stream-2"
    back = Stream(path, last)
    t.defer(back.close)
    tm.wait_for(lambda: len(back.events()) >= 5, 10, "what was missed")
    t.equal(back.events(), missed, "what was missed")
    # Of a number that was never given, all that is kept.
    ahead = Stream(t.scratch / "stream-3", last + 1000)
    t.defer(ahead.close)
    oldest = pools.events()[0]
    tm.wait_for(lambda: ahead.events(), 10, "the oldest event")
    t.equal(ahead.events()[0], oldest, "the oldest event")
    # Readers are let go when the daemon stops.
    tm.restart()
    t.equal(back.process.wait(10) in (0, 18), True, "the stream ends with the daemon")
    with_list = api("GET", f"/v1/events?after={last}&limit=2", expect=200).body
    t.equal([e["seq"] for e in with_list["items"]], [last + 1, last + 2], "a page of them")
    try:
        api("GET", "/v1/events?after=x", expect=400)
    except http.client.HTTPException as err:
        raise tm.Failed(str(err)) from err


def run(t):
    timeout = next(path for path in TIMEOUTS if path.exists())
    t.defer(timeout.write_text, timeout.read_text())
    timeout.write_text(f"{PATIENCE}\n")
    first, cursor = pools.last_seq(), tm.journal_cursor()
    bus, stream = Bus(t.scratch / "bus"), Stream(t.scratch / "stream", first)
    t.defer(bus.close)
    t.defer(stream.close)
    tm.wait_for(bus.listening, 15, "busctl listening")
    began = time.monotonic()
    for part in (fast_writer, nothing_suspended, exact_mark, metadata_mark, the_mark, by_hand, at_maximum, room_made, no_backing,
                 unseen, sparse):
        part(t)
        t.log(f"{part.__name__}: {time.monotonic() - began:.1f} s")
        began = time.monotonic()
    told(t, bus, stream, first)
    in_journal(t, first, cursor)
    over_restart(t, stream)
    t.log(f"events: {time.monotonic() - began:.1f} s")
