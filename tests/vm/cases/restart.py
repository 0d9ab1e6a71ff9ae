# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon's own ends: killed idle and at work, stopped, reloaded, hung, started twice."""

import os
import select
import signal
import threading
import time
from pathlib import Path

import crashlab
import tm

LIMIT = 480
MIB = crashlab.MIB
DROP_IN = Path("/etc/thinmgr/thinmgrd.conf.d/restart-case.conf")
UNIT_DROP_IN = Path("/run/systemd/system/thinmgrd.service.d/restart-case.conf")


def killed_idle(t):
    before = crashlab.state()
    pid = tm.main_pid()
    tm.restart(kill=True)
    t.check(tm.main_pid() != pid, "systemd started another")
    crashlab.same_state(crashlab.state(), before, "after a kill")
    crashlab.verify_soon(t.scratch)


def killed_at_work(t):
    """A writer never stops while the daemon that extends its pool is killed again and again."""
    mib, done = 320, threading.Event()
    node = crashlab.make_volume("grow", "vol", 512)
    result = {}

    def write():
        try:
            result["digest"] = tm.write_pattern(node, mib, 11)
        except Exception as err:
            result["error"] = err
        done.set()

    kills = 0
    writer = threading.Thread(target=write)
    writer.start()
    while not done.wait(2.5) and kills < 40:
        tm.restart(kill=True)
        kills += 1
    writer.join(120)
    t.check(done.is_set(), "the writer came to its end")
    t.check("error" not in result, f"no write failed: {result.get('error')}")
    t.check(kills > 0, "the daemon was killed at least once meanwhile")
    tm.drop_caches()
    t.equal(tm.digest(node, mib), result["digest"], "what was written")
    pool = tm.api("GET", "/v1/pools/grow", expect=200).body
    t.check(pool["data"]["size"] >= mib * MIB, "the pool has grown")
    t.equal(pool["mode"], "write", "its mode")
    t.log(f"killed {kills} times while {mib} MiB were written; "
          f"the pool grew to {pool['data']['size'] // MIB} MiB")
    tm.wait_for(lambda: agrees(t), 20, "agreement after growth")


def agrees(t):
    try:
        crashlab.verify(t.scratch)
        return True
    except crashlab.Disagreement as err:
        agrees.why = str(err)
        return False


def stopped(t):
    before = {d.uuid for d in crashlab.dm_list()}
    content = tm.digest("/dev/thinmgr/rest/vol", 1)
    pid = tm.main_pid()
    fd = os.pidfd_open(pid)
    began = time.monotonic()
    signal.pidfd_send_signal(fd, signal.SIGTERM)
    t.check(select.select([fd], [], [], 5)[0], "its end")
    took = time.monotonic() - began
    os.close(fd)
    t.check(took < 1.0, f"SIGTERM ends it in less than a second ({took:.2f} s)")
    tm.wait_for(lambda: not tm.active(), 10, "the unit inactive")
    t.equal(tm.sh(["systemctl", "show", "-P", "Result", "thinmgrd"]).out.strip(), "success", "Result")
    t.equal({d.uuid for d in crashlab.dm_list()}, before, "devices after a stop")
    t.check(not any(d.suspended for d in crashlab.dm_list()), "none is suspended")
    t.equal(tm.digest("/dev/thinmgr/rest/vol", 1), content, "a volume without the daemon")
    tm.write_pattern("/dev/thinmgr/rest/vol", 1, 8, offset_mib=2)
    tm.sh(["systemctl", "start", "thinmgrd"])
    tm.wait_ready()
    crashlab.verify_soon(t.scratch)
    t.log(f"SIGTERM: ended after {took * 1000:.0f} ms")


def said(cursor, text):
    return any(text in str(line.get("MESSAGE", "")) for line in tm.journal(cursor))


def reloaded(t):
    pid = tm.main_pid()
    DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    t.defer(DROP_IN.unlink, True)
    DROP_IN.write_text("[daemon]\nlog_level=debug\n")
    cursor = tm.journal_cursor()
    tm.sh(["systemctl", "reload", "thinmgrd"])
    tm.wait_for(lambda: said(cursor, "was reloaded"), 10, "the reload in the journal")
    DROP_IN.write_text("[daemon]\nlog_level=info\nsurprise=1\n")
    cursor = tm.journal_cursor()
    tm.sh(["systemctl", "reload", "thinmgrd"])
    tm.wait_for(lambda: said(cursor, f"{DROP_IN}:3"), 10, "the refusal, with file and line")
    t.check(tm.active() and tm.answers(), "a bad configuration leaves the daemon as it was")

    bad = tm.sh(["thinmgrd", "--check-config"], check=False)
    t.check(bad.status != 0, "--check-config fails on a bad file")
    t.check(f"{DROP_IN}:3" in bad.out + bad.err and "surprise" in bad.out + bad.err,
            f"it names file, line and key: {bad.out}{bad.err}")
    DROP_IN.write_text("[daemon]\nlog_level=info\n")
    good = tm.sh(["thinmgrd", "--check-config"], check=False)
    t.equal((good.status, good.err), (0, ""), "--check-config on a good file")
    DROP_IN.unlink()
    tm.sh(["systemctl", "reload", "thinmgrd"])
    t.equal(tm.main_pid(), pid, "the process is the same")


def second(t):
    pid = tm.main_pid()
    other = tm.sh(["thinmgrd"], check=False, limit=20)
    t.check(other.status != 0, "a second instance ends with an error")
    t.check("thinmgrd.lock" in other.err, f"and says why: {other.err}")
    t.check(tm.main_pid() == pid and tm.answers(), "the first goes on")


def hung(t):
    """Systemd ends a daemon that does not answer its watchdog, and starts another."""
    shown = tm.sh(["systemctl", "show", "-P", "WatchdogUSec", "thinmgrd"]).out.strip()
    t.check(shown not in ("", "0", "infinity"), f"the unit has a watchdog ({shown})")
    UNIT_DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    UNIT_DROP_IN.write_text("[Service]\nWatchdogSec=4\n")
    try:
        tm.sh(["systemctl", "daemon-reload"])
        tm.restart()
        pid = tm.main_pid()
        time.sleep(6)
        t.equal(tm.main_pid(), pid, "a healthy daemon outlives its watchdog's time")
        os.kill(pid, signal.SIGSTOP)
        tm.wait_for(lambda: tm.main_pid() not in (0, pid), 60, "another after a hang")
        tm.wait_ready()
    finally:
        UNIT_DROP_IN.unlink()
        tm.sh(["systemctl", "daemon-reload"])
        tm.restart()
    crashlab.verify_soon(t.scratch)


def run(t):
    # Kills in a row are what is tested here, not a fault to give up on.
    tm.sh(["systemctl", "reset-failed", "thinmgrd"], check=False)
    crashlab.make_pool("rest", t.scratch / "rest", 32)
    tm.write_pattern(crashlab.make_volume("rest", "vol", 16), 1, 1)
    crashlab.make_pool("grow", t.scratch / "grow", 32, {"data": {"step_min": 16 * MIB}})
    killed_idle(t)
    stopped(t)
    reloaded(t)
    second(t)
    killed_at_work(t)
    hung(t)
    for pool in ("rest", "grow"):
        crashlab.do("DELETE", f"/v1/pools/{pool}?with_volumes=true")
    crashlab.verify_soon(t.scratch)
