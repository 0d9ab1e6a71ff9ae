# SPDX-License-Identifier: GPL-2.0-or-later
"""Every step of every operation made to fail, with the daemon living on.

Before the point of no return the operation is undone as if it had never been asked for. Behind it a
step that can wait is put off to the next start; any other failure leaves a pool that says it is
uncertain and takes no changes. Without FULL=1 every step has its turn once, those of the last kind not.
"""

import dataclasses

import crashlab
import tm

LIMIT = 2400


def points():
    """A failing step has done its work, so that as much as possible is to be undone; a step that
    would be behind the point of no return then fails before."""
    every = crashlab.points()
    undone = {(p.kind, p.step, p.when) for p in every if not p.done}
    commits = {}
    for p in every:
        if p.done:
            commits.setdefault(p.kind, p.index)
    chosen = []
    for p in every:
        if p.done and p.when == "after":
            continue
        if p.when == "before" and (p.kind, p.step, "after") in undone:
            continue
        # Failing before the step of no return has run is undone, be it in the journal or not.
        chosen.append(dataclasses.replace(p, done=p.done and p.index > commits[p.kind]))
    return chosen


def strike(w, point):
    scenario = crashlab.SCENARIOS[point.kind]
    scenario.prepare(w)
    before = crashlab.state()
    w.daemon.stop()
    w.daemon.start(f"error:{point}")
    record = crashlab.ended(scenario.ask(w))
    if point.done and not point.can_wait:
        return failed_for_good(w, point, record)

    w.t.equal(record["status"], "done" if point.done else "failed", f"operation at {point}")
    if not point.done:
        w.t.equal(record["error"]["type"], "urn:thinmgr:error:internal", record["error"]["detail"])
    wanted = crashlab.expected(before, scenario, point.done)
    claims = {"n": w.scratch / "n"} if scenario.unknown and not point.done else None
    deep = {"n", "a", "b"} if point.kind.startswith("pool") else {"a"}
    if point.done:  # what was put off is made good by a start
        w.daemon.stop()
        w.daemon.start()
    crashlab.same_state(crashlab.state(), wanted, f"at {point}")
    crashlab.verify_soon(w.scratch, deep, claims)
    w.verify_data()
    if not point.done:
        w.daemon.stop()
        w.daemon.start()
        again = crashlab.ended(scenario.ask(w))
        w.t.equal((again["status"], again["error"]), ("done", None), f"asked again after {point}")
        crashlab.same_state(crashlab.state(), crashlab.expected(before, scenario, True),
                            f"asked again after {point}")
    scenario.revert(w)
    scenario.drop(w)
    return True


def failed_for_good(w, point, record):
    """Neither back nor on: said, and nothing else is changed."""
    w.t.equal(record["status"], "failed", f"operation at {point}")
    pool = crashlab.operation(record["id"])["pool"]
    shown = tm.api("GET", f"/v1/pools/{pool}", expect=200).body
    w.t.equal(shown["state"], "uncertain", f"pool {pool} at {point}")
    w.t.check(point.step in shown["state_reason"], shown["state_reason"])
    refused = tm.api("POST", f"/v1/pools/{pool}/volumes", {"name": "no", "size": 4 << 20})
    w.t.equal((refused.status, refused.body["type"]), (409, "urn:thinmgr:error:wrong-state"),
              f"a change of pool {pool} at {point}")
    w.t.check(not any(d.suspended for d in crashlab.dm_list()), "none is suspended")
    w.verify_data()
    return False


def run(t):
    every = points()
    chosen = [p for p in every if t.full or not p.done or p.can_wait]
    crashlab.strike_all(t, chosen, strike)
    t.log(f"{len(chosen)} of {len(every)} points")
