# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon killed before and after every step of every operation.

The points come from the daemon's own list of steps. After the restart the operation is wholly done
or wholly undone (which of the two is known from its point of no return), everything that tells of
pools agrees, the metadata is clean, all data is there, and the same request succeeds. Where the
operation is finished by the restart, that is killed once as well.

Without FULL=1 every step has its turn once, before it or after it.
"""

import http.client

import crashlab
import tm

LIMIT = 3000

# What tells in the end what became of each volume, also when a restart finished it.
REPORTED = {"pool-repair": ("accept",), "pool-restore": ("accept", "accept_losses")}


def strike(w, point):
    scenario = crashlab.SCENARIOS[point.kind]
    scenario.prepare(w)
    before = crashlab.state()
    pool = point.kind.split("-")[0] == "pool" and "n" or "a"
    deep = {"n", "a", "b"} if pool == "n" else {"a"}

    w.daemon.stop()
    w.daemon.start(f"kill:{point}")
    try:
        op = scenario.ask(w)
    except (OSError, http.client.HTTPException):
        op = None  # the kill was faster than the answer
    w.daemon.wait_killed()

    if point.done and point.again:
        w.daemon.start_killed(f"kill:{point}")
    w.daemon.start()
    newest = tm.items(tm.api("GET", "/v1/operations?limit=1", expect=200).body)[0]
    w.t.equal(newest["kind"], point.kind, "the newest operation")
    w.t.check(op in (None, newest["id"]), "it is the one asked for")
    record = crashlab.ended(newest["id"])
    w.t.equal(record["status"], "done" if point.done else "failed", f"operation after {point}")
    if not point.done:
        w.t.equal(record["error"]["type"], "urn:thinmgr:error:interrupted", "why it failed")
    if point.done and point.kind in REPORTED:
        def verdicts():
            return [e["data"]["verdict"] for e in tm.items(tm.api("GET", "/v1/events?type=recovered", expect=200).body)
                    if e["operation"] == newest["id"]]

        # An event is written a moment after what it tells of.
        told = tm.wait_for(verdicts, 30, f"an event that tells of {point}")
        w.t.check(len(told) == 1 and told[0] in REPORTED[point.kind],
                  f"what is told of it, whoever finished it: {told}")
    wanted = crashlab.expected(before, scenario, point.done)
    crashlab.same_state(crashlab.state(), wanted, f"after {point}")
    claims = {"n": w.scratch / "n"} if scenario.unknown and not point.done else None
    crashlab.verify_soon(w.scratch, deep, claims)
    w.verify_data()

    if not point.done:
        again = crashlab.ended(scenario.ask(w))
        w.t.equal((again["status"], again["error"]), ("done", None), f"asked again after {point}")
        crashlab.same_state(crashlab.state(), crashlab.expected(before, scenario, True),
                            f"asked again after {point}")
        crashlab.verify_soon(w.scratch, set())
    scenario.revert(w)
    scenario.drop(w)
    return True


def crowd(w, point):
    """Several pools at work, more waiting, when the kill comes: each ends one way or the other."""
    before = crashlab.state()
    pools = ("a", "b", "keep")
    w.daemon.stop()
    w.daemon.start(f"kill:{point}")
    asked = {}
    for n in range(3):
        for pool in pools:
            try:
                asked[(pool, f"c{n}")] = crashlab.change("POST", f"/v1/pools/{pool}/volumes",
                                                         {"name": f"c{n}", "size": 4 << 20})
            except (OSError, http.client.HTTPException):
                break  # it died already
    w.daemon.wait_killed()
    w.daemon.start()
    wanted = before
    done = 0
    for (pool, name), op in asked.items():
        record = crashlab.ended(op)
        if record["status"] == "done":
            done += 1
            wanted[pool]["volumes"][name] = {"size": 4 << 20, "active": True, "origin": None}
        else:
            w.t.equal(record["error"]["type"], "urn:thinmgr:error:interrupted", "why it failed")
    # One whose answer was lost with the daemon may be there as well, but then wholly.
    got = crashlab.state()
    for pool in pools:
        for name, v in got[pool]["volumes"].items():
            if name.startswith("c") and (pool, name) not in asked:
                wanted[pool]["volumes"][name] = v
    crashlab.same_state(got, wanted, "after a crowd was killed")
    crashlab.verify_soon(w.scratch)
    w.verify_data()
    for pool in pools:
        for name in [n for n in got[pool]["volumes"] if n.startswith("c")]:
            crashlab.do("DELETE", f"/v1/pools/{pool}/volumes/{name}")
    w.t.log(f"a crowd of {len(asked)}: {done} done, the others as if never asked for")
    return True


def run(t):
    every = crashlab.points()
    chosen = every if t.full else crashlab.reduced(every)
    crashlab.strike_all(t, chosen, strike)
    crashlab.strike_all(t, [p for p in every if p.kind == "volume-create" and p.when == "after"
                            and p.step in ("move-transaction", "record")], crowd)
    t.log(f"{len(chosen)} of {len(every)} points, {len(crashlab.SCENARIOS)} operations")
