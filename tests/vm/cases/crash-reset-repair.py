# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine reset in the middle of repairing a pool, and of going back to metadata that is kept.

Before the daemon starts again, what the reset left is put by: what was there has to be whole under one
of its names, to the byte, whatever else is. After that the operation is done or undone as its
point of no return says, the other pool and all data are as they were, and asked again it succeeds.
Odd points have metadata that is damaged, even ones a flag in it. Every third step has its turn, and THIRD=0 or THIRD=1
has the others; POINTS=pool-restore:a has those that begin so; with FULL=1 it is each one, and those that change a file or
the kernel after they were done as well. Some resets come at a moment of the host's choosing.
"""

import hashlib
import os
import random
import shutil
import time
from pathlib import Path

import crashlab
import metadata
import tm
from resets import arm, boot_id, wait_booted

HOST = True
OWN_BOOT = True
DEFAULT = False  # a quarter of an hour: when it is named
LIMIT = 5400
KINDS = ("pool-repair", "pool-restore")
CHANGES = ("make-new", "swap", "start-pool", "record")
BASE = Path("/srv/crash-reset-repair")
POOL = BASE / "b"
FOUND = Path("/srv/found-after-reset")  # not below /run: the tools read past the cache, which a tmpfs refuses
DROP_IN = Path("/etc/systemd/system/thinmgrd.service.d/found.conf")
VOLUMES = (("keep", "data"), ("b", "vol"), ("b", "other"))


# ---- in the machine ------------------------------------------------------------------------------

def world():
    w = crashlab.World(tm.Case("crash-reset-repair"), None)
    w.t.scratch = BASE
    return w


def set_up():
    BASE.mkdir(parents=True)
    DROP_IN.parent.mkdir(parents=True, exist_ok=True)
    DROP_IN.write_text(f"[Service]\nExecStartPre=+/bin/sh -c 'rm -rf {FOUND}; mkdir {FOUND}; "
                       f"cd {POOL} && cp -a metadata* kept {FOUND}; true'\n")
    tm.sh(["systemctl", "daemon-reload"])
    for pool in ("keep", "b"):
        crashlab.make_pool(pool, BASE / pool, 16)
    digests = [tm.write_pattern(crashlab.make_volume(pool, volume, 4), 2, seed)
               for seed, (pool, volume) in enumerate(VOLUMES)]
    os.sync()
    return digests


def points():
    return [[p.kind, p.step, p.when, p.done] for p in crashlab.points() if p.kind in KINDS]


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def damage():
    """Pool b rests, and its space map is wrong."""
    crashlab.do("POST", "/v1/pools/b/deactivate")
    metadata.forget_use(POOL / "metadata")
    if tm.sh(["thin_check", POOL / "metadata"], check=False).status == 0:
        raise tm.Failed("thin_check does not see the damage")


def prepare(kind, damaged):
    """What has to outlive the reset: digests of files, and of the metadata in use what it maps."""
    shutil.rmtree(POOL / "kept", ignore_errors=True)
    mapped = None
    if kind == "pool-repair":
        damage() if damaged else crashlab.SCENARIOS[kind].prepare(world())
        whole = digest(POOL / "metadata")
    else:
        crashlab.SCENARIOS[kind].prepare(world())
        [kept] = (POOL / "kept").iterdir()
        whole = digest(kept)
        crashlab.do("POST", "/v1/pools/b/deactivate")
        mapped = sorted(metadata.mapped(POOL / "metadata").items())
        if not damaged:
            crashlab.do("POST", "/v1/pools/b/activate")
    return whole, mapped


def provoke(kind):
    op = crashlab.SCENARIOS[kind].ask(world())
    print(f"asked {op}", flush=True)
    time.sleep(60)  # the reset ends this


def copies(place):
    """The metadata and what is kept of it; not what was about to be made."""
    kept = place / "kept"
    return [place / "metadata"] * (place / "metadata").exists() + (sorted(kept.iterdir()) if kept.exists() else [])


def is_clean(path, mapped):
    return (tm.sh(["thin_check", path], check=False).status == 0
            and (mapped is None or [list(pair) for pair in sorted(metadata.mapped(path).items())] == mapped))


def compare_left(kind, whole, mapped, place, what):
    """What was there is whole under one of its names. Gives those names."""
    there = [p for p in copies(place) if digest(p) == whole]
    if not there:
        raise tm.Failed(f"{what}: nowhere is {whole} among {[str(p) for p in copies(place)]}")
    if kind == "pool-restore" and not any(is_clean(p, mapped) for p in copies(place) if p not in there):
        raise tm.Failed(f"{what}: the metadata in use is nowhere: {[str(p) for p in copies(place)]}")
    return [str(p.relative_to(place)) for p in there]


def verify_data(digests):
    for (pool, volume), wanted in zip(VOLUMES, digests):
        if tm.digest(f"/dev/thinmgr/{pool}/{volume}", 2) != wanted:
            raise tm.Failed(f"what was written to {pool}/{volume} is not there")


def examine(before, kind, done, digests, whole, mapped):
    """After the boot; `done` is None where it may be either. Says which."""
    tm.wait_ready(90)
    tm.settle()
    left = compare_left(kind, whole, mapped, FOUND, "before the daemon started")
    newest = tm.items(tm.api("GET", "/v1/operations?limit=1", expect=200).body)[0]
    record = crashlab.ended(newest["id"], 90)
    if newest["kind"] != kind:
        raise tm.Failed(f"the newest operation is {newest['kind']}")
    if done is None:
        done = record["status"] == "done"
    error = record["error"] and record["error"]["type"]
    if (record["status"], error) != (("done", None) if done else ("failed", "urn:thinmgr:error:interrupted")):
        raise tm.Failed(f"{kind} after the reset: {record['status']}, {record['error']}")
    crashlab.same_state(crashlab.state(), before, f"after a reset in {kind}")
    now = compare_left(kind, whole, mapped, POOL, "once it was settled")
    in_use = POOL / "metadata"
    if kind == "pool-repair":
        if done == ("metadata" in now):
            raise tm.Failed(f"{'done' if done else 'undone'}, and what was there is {now}")
        if done and (metadata.needs_check(in_use) or (not before["b"]["active"] and not is_clean(in_use, None))):
            raise tm.Failed("the new metadata is not clean")
    names = {p.name for p in POOL.iterdir()} - {"kept", "metadata.spare"}
    if names != {"data", "metadata", "pool.json"}:
        raise tm.Failed(f"left behind: {names}")
    if not done:
        if before["b"]["active"]:
            crashlab.verify_soon(BASE, {"keep"} if kind == "pool-repair" else None)
        again = crashlab.ended(crashlab.SCENARIOS[kind].ask(world()))
        if again["status"] != "done":
            raise tm.Failed(f"asked again: {again['error']}")
        compare_left(kind, whole, mapped, POOL, "asked again")
    if not before["b"]["active"]:
        crashlab.do("POST", "/v1/pools/b/activate")
    verify_data(digests)
    crashlab.verify_soon(BASE)
    os.sync()
    return f"{'done' if done else 'undone':<6} what was there was left as {', '.join(left)}"


def finish():
    DROP_IN.unlink()
    tm.sh(["systemctl", "daemon-reload"])
    for pool in ("keep", "b"):
        crashlab.do("DELETE", f"/v1/pools/{pool}?with_volumes=true")
    shutil.rmtree(BASE)
    shutil.rmtree(FOUND, ignore_errors=True)
    tm.assert_clean()
    return True


# ---- on the host ---------------------------------------------------------------------------------

def at_point(t, digests, number, kind, step, when, done):
    kept = t.call("prepare", kind, number % 2 == 1)
    boot = t.call("boot_id")
    before = t.call("arm", f"{kind}:{step}:{when}")
    provoked = t.start("provoke", kind)
    wait_booted(t, boot, provoked)
    provoked.kill()
    provoked.wait()
    return t.call("examine", before, kind, done, digests, *kept, limit=180)


def by_chance(t, digests, number, kind, seconds):
    """The reset line, so long after it was asked for."""
    kept = t.call("prepare", kind, number % 2 == 1)
    before = t.call("arm", "none:none:before")
    provoked = t.start("provoke", kind)
    for raw in provoked.stdout:
        if raw.startswith(b"asked"):
            break
    else:
        raise tm.Failed(f"{kind} could not be asked for")
    time.sleep(seconds)  # the moment is what is tried, nothing is waited for
    t.vm.reset()
    provoked.kill()
    provoked.wait()
    t.vm.wait_up()
    return t.call("examine", before, kind, None, digests, *kept, limit=180)


def run(t):
    full = os.environ.get("FULL") == "1"
    digests = t.call("set_up")
    every = [p for p in t.call("points") if p[2] == "before" or p[1] in CHANGES]
    before = [p for p in every if p[2] == "before"]
    chosen = before[int(os.environ.get("THIRD", "2"))::3]
    if "POINTS" in os.environ:
        chosen = [p for p in every if ":".join(p[:3]).startswith(os.environ["POINTS"])]
    if full:
        chosen += [p for p in every if p not in chosen]
    for number, (kind, step, when, done) in enumerate(chosen):
        began = time.monotonic()
        said = at_point(t, digests, number, kind, step, when, done)
        t.log(f"{kind}:{step}:{when} {said}, {time.monotonic() - began:.1f} s")
    seed = int(time.time())
    chance = random.Random(seed)
    moments = [(kind, chance.uniform(0, 4)) for kind in KINDS for _ in range(2 if full else 1)]
    t.log(f"seed {seed}")
    for number, (kind, seconds) in enumerate(moments):
        said = by_chance(t, digests, number, kind, seconds)
        t.log(f"{kind} after {seconds:.2f} s: {said}")
    t.call("finish")
    t.log(f"{len(chosen)} of {len(every)} points, and {len(moments)} by chance")
