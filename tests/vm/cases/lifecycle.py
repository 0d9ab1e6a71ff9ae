# SPDX-License-Identifier: GPL-2.0-or-later
"""Pools, volumes and snapshots from beginning to end; every answer held against the contract."""

import mmap
import os
import subprocess
import time

import pools
import tm
from contract import api

SUITES = ["bookworm", "trixie"]
LIMIT = 400
MIB = pools.MIB


def raw_cli(*args):
    """What the command prints, as bytes."""
    return subprocess.run(["thinmgr", "--json", *args], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, timeout=60, check=True).stdout


def all_pages(path):
    """Every document of a list, or the only one, each on a line of its own."""
    pages, cursor = [], None
    while True:
        page = api("GET", path + (f"{'&' if '?' in path else '?'}cursor={cursor}" if cursor else ""), expect=200)
        pages.append(page.raw)
        cursor = page.body.get("next")
        if not cursor or "limit=" in path:
            return b"".join(raw + b"\n" for raw in pages)


def same_bytes(t, path, *args):
    """The command prints the API's documents, byte for byte."""
    for _ in range(3):  # the state may move between the two
        wanted, got = all_pages(path), raw_cli(*args)
        if got == wanted:
            break
    if got != wanted:
        at = next((i for i, (a, b) in enumerate(zip(got, wanted)) if a != b), min(len(got), len(wanted)))
        raise tm.Failed(f"thinmgr --json {' '.join(args)} differs at byte {at}: "
                        f"{got[max(at - 40, 0):at + 80]!r}, expected {wanted[max(at - 40, 0):at + 80]!r}")
    t.checks += 1


def link_to(path):
    return os.path.realpath(path) if os.path.islink(path) else None


def problem(t, reply, status, kind, field=None):
    t.equal((reply.status, reply.body["type"]), (status, f"urn:thinmgr:error:{kind}"),
            reply.body.get("detail"))
    t.check(len(reply.body.get("detail", "")) > 10, f"{kind} says what is wrong")
    if field is not None:
        t.equal(reply.body.get("field"), field, f"the field of {kind}")
    return reply.body


# ---- the parts -----------------------------------------------------------------------------------

def making(t):
    before = pools.picture(t.scratch)
    plan = api("POST", "/v1/pools?dry_run=true", {
        "name": "tank", "backing": {"kind": "file", "directory": str(t.scratch / "tank")},
        "data_size": 64 * MIB}, expect=200).body
    t.equal((plan["id"], plan["kind"], plan["pool"]), (None, "pool-create", "tank"), "a dry run")
    pools.same(t, before, pools.picture(t.scratch), "a dry run")

    tank = pools.create(t, "tank", 96, policy={"data": {"maximum": 400 * MIB}, "sample_seconds": 5})
    t.equal((tank["state"], tank["mode"], tank["data"]["size"]), ("active", "write", 96 * MIB), "tank")
    t.equal((tank["backing"]["sparse"], tank["backing"]["direct_io"]), (False, True), "its backing")
    data = (t.scratch / "tank" / "data").stat()
    t.check(data.st_blocks * 512 >= 96 * MIB, "its space is allocated ahead")
    t.equal(oct((t.scratch / "tank").stat().st_mode & 0o777), "0o700", "its directory is root's alone")
    t.equal([tm.thin_status("tank:_pool").data_total], [96 * 16], "blocks in the kernel")

    # 202 with an operation, which can be waited for on its own.
    reply = api("POST", "/v1/pools/tank/volumes", {"name": "home", "size": 256 * MIB}, expect=202)
    operation = reply.headers["location"]
    done = api("GET", f"{operation}?wait=60", expect=200).body
    t.equal((done["status"], done["kind"], done["volume"]), ("done", "volume-create", "home"), operation)
    t.check(done["created"] <= done["started"] <= done["finished"], "its times are in order")
    t.check(api("GET", "/v1/operations?pool=tank&limit=1", expect=200).body["next"], "there are more")

    pools.volume("tank", "mail", 64)
    pools.volume("tank", "spare", 64, activate=False)
    home = api("GET", "/v1/pools/tank/volumes/home", expect=200).body
    t.equal((home["device"], home["active"]), (pools.node("tank", "home"), True), "home")
    t.equal(link_to(pools.node("tank", "home")), os.path.realpath("/dev/mapper/tank:home"), "its node")
    t.equal(int(tm.sh(["blockdev", "--getsize64", home["device"]]).out), 256 * MIB, "its size")
    t.check(link_to(pools.node("tank", "spare")) is None, "an inactive volume has no node")
    by_id = api("GET", f"/v1/pools/{tank['id']}/volumes/{home['id']}", expect=200)
    t.equal(by_id.body["name"], "home", "by ids")


