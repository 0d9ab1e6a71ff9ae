# SPDX-License-Identifier: GPL-2.0-or-later
"""Going back to metadata that is kept: what comes back, what is told, and what is refused untouched."""

import json

import metadata
import pools
import tm

LIMIT = 480
MIB = 1 << 20


class Kept:
    """A pool with two volumes and known data, of whose metadata a repair left a copy."""

    def __init__(self, t, name):
        self.t = t
        self.name = name
        pools.create(t, name, 96, block_size=65536, policy={
            "data": {"auto_extend": False}, "metadata": {"auto_extend": False}, "repair": "manual"})
        self.dir = t.scratch / name
        self.path = self.dir / "metadata"
        for number, volume in enumerate(("one", "two")):
            tm.write_pattern(pools.volume(name, volume, 24), 20, number)
        self.down()
        metadata.set_needs_check(self.path)
        self.flagged = self.path.read_bytes()
        self.mapped = metadata.mapped(self.path)
        self.up()
        pools.change("POST", f"/v1/pools/{name}/repair")

    def down(self):
        pools.change("POST", f"/v1/pools/{self.name}/deactivate")

    def up(self):
        pools.change("POST", f"/v1/pools/{self.name}/activate")

    def copies(self):
        return tm.items(pools.api("GET", f"/v1/pools/{self.name}/copies", expect=200).body)

    def of(self, why):
        """The newest copy that was kept for this reason."""
        return [c["name"] for c in self.copies() if c["why"] == why][-1]

    def restore(self, copy, **more):
        after = pools.last_seq()
        pools.change("POST", f"/v1/pools/{self.name}/restore-metadata", {"copy": copy, **more})
        event = pools.wait_event("metadata-restored", after)
        self.t.log(f"{event['message']} {event['data']['text']}")
        self.t.equal(event["data"]["copy"], copy, "the copy in the event")
        return {v["volume"]: (v["fate"], v["lost"]) for v in event["data"]["volumes"]}

    def refused(self, copy, error, **more):
        answer = pools.api("POST", f"/v1/pools/{self.name}/restore-metadata?wait=120", {"copy": copy, **more}).body
        self.t.equal(answer["type"], f"urn:thinmgr:error:{error}", answer.get("detail", ""))
        self.t.log(f"refused: {answer['detail']} ({answer.get('hint')})")
        return answer

    def healthy(self):
        shown = pools.pool(self.name)
        self.t.equal((shown["state"], shown["mode"], shown["needs_check"]), ("active", "write", False), self.name)

    def files(self):
        return {str(p): p.read_bytes() for p in [self.path, *sorted((self.dir / "kept").iterdir())]}


def back(t):
    """Back, with less mapped, and forth again to what was there."""
    k = Kept(t, "back")
    first = k.of("repair")
    listed = k.copies()
    t.equal([(c["name"], c["why"], c["kind"], c["bytes"]) for c in listed],
            [(first, "repair", "image", len(k.flagged))], "what is kept")
    t.equal(json.loads(tm.sh(["thinmgr", "--json", "pool", "copies", "back"]).out)["items"], listed, "as the command has it")
    t.check(first in tm.sh(["thinmgr", "pool", "copies", "back"]).out, "and its table")

    tm.write_pattern(pools.node("back", "one"), 4, 7, 20)
    size = pools.pool("back")["metadata"]["size"] + MIB  # it grew since: that stays
    pools.change("POST", "/v1/pools/back/extend", {"data_size": 128 * MIB, "metadata_size": size})
    t.equal(k.restore(first), {"one": ("lost_blocks", 4 * MIB), "two": ("intact", 0)}, "what is told")
    k.healthy()
    for number, volume in enumerate(("one", "two")):
        tm.verify_pattern(pools.node("back", volume), 20, number)
    shown = pools.pool("back")
    t.equal(shown["data"]["size"], 128 * MIB, "data size")
    t.equal(shown["metadata"]["size"] + shown["metadata"]["reserve"], size, "metadata size, ready or in use")
    t.equal(k.path.stat().st_size, size, "metadata file")
    k.down()
    t.equal(metadata.mapped(k.path), k.mapped, "mappings")
    t.equal(tm.sh(["thin_check", k.path], check=False).status, 0, "thin_check")
    t.equal(metadata.needs_check(k.path), False, "the copy's flag, cleared")
    t.check((k.dir / "kept" / first).read_bytes() == k.flagged, "the copy stays as it was, with its flag")
    k.up()
    t.equal([c["why"] for c in k.copies()], ["repair", "restore"], "what was there is kept in turn")

    k.down()  # of one that is not active as well
    k.restore(k.of("restore"))
    t.equal(pools.pool("back")["state"], "inactive", "a pool that was not active")
    k.up()
    k.healthy()
    tm.verify_pattern(pools.node("back", "one"), 20, 0)
    tm.verify_pattern(pools.node("back", "one"), 4, 7, 20)


