# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks of metadata in use, and safety copies: made while somebody writes, gone back to, never left half done."""

import crashlab
import metadata
import pools
import tm

LIMIT = 1200
MIB = 1 << 20
DAY = 86400 * 10**6  # in microseconds


def held(pool):
    """Where the kernel holds a metadata snapshot, by its status line; None."""
    root = tm.sh(["dmsetup", "status", pools.dm_name(pool, "_pool")]).out.split()[6]
    return None if root == "-" else root


def message(pool, text):
    tm.sh(["dmsetup", "message", pools.dm_name(pool, "_pool"), "0", text])


def copies(pool, why="copy"):
    return [c for c in tm.items(pools.api("GET", f"/v1/pools/{pool}/copies", expect=200).body) if c["why"] == why]


def state(pool, verb):
    pools.change("POST", f"/v1/pools/{pool}/{verb}")


class Used:
    """A pool with known data on one volume, and a file system on another."""

    def __init__(self, t, name):
        self.t = t
        self.name = name
        pools.create(t, name, 128, block_size=65536, policy={
            "data": {"auto_extend": False}, "metadata": {"auto_extend": False}, "repair": "manual"})
        self.dir = t.scratch / name
        self.path = self.dir / "metadata"
        tm.write_pattern(pools.volume(name, "one", 48), 20, 1)
        self.fs = pools.volume(name, "fs", 32)
        tm.sh(["mkfs.ext4", "-q", self.fs])

    def check(self, **more):
        after = pools.last_seq()
        pools.change("POST", f"/v1/pools/{self.name}/check", more or None)
        event = pools.wait_event("checked", after)
        self.t.log(f"{event['message']} {event['data']}")
        return event["data"]

    def refused(self, verb, error, body=None):
        answer = pools.api("POST", f"/v1/pools/{self.name}/{verb}?wait=120", body).body
        self.t.equal(answer["type"], f"urn:thinmgr:error:{error}", answer.get("detail", ""))
        self.t.log(f"refused: {answer['detail']} ({answer.get('hint')})")
        return answer

    def restore(self, copy, **more):
        pools.change("POST", f"/v1/pools/{self.name}/restore-metadata", {"copy": copy["name"], **more})

    def tidy(self):
        self.t.equal(sorted(p.name for p in self.dir.iterdir() if p.name not in ("kept", "lost+found", "metadata.spare")),
                     ["data", "metadata", "pool.json"], "files")


def in_use(t):
    """Checked and copied while somebody writes, and a file system is mounted."""
    u = Used(t, "used")
    with tm.mounted(u.fs, t.scratch / "mnt"):
        wanted = tm.write_pattern(t.scratch / "mnt/file", 4, 9)
        writer = pools.Writer(pools.node("used", "one"), 24, 7, 20, pause=0.1)
        found = u.check()
        t.equal((found["in_use"], found["volumes"], found["copy"], found["missing"]), (True, 2, None, []), "found")
        t.check(found["mapped"] >= 20 * MIB, "what is mapped")
        t.equal((held("used"), copies("used")), (None, []), "nothing is left of a check")
        said = tm.sh(["thinmgr", "pool", "check", "--copy", "used"]).out
        t.check("sound" in said, said)
        kept = copies("used")
        t.equal([(c["kind"], c["compressed"]) for c in kept], [("dump", True)], "the copy")
        t.check(0 < kept[0]["bytes"] < 65536, f"small: {kept[0]['bytes']} bytes")
        t.equal(held("used"), None, "metadata snapshot")
        writer.finish()
        t.equal(tm.digest(t.scratch / "mnt/file"), wanted, "the file")

        message("used", "reserve_metadata_snap")
        root = held("used")
        said = u.refused("check", "busy", {"copy": True})
        t.check("release_metadata_snap" in said["hint"], said["hint"])
        t.check(root and held("used") == root, "somebody else's stays")
        message("used", "release_metadata_snap")
    u.tidy()