def methods(t):
    """What HTTP promises on every path."""
    got = api("GET", "/v1/pools/tank")
    head = api("HEAD", "/v1/pools/tank", expect=200)
    t.equal(head.headers["etag"], got.headers["etag"], "HEAD is GET without a body")
    options = api("OPTIONS", "/v1/pools/tank", expect=204)
    t.equal(set(options.headers["allow"].replace(" ", "").split(",")),
            {"GET", "HEAD", "OPTIONS", "DELETE"}, "OPTIONS")
    for method, path, status, kind in (
            ("PUT", "/v1/pools/tank", 405, "method-not-allowed"),
            ("POST", "/v1/health", 405, "method-not-allowed"),
            ("GET", "/v1/nothing", 404, "no-route"),
            ("GET", "/v1/pools/none", 404, "not-found"),
            ("GET", "/v1/pools/tank/volumes/none", 404, "not-found"),
            ("GET", "/v1/operations/00000000-0000-4000-8000-000000000000", 404, "not-found")):
        problem(t, api(method, path), status, kind)
    # One that is taken already, of each kind.
    there = {"kind": "file", "directory": str(t.scratch / "other")}
    problem(t, api("POST", "/v1/pools", {"name": "tank", "backing": there, "data_size": 64 * MIB}),
            409, "exists", "/name")
    problem(t, api("POST", "/v1/pools/tank/volumes", {"name": "home", "size": MIB}), 409, "exists",
            "/name")
    there = {"kind": "file", "directory": str(t.scratch / "tank")}
    problem(t, api("POST", "/v1/pools", {"name": "two", "backing": there, "data_size": 64 * MIB}),
            409, "exists")
    problem(t, api("DELETE", "/v1/pools/tank"), 409, "busy")

    # Lists in pages give the same as one.
    names, cursor = [], ""
    while True:
        page = api("GET", f"/v1/pools/tank/volumes?limit=1{cursor}", expect=200).body
        names += [v["name"] for v in page["items"]]
        if not page["next"]:
            break
        cursor = f"&cursor={page['next']}"
    t.equal(names, ["home", "mail", "spare"], "volumes, page by page")


def callers(t):
    """Who may do what is decided by the socket's peer."""
    def ask(user, group, *request):
        argv = ["setpriv", f"--reuid={user}", f"--regid={user}", group, "curl", "-s", "-o", "/dev/null",
                "-w", "%{http_code}", "--unix-socket", tm.SOCKET, *request]
        return tm.sh(argv, check=False).out

    url = "http://localhost/v1/pools"
    denied = ("403", "000")  # told so, or not let in at all
    t.check(ask(65534, "--clear-groups", url) in denied, "a stranger reads nothing")
    view = tm.sh(["getent", "group", "thinmgr-view"]).out.split(":")[2]
    admin = tm.sh(["getent", "group", "thinmgr"]).out.split(":")[2]
    t.equal(ask(65534, f"--groups={view}", url), "200", "thinmgr-view reads")
    t.equal(ask(65534, f"--groups={view}", "-X", "POST", f"{url}/tank/deactivate"), "403",
            "thinmgr-view changes nothing")
    t.equal(ask(65534, f"--groups={admin}", "-X", "POST", f"{url}/tank/activate?dry_run=true"), "200",
            "thinmgr may change")
    t.equal(pools.pool("tank")["state"], "active", "tank")