def newer(t):
    """A volume made since is named; only by force is it given up, and it stays known."""
    k = Kept(t, "newer")
    first = k.of("repair")
    tm.write_pattern(pools.volume("newer", "three", 12), 8, 3)
    transaction = pools.pool("newer")["transaction_id"]
    said = k.refused(first, "wrong-state")
    t.check("three is missing, with 8 MiB" in said["detail"] and "transaction" in said["detail"], said["detail"])
    t.check("--force" in said["hint"] and "other volumes" in said["hint"], said["hint"])
    k.healthy()
    tm.verify_pattern(pools.node("newer", "three"), 8, 3)

    t.equal(k.restore(first, force=True),
            {"one": ("intact", 0), "two": ("intact", 0), "three": ("lost", 8 * MIB)}, "what is told")
    k.healthy()
    t.equal(pools.pool("newer")["transaction_id"], transaction - 1, "transaction")
    known = {v["name"]: v["active"] for v in tm.items(pools.api("GET", "/v1/pools/newer/volumes", expect=200).body)}
    t.equal(known, {"one": True, "two": True, "three": False}, "volumes")
    for number, volume in enumerate(("one", "two")):
        tm.verify_pattern(pools.node("newer", volume), 20, number)

    k.refused(k.of("restore"), "wrong-state")
    k.restore(k.of("restore"), force=True)
    pools.change("POST", "/v1/pools/newer/volumes/three/activate")
    tm.verify_pattern(pools.node("newer", "three"), 8, 3)


def refused(t):
    """What is refused leaves all as it was, to the byte."""
    k = Kept(t, "refused")
    first = k.of("repair")
    with tm.mounted(_file_system("refused"), t.scratch / "mnt"):
        wanted = tm.write_pattern(t.scratch / "mnt/file", 2, 9)
        busy = k.refused(first, "busy", force=True)
        t.check(str(t.scratch / "mnt") in busy["detail"], busy["detail"])
        t.equal(tm.digest(t.scratch / "mnt/file"), wanted, "the file, still mounted")
    k.down()
    copy = k.dir / "kept" / first
    good = copy.read_bytes()
    metadata.forget_use(copy)
    before = k.files()
    said = k.refused(first, "damaged", force=True)
    t.check("thin_check" in said["detail"] and "pool repair" in said["hint"], "what to do")
    t.check(k.files() == before, "all as it was, to the byte")
    t.check(not (k.dir / "metadata.new").exists(), "nothing left behind")
    copy.write_bytes(bytes(len(good)))
    k.refused(first, "damaged", force=True)
    copy.write_bytes(good)
    t.equal(k.refused("20200101T000000Z-repair", "not-found")["status"], 404, "a copy that is not there")
    t.equal(k.refused("../metadata", "bad-name")["field"], "/copy", "what is no name")
    t.check(not (k.dir / "metadata.new").exists(), "nothing left behind")
    k.up()
    k.healthy()
    with tm.mounted(pools.node("refused", "fs"), t.scratch / "mnt"):
        t.equal(tm.digest(t.scratch / "mnt/file"), wanted, "the file")


def rotated(t):
    """Old copies go after a restore and at a start, as the policy says; the newest never."""
    k = Kept(t, "old")
    pools.policy("old", keep_copies=2, keep_days=30)
    for year in range(2015, 2020):
        (k.dir / "kept" / f"{year}0101T000000Z-repair").write_bytes(k.flagged)
    (k.dir / "kept" / "letter").write_text("not ours")
    first = k.of("repair")
    k.restore("20190101T000000Z-repair")
    newest = k.of("restore")
    t.equal([c["name"] for c in k.copies()], [first, newest], "two are kept")
    (k.dir / "kept" / "20200101T000000Z-repair").write_bytes(k.flagged)
    pools.policy("old", keep_copies=0, keep_days=0)
    tm.sh(["systemctl", "restart", "thinmgrd"])
    tm.wait_ready()
    tm.wait_for(lambda: [c["name"] for c in k.copies()] == [newest], 30, "none but the newest")
    t.equal((k.dir / "kept" / "letter").read_text(), "not ours", "what somebody put there")
    k.healthy()


def _file_system(pool):
    node = pools.volume(pool, "fs", 16)
    tm.sh(["mkfs.ext4", "-q", node])
    return node


def gone(t):
    """Metadata that is lost altogether comes back from a copy."""
    k = Kept(t, "gone")
    k.down()
    k.path.unlink()
    k.restore(k.of("repair"))
    k.up()
    k.healthy()
    for number, volume in enumerate(("one", "two")):
        tm.verify_pattern(pools.node("gone", volume), 20, number)


def run(t):
    for part in (back, newer, refused, gone, rotated):
        part(t)
        t.log(f"{part.__name__}: as it should be")
