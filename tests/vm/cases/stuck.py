# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel that refuses, and a kernel that does not answer: one pool's trouble stays its own.

With the distribution's target, whichever is in use: an extension with ours neither suspends a pool nor
waits for its disks, so it does not meet what is provoked here.
"""

import time

import pools
import target
import tm
from contract import api

LIMIT = 400
MIB = pools.MIB
HUNG = 6  # more than the daemon has threads for looking


def table(name):
    return tm.sh(["dmsetup", "table", name]).out.strip()


def switch(name, line):
    tm.sh(["dmsetup", "load", name, "--table", line])
    tm.sh(["dmsetup", "resume", "--noflush", "--nolockfs", name])


def suspended(name):
    return any(d.suspended for d in tm.dm_devices(tm.PREFIX) if d.name == name)


def near_the_mark(name, device):
    """Write until the next MiB finds the pool at its mark; how many MiB are written."""
    written = 0
    while True:
        status = tm.thin_status(f"{name}:_pool")
        mark = int(table(f"{name}:_pool").split()[6])
        if status.data_total - status.data_used - mark < 32:
            return written
        pools.Writer(device, 1, seed=written, offset_mib=written).finish()
        written += 1


def refused(t):
    """The kernel takes a table and then refuses to run with it; the pool must not stay suspended."""
    pools.create(t, "refused", 64)
    device = pools.volume("refused", "v", 512)
    at = near_the_mark("refused", device)
    whole = table("refused:_meta")
    start, sectors, *rest = whole.split()
    cursor = tm.journal_cursor()
    # Shorter than the metadata says it is: every resume of the pool fails.
    switch("refused:_meta", " ".join([start, str(int(sectors) - 1024), *rest]))
    writer = pools.Writer(device, 8, seed=99, offset_mib=at)
    tm.wait_for(lambda: any("left suspended" in m.get("MESSAGE", "") for m in tm.journal(cursor)), 30,
                "the message")
    t.check(suspended("refused:_pool"), "the pool is suspended as long as nothing can be done")
    t.equal(api("GET", "/v1/pools/refused").status, 200, "the API answers")
    switch("refused:_meta", whole)
    tm.wait_for(lambda: not suspended("refused:_pool"), 30, "the pool resumed")
    writer.finish()
    tm.wait_for(lambda: pools.pool("refused")["data"]["size"] > 64 * MIB, 60, "its growth")
    t.check(any(e["data"]["space"] == "data" for e in pools.events(0, pool="refused", type="extend-failed")),
            "the failure was told")
    t.equal(pools.pool("refused")["state"], "active", "its state")
    pools.destroy("refused")


def refused_an_operation(t):
    """The same, met by an operation or by a start: it leaves the pool uncertain, but not suspended."""
    pools.create(t, "asked", 64)
    pools.volume("asked", "v", 512)
    pools.policy("asked", sample_seconds=3600)  # no sample comes to the rescue
    whole = table("asked:_meta")
    start, sectors, *rest = whole.split()
    for restarted in (False, True):
        switch("asked:_meta", " ".join([start, str(int(sectors) - 1024), *rest]))
        pools.change("PATCH", "/v1/pools/asked/policy", {"data": {"low_water_percent": 30 + restarted}}, expect=500)
        if restarted:
            tm.restart()
        t.check(suspended("asked:_pool"), "the pool is suspended as long as nothing can be done")
        switch("asked:_meta", whole)
        tm.wait_for(lambda: not suspended("asked:_pool"), 30, "the pool resumed")
        t.equal(pools.pool("asked")["state"], "uncertain", "its state")
        pools.change("POST", "/v1/pools/asked/deactivate")
        pools.change("POST", "/v1/pools/asked/activate")
    t.equal(pools.pool("asked")["state"], "active", "its state")
    pools.destroy("asked")


def hung(t):
    """Disks below several pools do not answer, so the kernel's suspend hangs; another pool still grows."""
    names = [f"hung{n}" for n in range(HUNG)]
    devices, at = {}, {}
    for name in [*names, "free"]:
        pools.create(t, name, 32)
        devices[name] = pools.volume(name, "v", 256)
        at[name] = near_the_mark(name, devices[name])
    cursor = tm.journal_cursor()
    writers = {}
    try:
        for name in names:
            tm.sh(["dmsetup", "suspend", "--noflush", "--nolockfs", f"{name}:_data"])
        for name in names:
            writers[name] = pools.Writer(devices[name], 8, seed=7, offset_mib=at[name])

        def late():
            return {m["TM_POOL"] for m in tm.journal(cursor)
                    if "does not answer" in m.get("MESSAGE", "")}

        tm.wait_for(lambda: len(late()) >= HUNG, 90, "all of them told of")
        began = time.monotonic()
        before = pools.last_seq()
        pools.Writer(devices["free"], 8, seed=8, offset_mib=at["free"]).finish()
        pools.wait_event("extended", before, 30, pool="free")
        t.log(f"{HUNG} pools hang, and another is extended {time.monotonic() - began:.1f} s after it was written to")
        t.equal(len(tm.items(api("GET", "/v1/pools", expect=200).body)), HUNG + 1, "pools listed")
    finally:
        for name in names:
            tm.sh(["dmsetup", "resume", f"{name}:_data"], check=False)
    for name in names:
        writers[name].finish()
        tm.wait_for(lambda: pools.pool(name)["data"]["size"] > 32 * MIB, 60, f"growth of {name}")
    t.check(not any(d.suspended for d in tm.dm_devices(tm.PREFIX)), "nothing is left suspended")
    for name in [*names, "free"]:
        pools.destroy(name)


def back(t):
    target.use(t.target)
    tm.restart()


def run(t):
    if t.target != "stock":
        t.defer(back, t)
        target.use("stock")
        tm.restart()
    t.check(api("GET", "/v1/system").body["kernel"]["target"]["origin"] == "distribution", "the distribution's target is in use")
    refused(t)
    refused_an_operation(t)
    hung(t)