def etags(t):
    tag = api("GET", "/v1/pools/tank/policy").headers["etag"]
    pools.change("PATCH", "/v1/pools/tank/policy", {"activate_at_start": False}, headers={"If-Match": tag})
    after = api("GET", "/v1/pools/tank/policy")
    t.check(after.headers["etag"] != tag, "the change made a new generation")
    for method, path, body in (("PATCH", "/v1/pools/tank/policy", {"activate_at_start": True}),
                               ("PATCH", "/v1/pools/tank/volumes/mail", {"size": 128 * MIB}),
                               ("DELETE", "/v1/pools/tank/volumes/mail", None),
                               ("DELETE", "/v1/pools/tank?with_volumes=true", None)):
        problem(t, api(method, path, body, {"If-Match": tag}), 412, "precondition-failed")
    t.equal(api("GET", "/v1/pools/tank/policy").body, after.body, "nothing changed")
    pools.change("PATCH", "/v1/pools/tank/policy", {"activate_at_start": True},
                 headers={"If-Match": after.headers["etag"]})


def pairs(first, second, stop):
    """Write one number after the other to both devices, each durable before the next."""
    pid = os.fork()
    if pid:
        return pid
    number = 0
    fds = [os.open(p, os.O_WRONLY | os.O_DSYNC) for p in (first, second)]
    while not os.path.exists(stop):
        number += 1
        for fd in fds:
            os.pwrite(fd, number.to_bytes(8, "little") + bytes(504), 0)
    os._exit(0)


def number_on(device):
    with open(device, "rb") as source:
        return int.from_bytes(source.read(8), "little")


def snapshots(t, point):
    tm.write_pattern(point / "before", 4, seed=11)
    left, right = pools.volume("tank", "left", 16), pools.volume("tank", "right", 16)
    stop = t.scratch / "stop"
    writer = pairs(left, right, stop)
    # A file system that is written all the time must be whole in the snapshot, too.
    other = subprocess.Popen(["dd", "if=/dev/zero", f"of={point}/stream", "bs=64k", "count=400",
                              "conv=fdatasync"], stderr=subprocess.DEVNULL)
    try:
        tm.wait_for(lambda: number_on(left) > 3, 20, "numbers")
        for turn in range(3):
            pools.change("POST", "/v1/pools/tank/snapshots", {
                "snapshots": [{"volume": v, "name": f"{v}-{turn}"} for v in ("left", "right")],
                "activate": True})
            a, b = (number_on(pools.node("tank", f"{v}-{turn}")) for v in ("left", "right"))
            t.check(a - b in (0, 1), f"both are of one moment: {a} and {b}")
        pools.change("POST", "/v1/pools/tank/snapshots", {
            "snapshots": [{"volume": "home", "name": "home-ro"}], "activate": True, "read_only": True})
        seen = number_on(left)
        tm.wait_for(lambda: number_on(left) > seen, 20, "the writer going on after the snapshots")
    finally:
        stop.touch()
        os.waitpid(writer, 0)
        t.equal(other.wait(60), 0, "the file's writer")
    t.check(not any(d.suspended for d in tm.dm_devices()), "nothing is left suspended")
    t.log(f"{number_on(left)} pairs written while 4 snapshots were made")

    snap = pools.node("tank", "home-ro")
    header = tm.sh(["dumpe2fs", "-h", snap]).out
    t.check("needs_recovery" not in header, "the file system was frozen: its snapshot needs no recovery")
    t.equal(tm.sh(["blockdev", "--getro", snap]).out.strip(), "1", "read-only")
    written = tm.sh(["dd", "if=/dev/zero", f"of={snap}", "bs=4k", "count=1", "oflag=direct"], check=False)
    t.check(written.status != 0, "a read-only snapshot cannot be written")
    with tm.mounted(snap, t.scratch / "snap", "-o", "ro") as snapped:
        tm.verify_pattern(snapped / "before", 4, seed=11)
    listed = api("GET", "/v1/pools/tank/snapshots", expect=200).body["items"]
    t.equal({v["name"]: v["origin"] for v in listed},
            {"home-ro": "home", **{f"{v}-{n}": v for v in ("left", "right") for n in range(3)}}, "snapshots")
    # Refused as a whole: the second name is taken.
    seq = pools.last_seq()
    problem(t, api("POST", "/v1/pools/tank/snapshots?wait=60", {"snapshots": [
        {"volume": "home", "name": "fresh"}, {"volume": "mail", "name": "home-ro"}]}),
        409, "exists", "/snapshots/1/name")
    # The pool grows by itself when it has to, whatever is asked meanwhile.
    t.equal([e["type"] for e in pools.events(seq) if e["type"] not in ("low-space", "extended")], [],
            "events of a refused request")
    # The origin may go; what was made of it stays.
    for name in ("left", "right"):
        pools.change("DELETE", f"/v1/pools/tank/volumes/{name}")
    kept = api("GET", "/v1/pools/tank/volumes/left-0", expect=200).body
    t.equal(kept["origin"], None, "the origin's name")
    number_on(kept["device"])


