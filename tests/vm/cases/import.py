# SPDX-License-Identifier: GPL-2.0-or-later
"""The database is lost: pools come back from the descriptors beside their files, or are refused."""

import json
import shutil

import crashlab
import metadata
import tm

LIMIT = 480
MIB = crashlab.MIB


def lose_database(daemon):
    """As after the loss of /var/lib; pools and volumes stay as they are in the kernel."""
    daemon.stop()
    for path in crashlab.DATABASE.parent.glob("*"):
        path.unlink()
    daemon.start()


def bring(where, **more):
    return crashlab.ended(crashlab.change("POST", "/v1/pools/import",
                                          {"directory": str(where), **more}))


def taken_in(t, where, what, **more):
    op = bring(where, **more)
    t.equal((op["status"], op["error"]), ("done", None), what)


def refused(t, where, slug, *words):
    """Importing fails with this error, and nothing is changed by it."""
    files = {p.name: (p.stat().st_size, p.stat().st_mtime_ns) for p in where.glob("*")}
    before = crashlab.state()
    devices = sorted(d.uuid for d in crashlab.dm_list())
    reply = tm.api("POST", "/v1/pools/import", {"directory": str(where)})
    if reply.status == 202:  # what only the files tell, the operation does
        op = crashlab.ended(reply.body["id"])
        t.equal(op["status"], "failed", f"import of {where} ({slug})")
        error = op["error"]
    else:
        t.equal(reply.status, 409, f"import of {where} ({slug})")
        error = reply.body
    t.equal(error["type"], f"urn:thinmgr:error:{slug}", error["detail"])
    for word in words:
        t.check(word in error["detail"], f"{word!r} in {error['detail']!r}")
    t.equal(crashlab.state(), before, f"pools after a refusal ({slug})")
    t.equal({p.name: (p.stat().st_size, p.stat().st_mtime_ns) for p in where.glob("*")}, files,
            f"files after a refusal ({slug})")
    t.equal(sorted(d.uuid for d in crashlab.dm_list()), devices, f"devices after a refusal ({slug})")
    t.log(f"refused: {error['detail']}")


def while_up(t, daemon, where, point):
    """The pool is up and a file system on it is in use when the database goes."""
    before = crashlab.state()
    with tm.mounted("/dev/thinmgr/p/fs", point):
        content = tm.write_pattern(point / "file", 4, 5)
        lose_database(daemon)
        t.equal(crashlab.pools(), [], "pools without a database")
        # A failure on the way must not take down what is in use.
        daemon.stop()
        daemon.start("error:pool-import:activate-volumes:after")
        t.equal(bring(where)["status"], "failed", "import with a fault")
        t.equal(tm.digest(point / "file"), content, "the file after a failed import")
        t.equal(crashlab.pools(), [], "pools after a failed import")
        daemon.stop()
        daemon.start()
        taken_in(t, where, "import of a pool that is up")
        crashlab.same_state(crashlab.state(), before, "imported while up")
        tm.drop_caches()
        t.equal(tm.digest(point / "file"), content, "the file")
    crashlab.verify_soon(t.scratch)


def while_down(t, daemon, where, seed):
    before = crashlab.state()
    crashlab.do("POST", "/v1/pools/p/deactivate")
    lose_database(daemon)
    taken_in(t, where, "import without activating", activate=False)
    t.equal(crashlab.state()["p"]["active"], False, "imported without activating")
    crashlab.verify_soon(t.scratch)
    crashlab.do("POST", "/v1/pools/p/activate")
    crashlab.same_state(crashlab.state(), before, "imported, then activated")
    t.equal(tm.digest("/dev/thinmgr/p/raw", 2), seed, "data")

    crashlab.do("POST", "/v1/pools/p/deactivate")
    lose_database(daemon)
    taken_in(t, where, "import of a pool that is down")
    crashlab.same_state(crashlab.state(), before, "imported while down")
    t.equal(tm.digest("/dev/thinmgr/p/raw", 2), seed, "data")
    crashlab.verify_soon(t.scratch)
    # It works on: device ids go on where they were, nothing collides.
    crashlab.make_volume("p", "later", 4)
    crashlab.do("DELETE", "/v1/pools/p/volumes/later")