def back(t):
    """Back to what was copied in use; then without any metadata; and what a copy says is what there was."""
    u = Used(t, "back")
    with tm.mounted(u.fs, t.scratch / "mnt"):
        wanted = tm.write_pattern(t.scratch / "mnt/file", 4, 3)
        tm.sh(["sync", "-f", t.scratch / "mnt"])
        u.check(copy=True)
    first = copies("back")[0]
    tm.write_pattern(pools.node("back", "one"), 8, 4, 24)
    state("back", "deactivate")
    more = metadata.mapped(u.path)
    u.restore(first)
    # Of the file system more may have been mapped when it was unmounted.
    one = pools.api("GET", "/v1/pools/back/volumes/one", expect=200).body["dev_id"]
    t.equal(metadata.mapped(u.path)[one], more[one] - 8 * 16, "8 MiB less is mapped of the one")
    state("back", "activate")
    tm.verify_pattern(pools.node("back", "one"), 20, 1)
    with tm.mounted(pools.node("back", "fs"), t.scratch / "mnt"):
        t.equal(tm.digest(t.scratch / "mnt/file"), wanted, "the file")

    state("back", "deactivate")
    dump = tm.sh(["thin_dump", u.path]).out
    t.equal(u.check(copy=True)["in_use"], False, "of a pool that is down")
    second = copies("back")[-1]
    u.path.unlink()
    pools.api("POST", "/v1/pools/back/activate?wait=60")
    t.check(not u.path.exists(), "nothing is made in its place by itself")
    u.restore(second)
    marked = {v["name"]: v["suspect"] and v["suspect"]["reason"]
              for v in tm.items(pools.api("GET", "/v1/pools/back/volumes", expect=200).body)}
    t.equal(set(marked.values()), {"restored"}, f"nothing tells whether it is all there: {marked}")
    t.equal(tm.sh(["thin_dump", u.path]).out, dump, "dump of what was made of the copy")
    t.equal(tm.sh(["thin_check", u.path], check=False).status, 0, "thin_check")
    state("back", "activate")
    tm.verify_pattern(pools.node("back", "one"), 20, 1)
    u.check()
    u.tidy()