def resizing(t, point):
    size = tm.sh(["blockdev", "--getsize64", pools.node("tank", "home")]).out
    problem(t, api("PATCH", "/v1/pools/tank/volumes/home", {"size": 64 * MIB}), 400, "out-of-range", "/size")
    t.equal(tm.sh(["blockdev", "--getsize64", pools.node("tank", "home")]).out, size, "size after a refusal")
    pools.change("PATCH", "/v1/pools/tank/volumes/home", {"size": 512 * MIB})
    tm.sh(["resize2fs", pools.node("tank", "home")])
    t.check(os.statvfs(point).f_blocks * os.statvfs(point).f_frsize > 400 * MIB, "grown while mounted")
    tm.verify_pattern(point / "before", 4, seed=11)

    pools.change("PATCH", "/v1/pools/tank/volumes/mail", {"size": 32 * MIB, "shrink": True})
    t.equal(int(tm.sh(["blockdev", "--getsize64", pools.node("tank", "mail")]).out), 32 * MIB, "shrunk")
    pools.change("PATCH", "/v1/pools/tank/volumes/spare", {"size": 96 * MIB})
    pools.change("POST", "/v1/pools/tank/volumes/spare/activate")
    t.equal(int(tm.sh(["blockdev", "--getsize64", pools.node("tank", "spare")]).out), 96 * MIB,
            "resized while inactive")


def renaming(t, point):
    pools.change("PATCH", "/v1/pools/tank/volumes/home", {"name": "house"})
    t.check(link_to(pools.node("tank", "home")) is None, "the old node is gone")
    t.equal(link_to(pools.node("tank", "house")), os.path.realpath("/dev/mapper/tank:house"), "the new node")
    tm.write_pattern(point / "after", 2, seed=12)
    tm.drop_caches()
    tm.verify_pattern(point / "after", 2, seed=12)
    problem(t, api("PATCH", "/v1/pools/tank/volumes/house", {"name": "mail"}), 409, "exists", "/name")
    t.equal(api("GET", "/v1/pools/tank/volumes/home").status, 404, "the old name")


def in_use(t):
    """What somebody uses is not taken away, and who it is can be found."""
    for method, path in (("POST", "/v1/pools/tank/volumes/house/deactivate"),
                         ("DELETE", "/v1/pools/tank/volumes/house"),
                         ("POST", "/v1/pools/tank/deactivate"),
                         ("DELETE", "/v1/pools/tank?with_volumes=true")):
        glue = "&" if "?" in path else "?"
        for turn in range(5):
            before = pools.picture(t.scratch / "tank")
            body = problem(t, api(method, f"{path}{glue}wait=60"), 409, "busy")
            after = pools.picture(t.scratch / "tank")
            for p in (before, after):  # the file system is in use, and trying was an operation
                for document in p["pools"]:
                    document.pop("generation")
                    for key in ("used", "free"):
                        document["data"].pop(key)
                        document["metadata"].pop(key)
                for listed in p["volumes"]:
                    for entry in listed:
                        entry.pop("mapped")
            # Written to as it is, the pool may grow by itself meanwhile, once or twice: then again.
            grew = any(before[part] != after[part] for part in ("tables", "files", "pools"))
            if not grew or turn == 4:
                break
            for part in ("devices", "loops", "volumes"):
                t.equal(after[part], before[part], f"{part} after {method} {path} refused")
        t.check("house" in body["detail"] and pools.node("tank", "house") in body.get("hint", ""),
                f"{path} names the volume and how to find its user: {body}")
        pools.same(t, before, after, f"{method} {path} refused")
    done = tm.sh(["thinmgr", "volume", "deactivate", "tank/house"], check=False)
    t.equal(done.status, 4, "exit status of the command")
    t.check("fuser" in done.err or "lsblk" in done.err, f"the command tells what to do: {done.err}")


