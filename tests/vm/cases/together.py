# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes asked for together have their turn one after the other, and one that goes on can be cancelled."""

import concurrent.futures
import contextlib
import json
import shutil
from pathlib import Path

import metadata
import pools
import runner
import tm

LIMIT = 300
MIB = 1 << 20
HOLD, HELD = Path("/run/thinlab-hold"), Path("/run/thinlab-held")
# One program is all of the thin tools, and goes by its name.
REAL = Path("/run/thinlab-real/thin_check")
REPAIR = runner.load("repair")
# Answers for its version, says that it has begun, and waits until it may go on.
WAITS = f"""case "$*" in *version*) exec {REAL} "$@";; esac
touch {HELD}
while [ -e {HOLD} ]; do sleep 0.1; done
exec {REAL} "$@\""""


@contextlib.contextmanager
def held():
    """thin_check does not end before the block does."""
    HELD.unlink(missing_ok=True)
    HOLD.touch()
    REAL.parent.mkdir(exist_ok=True)
    REAL.unlink(missing_ok=True)
    REAL.symlink_to(Path(shutil.which("thin_check")).resolve())
    try:
        with REPAIR.instead_of("thin_check", WAITS):
            yield
            HOLD.unlink()
    finally:
        HOLD.unlink(missing_ok=True)


def ask(path, body=None):
    """The operation's id; not waited for."""
    return pools.api("POST", path, body, expect=202).body["id"]


def operation(number, wait=0):
    return pools.api("GET", f"/v1/operations/{number}?wait={wait}", limit=wait + 30, expect=200).body


def done(t, number):
    ended = operation(number, 60)
    t.equal(ended["status"], "done", f"{ended['kind']}: {ended['error']}")
    return ended


def broken(t, name):
    """A pool that needs a check, up and used by nobody."""
    b = REPAIR.Broken(t, name)
    b.down()
    metadata.set_needs_check(b.path)
    b.up()
    t.equal(pools.pool(name)["needs_check"], True, "it needs a check")
    return b


def held_repair(t, name):
    """Its operation, while it runs thin_check."""
    repair = ask(f"/v1/pools/{name}/repair")
    tm.wait_for(HELD.exists, 30, "the repair runs thin_check")
    return repair


def one_waits(t):
    """A repair goes on; what else is asked for meanwhile waits for it, and all end well."""
    b = broken(t, "wait")
    url = "/v1/pools/wait"
    refused = pools.api("POST", f"{url}/extend", {"data_size": 96 * MIB})
    t.equal((refused.status, refused.body["type"]), (409, "urn:thinmgr:error:needs-check"), "before the repair")
    with held():
        repair = held_repair(t, "wait")
        others = [ask(f"{url}/extend", {"data_size": 96 * MIB}),
                  ask(f"{url}/volumes", {"name": "new", "size": 8 * MIB}),
                  ask(f"{url}/snapshots", {"snapshots": [{"volume": "one", "name": "s"}]})]
        t.equal([operation(number)["status"] for number in others], ["queued"] * 3, "those that wait")
        t.equal(operation(repair)["status"], "running", "the repair")
    ended = [done(t, number) for number in (repair, *others)]
    for before, after in zip(ended, ended[1:]):
        t.check(before["finished"] <= after["started"], f"{before['kind']} ends before {after['kind']} begins")
    t.equal(pools.pool("wait")["data"]["size"], 96 * MIB, "larger")
    b.healthy()


def at_once(t, rounds=6):
    """Asked for in the same moment, in whichever order they come."""
    b = broken(t, "once")
    size = 64 * MIB
    with concurrent.futures.ThreadPoolExecutor(4) as crew:
        for number in range(rounds):
            size += MIB
            answers = list(crew.map(lambda r: pools.api("POST", f"/v1/pools/once/{r[0]}?wait=60", r[1], limit=90), [
                ("repair", None), ("extend", {"data_size": size}),
                ("volumes", {"name": f"v{number}", "size": MIB}), ("check", None)]))
            t.equal(answers[0].status, 200, f"the repair: {answers[0].body}")
            for answer in answers[1:]:  # before the repair was known of
                t.check(answer.status == 200 or answer.body["type"] == "urn:thinmgr:error:needs-check", answer.body)
            if answers[1].status != 200:
                pools.change("POST", "/v1/pools/once/extend", {"data_size": size})
            shown = pools.pool("once")
            t.equal((shown["mode"], shown["data"]["size"]), ("write", size), "after the round")
            b.down()
            metadata.set_needs_check(b.path)
            b.up()
    ran = sorted((o["started"], o["finished"], o["kind"])
                 for o in tm.items(pools.api("GET", "/v1/operations?pool=once", expect=200).body) if o["started"])
    for before, after in zip(ran, ran[1:]):
        t.check(before[1] <= after[0], f"not beside one another: {before}, {after}")
    t.log(f"{len(ran)} operations, none beside another")
    b.repair()
    b.healthy()


def cancelled(t):
    """A repair is ended in the middle of thin_check: all is as it was, and it can be had again."""
    b = broken(t, "stop")
    was = b.path.read_bytes()
    with held():
        repair = held_repair(t, "stop")
        waits = ask("/v1/pools/stop/extend", {"data_size": 96 * MIB})
        shown = operation(repair)
        t.equal((shown["step_name"], shown["cancellable"]), ("check-metadata", True), "the repair")
        tm.wait_for(lambda: operation(repair)["percent"] == 0, 30, "how far thin_check is")
        listed = {o["id"]: o for o in tm.items(pools.api("GET", "/v1/operations?pool=stop", expect=200).body)}
        t.equal((listed[repair]["percent"], listed[waits]["cancellable"]), (0, True), "the same in the list")
        out = tm.sh(["thinmgr", "operation", "show", repair]).out
        t.check("0 %" in out and f"operation cancel {repair}" in out, out)

        # One that waits ends at once, the other goes on.
        ended = pools.api("POST", f"/v1/operations/{waits}/cancel?wait=30", expect=200).body
        t.equal((ended["status"], ended["error"]["type"]), ("failed", "urn:thinmgr:error:cancelled"), "the one that waits")
        t.equal(operation(repair)["status"], "running", "the repair")
        ended = json.loads(tm.sh(["thinmgr", "--json", "operation", "cancel", repair]).out)
        t.equal((ended["status"], ended["error"]["type"]), ("failed", "urn:thinmgr:error:cancelled"), "the repair")
        t.check(HOLD.exists(), "thin_check was not waited for")
    t.log(ended["error"]["detail"])
    t.equal(tm.sh(["pgrep", "-f", "thin_check"], check=False).out, "", "nothing of it runs on")
    shown = pools.pool("stop")
    t.equal((shown["state"], shown["mode"], shown["needs_check"]), ("active", "read_only", True), "as it was")
    for number, volume in enumerate(("one", "two")):
        tm.verify_pattern(pools.node("stop", volume), 20, number)
    t.equal((b.kept(), (b.dir / "metadata.new").exists()), ([], False), "nothing left behind")
    late = pools.api("POST", f"/v1/operations/{repair}/cancel").body
    t.equal(late["type"], "urn:thinmgr:error:wrong-state", "once it has ended")
    pools.change("POST", "/v1/pools/stop/deactivate")
    t.check(b.path.read_bytes() == was, "its metadata is as it was, to the byte")
    b.up()
    b.repair()
    t.equal(b.healthy(), b.before, "mappings")


def run(t):
    t.defer(shutil.rmtree, REAL.parent, True)
    for part in (one_waits, at_once, cancelled):
        part(t)
        t.log(f"{part.__name__}: as it should be")