def bad_descriptors(t, daemon, where):
    crashlab.do("POST", "/v1/pools/p/deactivate")
    refused(t, where, "exists", "belongs to pool p")
    (t.scratch / "copy").mkdir()
    shutil.copy(where / "pool.json", t.scratch / "copy")
    refused(t, t.scratch / "copy", "exists", "known already")
    shutil.rmtree(t.scratch / "copy")
    lose_database(daemon)
    good = (where / "pool.json").read_bytes()
    document = json.loads(good)

    def written(data):
        (where / "pool.json").write_bytes(data)

    def altered(change):
        d = json.loads(good)
        change(d)
        written(json.dumps(d).encode())

    (where / "pool.json").unlink()
    refused(t, where, "not-found", "pool.json")
    refused(t, where / "none", "not-found", "pool.json")
    for data in (b"", b"{", good[:len(good) // 2], good[:-40], b"\0" * 4096, b"[]", b"null",
                 good.replace(b'"name"', b'"nam\xff"', 1)):
        written(data)
        refused(t, where, "bad-descriptor")
    altered(lambda d: d["pool"].update(data_size=d["pool"]["data_size"] + 65536))
    refused(t, where, "bad-descriptor", "checksum")
    altered(lambda d: d["pool"].update(name="../x"))
    refused(t, where, "bad-descriptor")
    altered(lambda d: d.update(thinmgr=2))
    refused(t, where, "bad-descriptor")
    altered(lambda d: d.pop("checksum"))
    refused(t, where, "bad-descriptor", "checksum")
    altered(lambda d: d["volumes"].append(d["volumes"][0]))
    refused(t, where, "bad-descriptor")
    written(good + b" " * (17 << 20))
    refused(t, where, "io")
    written(good)

    # Its files are not what the descriptor says.
    size = (where / "data").stat().st_size
    shutil.move(where / "data", where / "data.away")
    refused(t, where, "backing-gone", "data")
    (where / "data").touch()
    refused(t, where, "backing-gone", "data")
    (where / "data").unlink()
    shutil.move(where / "data.away", where / "data")
    t.equal((where / "data").stat().st_size, size, "the data file is back")
    metadata = (where / "metadata").read_bytes()
    with (where / "metadata").open("rb+") as file:
        file.seek(100)
        file.write(b"\xa5" * 64)
    refused(t, where, "damaged", "superblock")
    with (where / "metadata").open("rb+") as file:
        file.write(metadata[:4096])
        # A node of a tree rather than the superblock: only thin_check finds that.
        for number in range(1, 64):
            block = metadata[number * 4096:(number + 1) * 4096]
            if block.strip(b"\0"):
                file.seek(number * 4096)
                file.write(bytes(b ^ 0x5a for b in block[:2048]))
    refused(t, where, "damaged", "thin_check")
    (where / "metadata").write_bytes(metadata)

    # The name is taken, by a pool that has nothing to do with it.
    crashlab.make_pool("p", t.scratch / "other", 16)
    refused(t, where, "exists")
    crashlab.do("DELETE", "/v1/pools/p")
    taken_in(t, where, "import of the good descriptor")
    t.equal(sorted(v["name"] for v in crashlab.volumes("p")),
            sorted(v["name"] for v in document["volumes"]), "volumes")


def stale(t, daemon, where):
    """A descriptor brought back from a backup does not belong to the metadata any more."""
    old = (where / "pool.json").read_bytes()
    crashlab.make_volume("p", "newer", 4)
    new = (where / "pool.json").read_bytes()
    crashlab.do("POST", "/v1/pools/p/deactivate")
    lose_database(daemon)
    (where / "pool.json").write_bytes(old)
    refused(t, where, "wrong-state", "transaction")
    (where / "pool.json").write_bytes(new)
    taken_in(t, where, "import of the newer descriptor")
    crashlab.verify_soon(t.scratch)

    # The same for the database: it is older than the metadata.
    daemon.stop()
    tm.sh(["sqlite3", crashlab.DATABASE, "UPDATE pools SET transaction_id = transaction_id - 1;"])
    daemon.start()
    pool = crashlab.pools()[0]
    t.equal(pool["state"], "uncertain", "a pool whose record is older than its metadata")
    t.check("transaction" in pool["state_reason"], pool["state_reason"])
    reply = tm.api("POST", "/v1/pools/p/volumes", {"name": "no", "size": 4 * MIB})
    t.equal((reply.status, reply.body["type"]), (409, "urn:thinmgr:error:wrong-state"), "a change of it")
    daemon.stop()
    tm.sh(["sqlite3", crashlab.DATABASE, "UPDATE pools SET transaction_id = transaction_id + 1;"])
    daemon.start()
    crashlab.verify_soon(t.scratch)


def damaged(t, daemon, where, seed):
    """The metadata is damaged as well: the pool is taken in as it is, without coming up, and repaired then."""
    path = where / "metadata"
    for superblock in (True, False):
        crashlab.do("POST", "/v1/pools/p/deactivate")
        lose_database(daemon)
        if superblock:
            block = bytes(metadata.get(path, 0))
            with path.open("r+b") as file:
                file.write(bytes(metadata.BLOCK))
        else:
            metadata.forget_use(path)
        refused(t, where, "damaged")
        op = bring(where)
        t.check("--no-activate" in op["error"]["hint"], f"what to do is told: {op['error']}")
        taken_in(t, where, "import of what is damaged", activate=False)
        t.equal(tm.api("GET", "/v1/pools/p").body["state"], "inactive", "it stays down")
        if superblock:
            with path.open("r+b") as file:
                file.write(block)
        else:
            crashlab.do("POST", "/v1/pools/p/repair")
        crashlab.do("POST", "/v1/pools/p/activate")
        t.equal(tm.digest("/dev/thinmgr/p/raw", 2), seed, "data after the repair")


def run(t):
    daemon = crashlab.Daemon(t)
    daemon.start()
    where = t.scratch / "p"
    crashlab.make_pool("p", where, 64)
    seed = tm.write_pattern(crashlab.make_volume("p", "raw", 16), 2, 3)
    tm.sh(["mkfs.ext4", "-q", crashlab.make_volume("p", "fs", 32)])
    crashlab.do("POST", "/v1/pools/p/snapshots",
                {"snapshots": [{"volume": "raw", "name": "snap"}], "read_only": True})
    while_up(t, daemon, where, t.scratch / "mnt")
    while_down(t, daemon, where, seed)
    bad_descriptors(t, daemon, where)
    stale(t, daemon, where)
    damaged(t, daemon, where, seed)
    t.equal(tm.digest("/dev/thinmgr/p/raw", 2), seed, "data after all of it")
    crashlab.do("DELETE", "/v1/pools/p?with_volumes=true")
    crashlab.verify_soon(t.scratch)