def down_and_up(t):
    data = tm.digest(pools.node("tank", "house"), 8)
    pools.change("POST", "/v1/pools/tank/volumes/mail/deactivate")
    t.check(link_to(pools.node("tank", "mail")) is None, "an inactive volume has no node")
    pools.change("POST", "/v1/pools/tank/deactivate")
    down = pools.pool("tank")
    t.equal((down["state"], down["mode"], down["data"]["used"]), ("inactive", None, None), "deactivated")
    t.equal((tm.dm_devices(tm.PREFIX), tm.loops()), ([], []), "devices of an inactive pool")
    problem(t, api("POST", "/v1/pools/tank/volumes", {"name": "x", "size": MIB}), 409, "wrong-state")
    pools.change("POST", "/v1/pools/tank/extend", {"data_size": 224 * MIB})
    pools.change("POST", "/v1/pools/tank/activate")
    t.equal(tm.digest(pools.node("tank", "house"), 8), data, "what is in the volume")
    t.check(link_to(pools.node("tank", "mail")) is None, "a volume deactivated by hand stays so")
    t.equal(pools.pool("tank")["data"]["size"], 224 * MIB, "extended while inactive")
    pools.change("POST", "/v1/pools/tank/activate")  # is already: no change, no complaint
    pools.change("DELETE", "/v1/pools/tank/volumes/house")
    t.check(link_to(pools.node("tank", "house")) is None, "a deleted volume has no node")


def while_suspended(t):
    """A pool refuses thin tables while it is suspended, as it is for a moment in each extension."""
    tm.sh(["dmsetup", "suspend", "--noflush", "--nolockfs", pools.dm_name("tank", "_pool")])
    try:
        op = api("POST", "/v1/pools/tank/volumes/mail/activate", expect=202).body["id"]

        def look():
            return api("GET", f"/v1/operations/{op}", expect=200).body
        tm.wait_for(lambda: pools.dm_name("tank", "mail") in [d.name for d in tm.dm_devices()], 20,
                    "the volume's device")
        until = time.monotonic() + 0.3
        while time.monotonic() < until:  # it goes on trying
            t.equal(look()["status"], "running", "activation while the pool is suspended")
    finally:
        tm.sh(["dmsetup", "resume", "--noudevsync", pools.dm_name("tank", "_pool")])
    tm.wait_for(lambda: look()["status"] != "running", 20, "the activation's end")
    t.equal((look()["status"], look()["error"]), ("done", None), "activation after it was resumed")
    pools.change("POST", "/v1/pools/tank/volumes/mail/deactivate")


def when_full(t):
    """Policy reaches the kernel: the mark, and what becomes of writes."""
    pools.create(t, "small", 16, policy={"data": {"auto_extend": False, "low_water_percent": 50}})
    device = pools.volume("small", "v", 64)

    def table():
        return tm.sh(["dmsetup", "table", "small:_pool"]).out.split()

    t.equal(table()[6], "128", "the kernel's mark")
    t.check("error_if_no_space" not in table(), "writes wait")
    pools.policy("small", data={"low_water_percent": 10}, when_full="error")
    t.check("error_if_no_space" in table(), "writes fail")
    t.equal(table()[6], "26", "the kernel's mark has moved")
    t.equal(pools.pool("small")["when_full"], "error", "when_full")
    began = time.monotonic()
    fd = os.open(device, os.O_WRONLY | os.O_DIRECT)
    try:
        page = mmap.mmap(-1, MIB)  # direct I/O wants whole pages
        for _ in range(32):
            os.write(fd, page)
        t.check(False, "a write to a full pool fails")
    except OSError as err:
        t.check(time.monotonic() - began < 20, f"it fails at once ({err.strerror})")
    finally:
        os.close(fd)
    tm.wait_for(lambda: pools.pool("small")["mode"] == "out_of_data_space", 10, "the mode")
    full = pools.pool("small")
    t.equal((full["queueing"], full["data"]["verdict"], full["data"]["free"]), (None, "disabled", 0), "full")
    t.equal([e["data"]["until"] for e in pools.events(type="out-of-space", pool="small")], [None],
            "nothing waits, so nothing is counted down")
    pools.change("POST", "/v1/pools/small/extend", {"data_size": 32 * MIB})
    tm.wait_for(lambda: pools.pool("small")["mode"] == "write", 10, "writing again")


