# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon killed before and after every step of every operation.

The points come from the daemon's own list of steps. After the restart the operation is wholly done
or wholly undone (which of the two is known from its point of no return), everything that tells of
pools agrees, the metadata is clean, all data is there, and the same request succeeds.

Without FULL=1 every step has its turn once, before it or after it.
"""

import crashlab
import tm

LIMIT = 900


def strike(w, point):
    scenario = crashlab.SCENARIOS[point.kind]
    scenario.prepare(w)
    before = crashlab.state()
    pool = point.kind.split("-")[0] == "pool" and "n" or "a"
    deep = {"n", "a", "b"} if pool == "n" else {"a"}

    w.daemon.stop()
    w.daemon.start(f"kill:{point}")
    op = scenario.ask(w)
    w.daemon.wait_killed()

    w.daemon.start()
    record = crashlab.ended(op)
    w.t.equal(record["status"], "done" if point.done else "failed", f"operation after {point}")
    if not point.done:
        w.t.equal(record["error"]["type"], "urn:thinmgr:error:interrupted", "why it failed")
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


def run(t):
    every = crashlab.points()
    chosen = every if t.full else crashlab.reduced(every)
    crashlab.strike_all(t, chosen, strike)
    t.log(f"{len(chosen)} of {len(every)} points, {len(crashlab.SCENARIOS)} operations")