def damaged(t):
    """Damage is found and told; a copy that is damaged is refused; nothing is changed by either."""
    u = Used(t, "bad")
    u.check(copy=True)
    copy = copies("bad")[0]
    state("bad", "deactivate")
    path = u.dir / "kept" / copy["name"]
    good = path.read_bytes()
    before = u.path.read_bytes()
    for bad in (good[:len(good) // 2], good[:-8] + bytes(8), b"", b"<superblock>"):
        path.write_bytes(bad)
        u.refused("restore-metadata", "damaged", {"copy": copy["name"], "force": True})
        t.check(u.path.read_bytes() == before, "all as it was, to the byte")
        u.tidy()
    path.write_bytes(good)
    metadata.forget_use(u.path)
    broken = u.path.read_bytes()
    after = pools.last_seq()
    said = u.refused("check", "damaged", {"copy": True})
    t.check("thin_check" in said["detail"] and "pool repair" in said["hint"], "what to do")
    t.equal(pools.wait_event("check-failed", after)["severity"], "error", "how bad it is")
    t.check(u.path.read_bytes() == broken, "nothing was changed")
    t.equal(len(copies("bad")), 1, "of damaged metadata no copy is kept")
    u.tidy()
    u.restore(copy)
    metadata.set_needs_check(u.path)
    state("bad", "activate")
    u.refused("check", "needs-check")
    t.equal(held("bad"), None, "metadata snapshot")


def killed(t):
    """Between making the metadata snapshot and letting it go: the next start does that."""
    u = Used(t, "cut")
    daemon = crashlab.Daemon(t)
    for point in ("reserve:after", "read:before", "read:after", "release:before"):
        daemon.start(f"kill:pool-check:{point}")
        try:
            tm.api("POST", "/v1/pools/cut/check", {"copy": True})
        except OSError:
            pass  # the kill was faster than the answer
        daemon.wait_killed()
        t.check(held("cut") is not None, f"held when it died ({point})")
        daemon.start()
        t.equal(held("cut"), None, f"metadata snapshot after the next start ({point})")
        u.tidy()
        newest = tm.items(tm.api("GET", "/v1/operations?limit=1", expect=200).body)[0]
        t.equal((newest["kind"], newest["status"]), ("pool-check", "failed"), "the check")
        t.equal(copies("cut"), [], "what is cut off has no name")
        daemon.stop()
    # From keeping on it is finished, and when it was is known.
    for n, point in enumerate(("record:before", "record:after"), 1):
        daemon.start(f"kill:pool-check:{point}")
        before = pools.pool("cut")["copied"]
        try:
            tm.api("POST", "/v1/pools/cut/check", {"copy": True})
        except OSError:
            pass
        daemon.wait_killed()
        daemon.start()
        newest = tm.items(tm.api("GET", "/v1/operations?limit=1", expect=200).body)[0]
        t.equal((newest["kind"], newest["status"]), ("pool-check", "done"), f"the check ({point})")
        t.equal(len(copies("cut")), n, f"copies ({point})")
        now = pools.pool("cut")
        t.check(now["copied"] not in (None, before) and now["checked"] == now["copied"], f"when ({point})")
        daemon.stop()
    tm.sh(["systemctl", "start", "thinmgrd"])
    tm.wait_ready()
    u.check(copy=True)
    tm.verify_pattern(pools.node("cut", "one"), 20, 1)


def restarted_with(*statements):
    """Have thinmgrd start with other times in its database."""
    tm.sh(["systemctl", "stop", "thinmgrd"])
    for statement in statements:
        tm.sh(["sqlite3", crashlab.DATABASE, statement])
    tm.sh(["systemctl", "start", "thinmgrd"])
    tm.wait_ready()


def made(pool, days):
    """A statement: the pool was made so many days ago."""
    return f"UPDATE pools SET created_usec = created_usec - {days} * {DAY} WHERE name = '{pool}';"


def by_itself(t):
    """Once it is due, and not again; never where the policy says so; and told when it cannot be done."""
    u = Used(t, "self")
    Used(t, "never")
    pools.policy("never", copy_hours=0, check_days=0)
    Used(t, "other")
    pools.policy("other", copy_hours=0, check_days=0)
    after = pools.last_seq()
    # Who has been due for longest has its turn first: what came before it shows what was not due.
    restarted_with(made("never", 90), made("self", 60), made("other", 30))
    event = pools.wait_event("checked", after, 90)
    t.log(f"{event['message']} {event['data']}")
    t.equal((event["pool"], event["data"]["in_use"]), ("self", True), "whose turn it was")
    t.equal([c["name"] for c in copies("self")], [event["data"]["copy"]], "the copy")
    now = pools.pool("self")
    t.check(now["checked"] and now["checked"] == now["copied"], f"when: {now['checked']}, {now['copied']}")
    t.check("every 24 hours" in tm.sh(["thinmgr", "pool", "show", "self"]).out, "the policy")

    after = pools.last_seq()
    restarted_with()
    pools.policy("other", check_days=1)
    event = pools.wait_event("checked", after, 90)
    t.equal((event["pool"], event["data"]["copy"]), ("other", None), "a check is no copy")
    t.check(pools.pool("other")["checked"] and not pools.pool("other")["copied"], "when")
    t.equal([e["pool"] for e in pools.events(after, type="checked")], ["other"], "and not again")
    t.equal((pools.pool("never")["checked"], copies("never")), (None, []), "where it is not wanted")
    t.equal(pools.pool("self")["copied"], now["copied"], "the time outlives a restart")

    message("self", "reserve_metadata_snap")
    root = held("self")
    after = pools.last_seq()
    back_a_day = f"UPDATE pools SET copied_usec = copied_usec - {DAY} WHERE name = 'self';"
    restarted_with(back_a_day)
    event = pools.wait_event("operation-failed", after, 90)
    t.equal((event["pool"], event["data"]["error"]), ("self", "busy"), event["message"])
    t.check(root and held("self") == root and len(copies("self")) == 1, "somebody else's stays")
    message("self", "release_metadata_snap")
    restarted_with()
    event = pools.wait_event("checked", after, 90)
    t.equal(event["data"]["copy"], copies("self")[-1]["name"], "when it is released")
    t.equal((held("self"), len(copies("self"))), (None, 2), "copies")
    u.tidy()


def run(t):
    for part in (in_use, back, damaged, killed, by_itself):
        part(t)
        t.log(f"{part.__name__}: as it should be")