def still_allocated(t):
    """Whatever was written to the volumes, files that were allocated ahead have all their space still."""
    tm.sh(["sync"])
    for name in ("tank", "small"):
        for part in ("data", "metadata"):
            file = (t.scratch / name / part).stat()
            t.check(file.st_blocks * 512 >= file.st_size > 0,
                    f"{name}'s {part}: {file.st_size} bytes, {file.st_blocks * 512} allocated")


def documents(t):
    """The command prints what the API says."""
    operation = api("GET", "/v1/operations?limit=1").body["items"][0]["id"]
    for path, *args in (
            ("/v1/system", "system"), ("/v1/pools", "pool", "list"), ("/v1/pools/tank", "pool", "show", "tank"),
            ("/v1/pools/tank/policy", "pool", "policy", "tank"),
            ("/v1/pools/tank/volumes", "volume", "list", "tank"),
            ("/v1/pools/tank/volumes/mail", "volume", "show", "tank/mail"),
            ("/v1/pools/tank/snapshots", "snapshot", "list", "tank"),
            ("/v1/events", "event", "list"),
            ("/v1/operations?limit=50", "operation", "list"),
            (f"/v1/operations/{operation}", "operation", "show", operation)):
        same_bytes(t, path, *args)
    gone = subprocess.run(["thinmgr", "--json", "pool", "show", "none"], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=60)
    t.equal((gone.returncode, gone.stdout.rstrip(b"\n")), (3, api("GET", "/v1/pools/none").raw), "of an error")
    t.check(b"none" in gone.stderr, "and the message still goes to standard error")
    samples = api("GET", "/v1/pools/tank/history", expect=200).body["items"]
    t.check(samples and samples[-1]["data_size"] == 224 * MIB or len(samples) > 1, "samples")
    t.check(all(a["time"] < b["time"] for a, b in zip(samples, samples[1:])), "oldest first")
    joined = api("GET", "/v1/pools/tank/history?step=3600", expect=200).body["items"]
    t.check(1 <= len(joined) <= 2, "samples of an hour")
    t.equal(sum(s["count"] for s in joined), sum(s["count"] for s in samples), "looks they stand for")
    api("GET", "/v1/system", expect=200)
    api("GET", "/v1/health", expect=200)


def run(t):
    began = time.monotonic()

    def part(function, *args):
        nonlocal began
        function(t, *args)
        t.log(f"{function.__name__}: {time.monotonic() - began:.1f} s")
        began = time.monotonic()

    part(making)
    part(methods)
    part(callers)
    part(etags)
    tm.sh(["mkfs.ext4", "-q", pools.node("tank", "home")])
    with tm.mounted(pools.node("tank", "home"), t.scratch / "home") as point:
        part(snapshots, point)
        part(resizing, point)
        part(renaming, point)
        part(in_use)
    part(down_and_up)
    part(while_suspended)
    part(when_full)
    part(still_allocated)
    part(documents)
    for name in ("small", "tank"):
        pools.change("DELETE", f"/v1/pools/{name}?with_volumes=true")
        t.check(not (t.scratch / name).exists(), f"{name}'s directory is gone with it")
    seqs = [e["seq"] for e in pools.events()]
    t.equal(seqs, sorted(set(seqs)), "events in order, none twice")
