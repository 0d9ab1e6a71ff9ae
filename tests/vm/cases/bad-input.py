# SPDX-License-Identifier: GPL-2.0-or-later
"""What must be refused: each with its own clear error, and with nothing changed.

REST, command line, configuration, descriptor, and a machine that is not as it should be.
"""

import json
import os
import shutil
import socket
import stat
import time
from pathlib import Path

import pools
import tm
from contract import api

LIMIT = 480
DISKS = ["2G"]
MIB = pools.MIB
LONG = 64 * 1024
# Names that must never be one: empty, paths, options, other devices' names, what only looks like a name.
BAD_NAMES = ["", ".", "..", "../x", "a/b", "/", "-x", "--help", ".hidden", "_pool", "a:b", " a", "a ", "a b", "a\n",
             "a\tb", "é", "n\u0303", "\u202egpj", "💾", "a" * 64, "a" * LONG, "%2e%2e", "a%00",
             "6f1c2b5e-8d3a-4b7e-9c55-0a1b2c3d4e5f"]


# ---- what is compared ----------------------------------------------------------------------------

def glance(*places):
    """What must stay, without starting a program: devices, files, operations, documents."""
    devices = []
    for block in sorted(os.listdir("/sys/block")):
        if os.path.exists(f"/sys/block/{block}/loop"):
            names = ("loop/backing_file", "size")
        else:
            names = ("dm/name", "dm/suspended", "size") if block.startswith("dm-") else ()
        for name in names:
            try:
                with open(f"/sys/block/{block}/{name}") as file:
                    devices.append((block, name, file.read()))
            except OSError:  # went away in between
                pass
    found = tm.items(tm.api("GET", "/v1/pools").body)
    return {"devices": devices,
            "files": [entry for place in places for entry in pools.tree(place)],
            "operations": tm.api("GET", "/v1/operations?limit=1").raw,
            "pools": pools.forget_rates(found)}


class Refused:
    """Asks for what must be refused, and compares before and after."""

    def __init__(self, t):
        self.t = t
        self.count = 0
        self.whole = None
        self.before = None

    def begin(self):
        self.whole = pools.picture(self.t.scratch)
        self.before = glance(self.t.scratch)

    def end(self, what):
        pools.same(self.t, self.whole, pools.picture(self.t.scratch), what)
        self.t.log(f"{what}: {self.count} refused")
        self.count = 0

    def unchanged(self, what):
        after = glance(self.t.scratch)
        for key, value in self.before.items():
            self.t.equal(after[key], value, f"{key} after {what[:200]}")
        self.count += 1

    def problem(self, reply, status, kind, field=None, hint=False, what=""):
        t = self.t
        got = reply.raw.decode(errors="replace")[:600]
        t.equal(reply.status, status, f"status of {what[:200]}: {got}")
        document = reply.body
        t.equal(document["type"], f"urn:thinmgr:error:{kind}", f"type of {what[:200]}: {got}")
        t.check(len(document.get("detail", "")) >= 10, f"{what[:200]} says what is wrong: {got}")
        t.check(not any(ord(c) < 32 for c in document["detail"]), f"no control characters: {got}")
        if field is not None:
            t.equal(document.get("field"), field, f"field of {what[:200]}: {got}")
        if hint:
            t.check(len(document.get("hint", "")) > 8, f"{what[:200]} says what to do: {got}")

    def __call__(self, method, path, body=None, status=400, kind="", field=None, raw=None, headers=None,
                 hint=False, look=True):
        what = f"{method} {path} {json.dumps(body) if raw is None else raw!r}"
        reply = api(method, path, body, headers, raw=raw)
        self.problem(reply, status, kind, field, hint, what)
        if look:
            self.unchanged(what)


# ---- REST ----------------------------------------------------------------------------------------

def bodies(t, refused, spare):
    good = {"name": "new", "backing": {"kind": "file", "directory": str(spare)}, "data_size": 16 * MIB}
    text = json.dumps(good).encode()

    def create(kind, field=None, status=400, hint=False, **changes):
        body = {k: v for k, v in {**good, **changes}.items() if v is not ...}
        refused("POST", "/v1/pools?wait=60", body, status, kind, field, hint=hint)

    for raw in (b"", b" ", text[:-1], text[:20], text + b"}", b"[]", b"3", b"null", b'"x"', b"{", b"\xff\xfe{}",
                text.replace(b"new", b"n\xffw"), text.replace(b"new", b"n\0w"), text.replace(b"new", b"n\\u0000w"),
                b'{"name":"a",' + text[1:], b"[" * 100000, b'{"a":' * 5000, b"nan", text.replace(b"16777216", b"NaN")):
        refused("POST", "/v1/pools", status=400, kind="bad-json", raw=raw)
    refused("POST", "/v1/pools", status=413, kind="body-too-large", raw=b" " * (2 * MIB) + text)
    for media in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1"):
        refused("POST", "/v1/pools", status=415, kind="media-type", raw=text, headers={"Content-Type": media})
    refused("POST", "/v1/pools/keep/activate", {}, 400, "bad-json")

    create("unknown-field", "/colour", colour="red")
    create("unknown-field", "/backing/path", backing={**good["backing"], "path": "/x"})
    create("unknown-field", "/policy/data/low_water", policy={"data": {"low_water": 5}})
    for key in ("name", "backing", "data_size"):
        create("missing-field", f"/{key}", **{key: ...})
    create("missing-field", "/backing/directory", backing={"kind": "file"})
    for key, wrong in (("name", 3), ("name", None), ("name", ["a"]), ("data_size", "16M"), ("data_size", 16777216.5),
                       ("data_size", True), ("data_size", None), ("data_size", [1]), ("backing", "file"), ("backing", []),
                       ("zeroing", 1), ("zeroing", "yes"), ("policy", []), ("activate", 0)):
        create("wrong-type", f"/{key}", **{key: wrong})
    for key, value in (("data_size", 0), ("data_size", -1), ("data_size", 16 * MIB - 1), ("data_size", (1 << 63) - 1),
                       ("block_size", 65537), ("block_size", 1024), ("block_size", 1 << 40), ("metadata_size", 1),
                       ("metadata_size", 1 << 60)):
        create("out-of-range", f"/{key}", **{key: value})
    # Numbers no integer can hold are not JSON that can be read; which error says so does not matter.
    for big in (b"9223372036854775808", b"-9223372036854775809", b"1" + b"0" * 400):
        reply = api("POST", "/v1/pools", raw=text.replace(b"16777216", big), expect=400)
        t.check(reply.body["type"][18:] in ("bad-json", "out-of-range", "wrong-type"), "a number out of all range")
        refused.unchanged(big.decode())
    for policy, field in (({"data": {"low_water_percent": 0}}, "/policy/data/low_water_percent"),
                          ({"data": {"low_water_percent": 91}}, "/policy/data/low_water_percent"),
                          ({"metadata": {"step_percent": 1001}}, "/policy/metadata/step_percent"),
                          ({"data": {"step_min": 1}}, "/policy/data/step_min"),
                          ({"data": {"maximum": MIB}}, "/policy/data/maximum"),
                          ({"sample_seconds": 1}, "/policy/sample_seconds")):
        create("out-of-range", field, policy=policy)
    for name in BAD_NAMES:
        create("bad-name", "/name", name=name, hint=True)
    create("unsupported", "/backing/kind", 422, backing={**good["backing"], "kind": "lvm"}, hint=True)
    reply = api("POST", "/v1/pools", {**good, "when_full": "panic"}, expect=[400, 422])
    t.equal(reply.body["field"], "/when_full", "a word that is not known")
    refused.unchanged("when_full")


def volumes(t, refused):
    base = "/v1/pools/keep"
    for name in BAD_NAMES:
        refused("POST", f"{base}/volumes", {"name": name, "size": MIB}, 400, "bad-name", "/name", look=False)
        refused("PATCH", f"{base}/volumes/v", {"name": name}, 400, "bad-name", "/name", look=False)
        refused("POST", f"{base}/snapshots", {"snapshots": [{"volume": "v", "name": name}]}, 400, "bad-name",
                "/snapshots/0/name", look=False)
    refused.unchanged("bad names")
    for size in (0, -1, 65535, (1 << 62) + 1, (1 << 63) - 1):
        refused("POST", f"{base}/volumes", {"name": "new", "size": size}, 400, "out-of-range", "/size")
        refused("PATCH", f"{base}/volumes/v", {"size": size, "shrink": True}, 400, "out-of-range", "/size")
    refused("PATCH", f"{base}/volumes/v", {"size": MIB}, 400, "out-of-range", "/size", hint=True)
    for body, kind in (({}, None), ({"size": 64 * MIB, "name": "w"}, None), ({"shrink": True}, None),
                       ({"size": "64M"}, "wrong-type"), ({"colour": 1}, "unknown-field")):
        reply = api("PATCH", f"{base}/volumes/v", body, expect=[400, 422])
        if kind:
            t.equal(reply.body["type"][18:], kind, f"PATCH {body}")
        refused.unchanged(f"PATCH {body}")
    for body, field in (({}, "/snapshots"), ({"snapshots": []}, "/snapshots"),
                        ({"snapshots": [{"volume": "v", "name": f"s{i}"} for i in range(257)]}, "/snapshots"),
                        ({"snapshots": [{"volume": "v"}]}, "/snapshots/0/name"),
                        ({"snapshots": [{"name": "s"}]}, "/snapshots/0/volume"),
                        ({"snapshots": [3]}, "/snapshots/0"), ({"snapshots": {"volume": "v"}}, "/snapshots")):
        reply = api("POST", f"{base}/snapshots", body, expect=400)
        t.equal(reply.body.get("field"), field, f"field of {str(body)[:80]}: {reply.raw}")
        refused.unchanged(f"snapshots {str(body)[:80]}")
    refused("POST", f"{base}/snapshots", {"snapshots": [{"volume": "none", "name": "s"}]}, 404, "not-found")
    refused("POST", f"{base}/snapshots", {"snapshots": [{"volume": "v", "name": "s"}, {"volume": "v", "name": "s"}]},
            400, "bad-name", "/snapshots/1/name")
    for body, field in (({}, None), ({"data_size": 1}, "/data_size"), ({"data_size": "1G"}, "/data_size"),
                        ({"metadata_size": 1 << 60}, "/metadata_size"), ({"size": 1}, "/size")):
        reply = api("POST", f"{base}/extend", body, expect=400)
        if field:
            t.equal(reply.body.get("field"), field, f"extend {body}")
        refused.unchanged(f"extend {body}")
    for body, field in (({"data": {"low_water_percent": "20"}}, "/data/low_water_percent"), ({"data": 3}, "/data"),
                        ({"sample_seconds": 3601}, "/sample_seconds"), ({"unknown": 1}, "/unknown"),
                        ({"data": {"maximum": -1}}, "/data/maximum"), ({"when_full": 1}, "/when_full")):
        reply = api("PATCH", f"{base}/policy", body, expect=[400, 422])
        t.equal(reply.body.get("field"), field, f"policy {body}")
        refused.unchanged(f"policy {body}")
    for path in ("activate", "extend", "policy", "volumes", "snapshots"):
        method = {"policy": "PATCH"}.get(path, "POST")
        body = {"extend": {"data_size": 64 * MIB}, "policy": {"sample_seconds": 30},
                "volumes": {"name": "a", "size": MIB},
                "snapshots": {"snapshots": [{"volume": "v", "name": "a"}]}}.get(path)
        refused(method, f"/v1/pools/none/{path}", body, 404, "not-found")


def targets(t, refused):
    """Paths, queries and headers."""
    for path, status, kind in (("/v1/pools/%2e%2e", 400, "bad-path"), ("/v1/pools/..", 400, "bad-path"),
                               ("/v1/pools/../system", 400, "bad-path"), ("/v1/pools/%00", 400, "bad-path"),
                               ("/v1/pools/a%00b", 400, "bad-path"), ("/v1/pools/%zz", 400, "bad-path"),
                               ("/v1/pools/%", 400, "bad-path"), ("/v1/pools/a%2fb", 400, "bad-name"),
                               ("/v1/pools/-x", 400, "bad-name"), ("/v1/pools/" + "a" * 64, 400, "bad-name"),
                               ("/v1/pools/%c3%a9", 400, "bad-name"), ("/v1/pools/%ff", 400, "bad-path"),
                               ("/v1/pools/" + "a" * 16000, 400, "bad-path"), ("/v1/pools/keep/", 404, "no-route"),
                               ("//v1/pools", 404, "no-route"), ("/", 404, "no-route"), ("/v2/pools", 404, "no-route"),
                               ("/v1/operations/x", 400, "bad-name")):
        reply = tm.api("GET", path)
        t.check(reply.status == status or reply.status in (400, 404), f"GET {path[:60]}: {reply.status}")
        refused.problem(reply, reply.status, kind if reply.status == status else reply.body["type"][18:], what=path)
        refused.count += 1
    for query in ("wait=x", "wait=-1", "wait=601", "wait=1&wait=2", "wait=", "wait", "unknown=1", "=", "&", "dry_run=maybe",
                  "dry_run=1", "wait=%00", "wait=1%", "wait=" + "9" * 40):
        reply = api("POST", f"/v1/pools/keep/activate?{query}", expect=400)
        t.equal(reply.body["type"][18:], "bad-query", query)
        refused.unchanged(query)
    for query in ("limit=0", "limit=1001", "limit=x", "after=-1", "since=yesterday", "type=nothing", "severity=loud",
                  "order=up", "cursor=../x", "pool=a/b"):
        reply = api("GET", f"/v1/events?{query}", expect=[400, 404])
        t.equal(reply.body.get("field"), query.split("=")[0], query)
        refused.count += 1
    for query in ("from=x", "step=-1", "from=2030-01-01T00:00:00Z&until=2020-01-01T00:00:00Z", "limit=10001"):
        refused("GET", f"/v1/pools/keep/history?{query}", status=400, kind="bad-query", look=False)
    for tag in ("x", '"x"', "17", '"999999999999999999999999"'):
        reply = api("PATCH", "/v1/pools/keep/policy", {"sample_seconds": 30}, {"If-Match": tag})
        t.check(reply.status in (400, 412), f"If-Match: {tag}: {reply.status}")
        refused.unchanged(f"If-Match: {tag}")
    for method in ("FROB", "TRACE", "CONNECT", "PATCH", "PUT"):
        reply = tm.api(method, "/v1/pools")
        t.check(reply.status in (400, 405, 501), f"{method}: {reply.status}")
        refused.unchanged(method)
    t.equal(api("POST", "/v1/pools/keep").headers["allow"].count("DELETE"), 1, "Allow")


def talk(raw, limit=10, half=False):
    """Bytes to the socket as they are; what comes back until the other side closes, or a while passed."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(limit)
    sock.connect(tm.SOCKET)
    got = b""
    try:
        sock.sendall(raw)
        if half:
            return sock
        sock.shutdown(socket.SHUT_WR)
        while chunk := sock.recv(65536):
            got += chunk
    except (ConnectionError, socket.timeout):
        pass
    sock.close()
    return got


def wire(t, refused):
    """What is no HTTP, or only just."""
    head = b"GET /v1/health HTTP/1.1\r\nHost: x\r\n"
    for name, raw, wanted in (
            ("nothing", b"", ()), ("noise", os.urandom(4096), (400, None)), ("no version", b"GET /v1/health\r\n\r\n", None),
            ("an old version", b"GET /v1/health HTTP/0.1\r\n\r\n", None), ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", (400, None)),
            ("no host", b"GET /v1/health HTTP/1.1\r\n\r\n", (400,)), ("huge header", head + b"X: " + b"a" * 100000 + b"\r\n\r\n", (400, 413, 431)),
            ("many headers", head + b"".join(b"X%d: y\r\n" % i for i in range(20000)) + b"\r\n", (400, 413, 431)),
            ("long line", b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", (400, 414, 431)),
            ("NUL in a header", head + b"X: a\0b\r\n\r\n", None),
            ("two lengths", b"POST /v1/pools HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}", None),
            ("bad length", b"POST /v1/pools HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: -5\r\n\r\n{}", None),
            ("a length with text", b"POST /v1/pools HTTP/1.1\r\nHost: x\r\nContent-Length: 5x\r\n\r\n{}", None),
            ("a bad chunk", b"POST /v1/pools HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                            b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n", None),
            ("a body cut short", b"POST /v1/pools HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                                 b"Content-Length: 500\r\n\r\n{", None)):
        got = talk(raw)
        status = int(got.split()[1]) if got.startswith(b"HTTP/") else None
        t.check(status is None or 400 <= status < 600 or (name == "an old version" and status == 200)
                or (name == "NUL in a header" and status == 200), f"{name}: {got[:200]!r}")
        if wanted:
            t.check(status in wanted or status is None, f"{name}: {got[:200]!r}")
        refused.unchanged(name)
    t.equal(api("GET", "/v1/health").status, 200, "health after all that")


def slow_begin(t):
    """Callers that dawdle: in the head, in the body, in nothing at all."""
    waiting = [talk(b"GET /v1/hea", half=True) for _ in range(20)]
    waiting += [talk(b"POST /v1/pools HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
                     half=True) for _ in range(20)]
    began = time.monotonic()
    for _ in range(5):
        api("GET", "/v1/health", limit=5, expect=200)
    t.log(f"5 answers beside 40 slow callers: {time.monotonic() - began:.2f} s")
    return began, waiting


def slow_end(t, began, waiting):
    left = max(1, 70 - (time.monotonic() - began))
    for sock in waiting:
        sock.settimeout(left)
        try:
            while sock.recv(4096):
                pass
        except ConnectionError:
            pass
        except socket.timeout as err:
            raise tm.Failed("a slow caller is still connected after 70 s") from err
        sock.close()


# ---- the command line ----------------------------------------------------------------------------

def command_line(t, refused, spare):
    create = ("pool", "create", "new", "-d", str(spare), "-s")
    for status, *args in (
            (2,), (2, "frob"), (2, "pool"), (2, "pool", "frob"), (2, "--frob"), (2, "pool", "list", "extra"),
            (2, "pool", "show"), (2, "pool", "show", "../x"), (2, "pool", "show", "a" * LONG), (2, "pool", "show", ""),
            (2, "pool", "show", "--", "-x"), (2, "pool", "show", "-x"), (2, "volume", "show", "keep"), (2, "volume", "show", "keep/"),
            (2, "volume", "show", "keep/a/b"), (2, "volume", "create", "keep/é", "--size", "1M"),
            (2, "volume", "create", "keep/new"), (2, "volume", "create", "keep/new", "--size"),
            (2, *create, "12Q"), (2, *create, "-1"), (2, *create, ""), (2, *create, "1e30"), (2, *create, "99999999999999T"),
            (2, *create, "1K"), (2, *create, "64M", "--block-size", "3K"), (2, *create, "64M", "--when-full", "panic"),
            (2, *create, "64M", "--low-water", "200"), (2, "pool", "create", "new", "-s", "64M"),
            (2, "pool", "create", "a:b", "-d", str(spare), "-s", "64M"),
            (3, "pool", "show", "none"), (3, "volume", "show", "keep/none"), (3, "pool", "delete", "none", "--yes"),
            (4, "volume", "create", "keep/v", "--size", "1M"), (4, "pool", "delete", "keep", "--yes"),
            (5, *create, "1000T"), (2, "pool", "delete", "keep"), (2, "volume", "resize", "keep/v", "--size", "1M"),
            (2, "event", "list", "--type", "nothing"), (2, "event", "list", "--since", "soon"), (2, "event", "list", "--limit", "0"),
            (7, "--socket", "/nowhere", "pool", "list"), (7, "--socket", "/etc/passwd", "pool", "list"),
            (2, "--socket", "/" + "a" * 200, "pool", "list")):
        done = tm.sh(["thinmgr", *args], check=False, limit=30)
        what = f"thinmgr {' '.join(args)}"[:120]
        t.equal(done.status, status, f"exit status of {what}: {done.err[:300]}")
        t.check(done.err.startswith("thinmgr: ") or "sage" in done.err, f"{what} says why: {done.err[:300]}")
        t.check(len(done.err) < 4000, f"{what} is brief")
        refused.count += 1
    refused.unchanged("the command line")


# ---- configuration -------------------------------------------------------------------------------

def configuration(t):
    home = t.scratch / "conf"
    home.mkdir()
    main = home / "thinmgrd.conf"

    def verdict(content, drop_ins=()):
        shutil.rmtree(f"{main}.d", ignore_errors=True)
        main.unlink(missing_ok=True)
        if content is not None:
            main.write_bytes(content if isinstance(content, bytes) else content.encode())
        for name, text in drop_ins:
            Path(f"{main}.d").mkdir(exist_ok=True)
            (Path(f"{main}.d") / name).write_text(text)
        return tm.sh(["thinmgrd", "--check-config", "--config", str(main)], check=False, limit=20)

    for good in ("", "# nothing\n", "[daemon]\nlog_level=debug\n", "[http]\nmax_body = 64KiB\n", "\n\n[bus]\nenabled=no\n"):
        t.equal(verdict(good).status, 0, f"a good file {good!r}")
    line = 2
    table = [(f"[daemon]\n{key}={value}\n", line) for key, value in (
        ("log_level", "loud"), ("log_level", ""), ("worker_threads", "0"), ("worker_threads", "33"), ("worker_threads", "4x"),
        ("worker_threads", "-1"), ("worker_threads", "99999999999999999999"), ("state_directory", "relative"),
        ("state_directory", "/a/../b"), ("state_directory", "/" + "a" * 5000), ("frob", "1"), ("../x", "1"), ("-x", "1"))]
    table += [(f"[http]\n{key}={value}\n", line) for key, value in (
        ("loopback_port", "65536"), ("loopback_port", "http"), ("max_body", "1"), ("max_body", "1TiB"), ("max_body", "1Q"),
        ("threads", "0"), ("max_connections", "10001"), ("socket", "relative"), ("socket", "/" + "a" * 200),
        ("socket_group", "no such group!"))]
    table += [("[bus]\nenabled=maybe\n", 2), ("[history]\nkeep_events=1s\n", 2), ("[history]\nkeep_events=forever\n", 2),
              ("[frob]\nx=1\n", None), ("[daemon\nlog_level=info\n", 1), ("log_level=info\n", 1), ("[daemon]\nnothing\n", 2),
              ("[daemon]\nlog_level=info\nlog_level=info\n", 3), ("[kernel]\nload_module=2\n", 2),
              (b"[daemon]\nlog_level=\xff\xfe\n", 2), (b"[daemon]\nlog_level=in\0fo\n", None), (os.urandom(2000), None),
              ("[daemon]\n# " + "x" * LONG + "\nlog_level=loud\n", None), ("[daemon]\nlog_level=" + "x" * LONG + "\n", None),
              (b"x" * (8 * MIB), None)]
    for content, number in table:
        done = verdict(content)
        t.equal(done.status, 2, f"exit status for {content[:60]!r}: {done.err[:200]}")
        t.check(str(main) in done.err, f"{content[:60]!r} names the file: {done.err[:300]}")
        if number:
            t.check(f"{main}:{number}" in done.err, f"{content[:60]!r} names line {number}: {done.err[:300]}")
    done = verdict("", [("10-a.conf", "[daemon]\nlog_level=info\n"), ("20-b.conf", "[daemon]\n\nfrob=1\n")])
    t.check(done.status == 2 and f"{main}.d/20-b.conf:3" in done.err, f"a drop-in: {done.err}")
    done = verdict("", [("10-a.txt", "frob"), (".hidden.conf~", "frob")])
    t.equal(done.status, 0, f"other files beside drop-ins: {done.err}")
    t.equal(verdict(None).status, 2, "a file that is not there")
    main.mkdir()
    t.equal(tm.sh(["thinmgrd", "--check-config", "--config", str(main)], check=False).status, 2, "a directory")
    main.rmdir()
    for args in (["--frob"], ["extra"], ["--config"]):
        t.equal(tm.sh(["thinmgrd", *args], check=False).status, 2, f"thinmgrd {args}")
    done = tm.sh(["thinmgrd"], check=False, limit=20)
    t.check(done.status == 1 and "nother" in done.err, f"a second instance: {done.err}")

    # A reload with nonsense keeps what there was, and says so.
    pid, cursor = tm.main_pid(), tm.journal_cursor()
    bad = Path("/etc/thinmgr/thinmgrd.conf.d/bad.conf")
    bad.write_text("[daemon]\nfrob=1\n")
    t.defer(bad.unlink, True)
    tm.sh(["systemctl", "reload", "thinmgrd"], check=False)
    tm.wait_for(lambda: any(f"{bad}:2" in m.get("MESSAGE", "") for m in tm.journal(cursor)), 10, "the complaint")
    t.equal((tm.main_pid(), api("GET", "/v1/health").status), (pid, 200), "the daemon goes on")
    bad.unlink()
    tm.sh(["systemctl", "reload", "thinmgrd"])
    t.log(f"configuration: {len(table) + 8} refused")


# ---- the descriptor ------------------------------------------------------------------------------

def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def sealed(document):
    """A descriptor's text with the checksum that belongs to it."""
    body = {k: v for k, v in document.items() if k != "checksum"}
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return json.dumps({**body, "checksum": f"crc32c:{crc32c(text.encode()):08x}"}).encode()


def descriptor(t):
    home, kept = t.scratch / "moved", t.scratch / "kept"
    pools.create(t, "moved", 16, directory=home)
    pools.volume("moved", "a", 32)
    pools.change("POST", "/v1/pools/moved/snapshots", {"snapshots": [{"volume": "a", "name": "b"}]})
    pools.change("POST", "/v1/pools/moved/deactivate")
    tm.sh(["cp", "-a", "--sparse=always", str(home), str(kept)])
    pools.change("DELETE", "/v1/pools/moved?with_volumes=true")
    tm.sh(["cp", "-a", "--sparse=always", str(kept), str(home)])
    os.sync()  # what is allocated late, or put together, is allocated now
    file = home / "pool.json"
    text = file.read_bytes()
    good = json.loads(text)
    t.equal(json.loads(sealed(good))["checksum"], good["checksum"], "the checksum as this case computes it")
    count = 0

    def refuse(status, kind, what, directory=home):
        nonlocal count
        before = glance(t.scratch)
        reply = api("POST", "/v1/pools/import?wait=60", {"directory": str(directory)})
        t.equal((reply.status, reply.body["type"][18:]), (status, kind), f"{what}: {reply.raw[:400]}")
        t.check(len(reply.body.get("detail", "")) >= 10, what)
        after = glance(t.scratch)
        for key in ("devices", "files", "pools"):  # trying is an operation, so there is one more
            t.equal(after[key], before[key], f"{key} after {what}")
        count += 1

    def with_changes(change):
        document = json.loads(text)
        change(document)
        file.write_bytes(sealed(document))

    for what, content in (("empty", b""), ("truncated", text[:len(text) // 2]), ("one byte short", text.rstrip()[:-1]),
                          ("no JSON", b"\x7fELF" + os.urandom(200)), ("an array", b"[]"), ("zeroes", bytes(4096)),
                          ("not UTF-8", text.replace(b'"moved"', b'"mov\xff"')), ("changed", text.replace(b'"moved"', b'"taken"')),
                          ("too deep", b'{"a":' * 1000)):
        file.write_bytes(content)
        refuse(422, "bad-descriptor", what)
    for what, change in (
            ("a later format", lambda d: d.update(thinmgr=2)), ("no format", lambda d: d.pop("thinmgr")),
            ("an unknown field", lambda d: d.update(colour="red")), ("an unknown field of the pool", lambda d: d["pool"].update(x=1)),
            ("no volumes", lambda d: d.pop("volumes")), ("a volume that is none", lambda d: d["volumes"].append(3)),
            ("a hostile name", lambda d: d["pool"].update(name="../x")), ("a NUL in a name", lambda d: d["pool"].update(name="a\0b")),
            ("a long name", lambda d: d["pool"].update(name="a" * LONG)), ("an option for a name", lambda d: d["pool"].update(name="-x")),
            ("a hostile volume", lambda d: d["volumes"][0].update(name="../../etc/passwd")),
            ("two of one name", lambda d: d["volumes"][0].update(name=d["volumes"][1]["name"])),
            ("two of one device", lambda d: d["volumes"][0].update(dev_id=d["volumes"][1]["dev_id"])),
            ("a device id too large", lambda d: d["volumes"][0].update(dev_id=1 << 24)),
            ("an id that is none", lambda d: d["pool"].update(id="x")), ("a size as text", lambda d: d["pool"].update(data_size="16M")),
            ("a size of nothing", lambda d: d["pool"].update(data_size=0)), ("a size beyond all", lambda d: d["pool"].update(data_size=(1 << 62) + 65536)),
            ("a size below nothing", lambda d: d["volumes"][0].update(size=-4096)),
            ("an odd block", lambda d: d["pool"].update(block_size=65537)), ("a wrong policy", lambda d: d["pool"]["policy"]["data"].update(low_water_percent=0)),
            ("an origin that is itself", lambda d: d["volumes"][0].update(origin=d["volumes"][0]["id"]))):
        with_changes(change)
        refuse(422, "bad-descriptor", what)
    file.write_bytes(b" " * (64 * MIB))
    reply = api("POST", "/v1/pools/import?wait=60", {"directory": str(home)})
    t.check(reply.status in (422, 500) and len(reply.body["detail"]) > 10, f"too large: {reply.raw[:300]}")
    with_changes(lambda d: d["pool"].update(name="keep"))
    refuse(409, "exists", "a name in use")
    pools.change("POST", "/v1/pools/keep/deactivate")
    refuse(409, "exists", "a name in use by a pool that is inactive")
    pools.change("POST", "/v1/pools/keep/activate")
    file.unlink()
    refuse(404, "not-found", "no descriptor")
    # Who may import need not be who may read: nothing of a file comes back in the error.
    file.symlink_to("/etc/passwd")
    reply = api("POST", "/v1/pools/import?wait=60", {"directory": str(home)})
    t.check(reply.status >= 400 and "symbolic link" in reply.body["detail"] and
            "root" not in reply.raw.decode(), f"a link: {reply.raw[:300]}")
    file.unlink()
    file.write_text("secret:words")
    reply = api("POST", "/v1/pools/import?wait=60", {"directory": str(home)})
    t.check(reply.status >= 400 and "secret" not in reply.raw.decode(), f"no JSON: {reply.raw[:300]}")
    file.write_bytes(text)

    # The descriptor is right, what it describes is not.
    (home / "data").rename(home / "away")
    refuse(409, "backing-gone", "no data")
    (home / "away").rename(home / "data")
    (home / "metadata").rename(home / "away")
    refuse(409, "backing-gone", "no metadata")
    (home / "away").rename(home / "metadata")
    os.truncate(home / "data", 8 * MIB)
    refuse(409, "backing-gone", "data cut short")
    shutil.copyfile(kept / "data", home / "data")
    with (home / "metadata").open("r+b") as out:
        out.write(os.urandom(4096))
    refuse(422, "damaged", "another superblock")
    shutil.copyfile(kept / "metadata", home / "metadata")
    with (home / "metadata").open("r+b") as out:
        out.seek(4096)
        out.write(os.urandom(1 << 20))
    refuse(422, "damaged", "damaged metadata")
    shutil.copyfile(kept / "metadata", home / "metadata")
    for directory, status, kind in (("relative", 400, "bad-path"), ("/a/../b", 400, "bad-path"), ("", 400, "bad-path"),
                                    ("/nowhere/at/all", 404, "not-found"), ("/" + "a" * LONG, 400, "bad-path"),
                                    (str(t.scratch / "keep"), 409, "exists")):
        reply = api("POST", "/v1/pools/import?wait=60", {"directory": directory})
        t.equal((reply.status, reply.body["type"][18:]), (status, kind), f"import of {directory[:60]!r}: {reply.raw[:300]}")
        count += 1
    pools.change("POST", "/v1/pools/import", {"directory": str(home)})
    t.equal([v["name"] for v in api("GET", "/v1/pools/moved/volumes").body["items"]], ["a", "b"], "after all that, the pool")
    pools.destroy("moved")
    shutil.rmtree(kept)
    t.log(f"descriptor: {count + 2} refused")


# ---- the machine ---------------------------------------------------------------------------------

def directories(t, refused):
    full, locked = t.scratch / "full", t.scratch / "locked"
    other = t.scratch / "other"
    other.mkdir()
    (other / "file").write_text("somebody's")
    (t.scratch / "link").symlink_to(other)
    (t.scratch / "plain").write_text("no directory")
    full.mkdir()
    tm.sh(["mkfs.ext4", "-q", "-F", t.disks[0], "128M"])
    tm.sh(["mount", t.disks[0], str(full)])
    t.defer(tm.sh, ["umount", str(full)])
    locked.mkdir()
    tm.sh(["chattr", "+i", str(locked)])
    t.defer(tm.sh, ["chattr", "-i", str(locked)])
    keep = str(t.scratch / "keep")
    refused.begin()

    def at(directory, status, kind, size=16 * MIB, field="/backing/directory", **members):
        body = {"name": "new", "data_size": size, **members,
                "backing": {"kind": "file", "directory": str(directory), **members.pop("backing", {})}}
        refused("POST", "/v1/pools?wait=60", body, status, kind, field, hint=status != 500)

    for bad in ("", "relative", "./x", "/", "/a/../b", "/a/./b", "//a", "/a//b", "/a/", "/" + "a" * 5000):
        at(bad, 400, "bad-path")
    for somewhere in ("/run/new", "/dev/shm/new", "/proc/new", "/sys/kernel/new"):
        at(somewhere, 422, "unsupported")
    at("/nowhere/at/all", 400, "bad-path")
    at(t.scratch / "link", 400, "bad-path")
    at(t.scratch / "plain", 400, "bad-path")
    at(t.scratch / "plain" / "below", 400, "bad-path")
    at(other, 409, "exists")
    at(keep, 409, "exists")
    at(f"{keep}/below", 409, "exists")
    at(t.scratch, 409, "exists")
    at(full / "new", 507, "no-space", 256 * MIB, "/data_size")
    at(full, 507, "no-space", 112 * MIB, "/data_size")
    at(t.scratch / "new", 507, "no-space", 1 << 50, None)
    at(locked / "new", 400, "bad-path")
    # Taken by the last byte while a pool is asked for.
    tm.sh(["fallocate", "-l", str(os.statvfs(full).f_bavail * os.statvfs(full).f_bsize), str(full / "ballast")])
    refused.before = glance(t.scratch)
    at(full / "new", 507, "no-space", field="/data_size")
    (full / "ballast").unlink()
    tm.sh(["mount", "-o", "remount,ro", str(full)])
    refused.before = glance(t.scratch)
    at(full / "new", 422, "unsupported")
    at(full, 422, "unsupported")
    tm.sh(["mount", "-o", "remount,rw", str(full)])
    refused.whole = pools.picture(t.scratch)
    refused.end("directories")


def missing_files(t):
    """An inactive pool whose files are gone: said, and nothing is half up afterwards."""
    home = t.scratch / "keep"
    pools.change("POST", "/v1/pools/keep/deactivate")
    for part in ("data", "metadata"):
        for what in ("gone", "a directory", "a link", "empty", "a device"):
            file, away = home / part, home / f"{part}.away"
            file.rename(away)
            if what == "a directory":
                file.mkdir()
            elif what == "a link":
                file.symlink_to(away)
            elif what == "empty":
                file.touch()
            elif what == "a device":
                os.mknod(file, 0o600 | stat.S_IFBLK, os.makedev(7, 0))
            before = pools.picture(t.scratch)
            reply = api("POST", "/v1/pools/keep/activate?wait=60")
            t.check((reply.status, reply.body["type"][18:]) in ((409, "backing-gone"), (422, "damaged")),
                    f"{part} is {what}: {reply.raw[:400]}")
            t.check(str(file) in reply.body["detail"] or "keep" in reply.body["detail"], f"{part} is {what}: named")
            after = pools.picture(t.scratch)
            for document in before["pools"] + after["pools"]:
                document.pop("generation")
            pools.same(t, before, after, f"activating with {part} {what}")
            if what == "a directory":
                file.rmdir()
            elif file.is_symlink() or file.exists():
                file.unlink()
            away.rename(file)
    # All of it out of reach, as when its file system is not mounted: the record must not go alone.
    away = t.scratch / "keep.away"
    home.rename(away)
    reply = api("DELETE", "/v1/pools/keep?wait=60&with_volumes=true")
    t.equal((reply.status, reply.body["type"][18:]), (409, "backing-gone"), reply.raw)
    t.check("--forget" in reply.body["hint"] and str(home) in reply.body["detail"], f"what to do: {reply.raw}")
    t.equal(pools.pool("keep")["state"], "inactive", "still known")
    away.rename(home)
    pools.change("POST", "/v1/pools/keep/activate")
    pools.create(t, "lost", 16)
    pools.change("POST", "/v1/pools/lost/deactivate")
    shutil.rmtree(t.scratch / "lost")
    pools.change("DELETE", "/v1/pools/lost", expect=409)
    done = tm.sh(["thinmgr", "pool", "delete", "lost", "--yes", "--forget"])
    t.equal(api("GET", "/v1/pools/lost").status, 404, f"forgotten: {done.out}")
    t.log("missing files: 12 refused")


def strangers(t):
    """Names that somebody else's devices have."""
    for name in ("new:_pool", "new:_data", "new:_meta", "keep:w"):
        tm.sh(["dmsetup", "create", name, "--table", "0 8 zero"])
        if name == "new:_data":  # a directory that was there stays
            (t.scratch / "new").mkdir()
        try:
            before = pools.picture(t.scratch)
            if name == "keep:w":
                reply = api("POST", "/v1/pools/keep/volumes?wait=60", {"name": "w", "size": MIB})
            else:
                reply = api("POST", "/v1/pools?wait=60", {
                    "name": "new", "backing": {"kind": "file", "directory": str(t.scratch / "new")},
                    "data_size": 16 * MIB})
            t.equal((reply.status, reply.body["type"][18:]), (409, "exists"), f"{name}: {reply.raw[:400]}")
            t.check(name in reply.body["detail"] and reply.body["hint"], f"{name} is named: {reply.raw[:400]}")
            after = pools.picture(t.scratch)
            for document in before["pools"] + after["pools"]:
                document.pop("generation")
            pools.same(t, before, after, f"a stranger named {name}")
        finally:
            tm.sh(["dmsetup", "remove", "--retry", name])
        if name == "new:_data":
            (t.scratch / "new").rmdir()
    pools.volume("keep", "w", 1)
    pools.change("DELETE", "/v1/pools/keep/volumes/w")
    t.log("strangers: 4 refused")


def no_tools(t):
    """Without thin_check nothing is activated that was not checked; what is active stays."""
    tools = [p for p in (Path("/usr/sbin/thin_check"), Path("/sbin/thin_check")) if p.is_symlink() or p.exists()]
    real = tools[0].parent / "thin_check.away"
    tools[0].rename(real)
    t.defer(lambda: real.exists() and real.rename(tools[0]))
    api("POST", "/v1/pools/keep/snapshots?wait=60", {"snapshots": [{"volume": "v", "name": "z"}]}, expect=200)
    pools.change("POST", "/v1/pools/keep/deactivate")
    before = pools.picture(t.scratch)
    reply = api("POST", "/v1/pools/keep/activate?wait=60")
    t.equal((reply.status, reply.body["type"][18:]), (503, "tool-missing"), reply.raw)
    t.check("thin-provisioning-tools" in reply.body["hint"], f"what to install: {reply.body}")
    after = pools.picture(t.scratch)
    for document in before["pools"] + after["pools"]:
        document.pop("generation")
    pools.same(t, before, after, "activating without thin_check")
    tm.restart()
    degraded = api("GET", "/v1/system", expect=200).body
    t.check(any("thin_check" in d for d in degraded["degraded"]), f"said to be degraded: {degraded['degraded']}")
    t.check({"name": "thin_check", "path": None} in degraded["tools"], "and among the tools")
    real.rename(tools[0])
    pools.change("POST", "/v1/pools/keep/activate")
    tm.restart()
    t.check(not any("thin_check" in d for d in api("GET", "/v1/system").body["degraded"]), "no longer degraded")
    t.equal(pools.pool("keep")["state"], "active", "keep")


def run(t):
    pools.create(t, "keep", 16, policy={"sample_seconds": 3600, "data": {"auto_extend": False}})
    pools.volume("keep", "v", 32)
    pools.change("POST", "/v1/pools/keep/snapshots", {"snapshots": [{"volume": "v", "name": "old"}]})
    began = time.monotonic()

    def took(what):
        nonlocal began
        t.log(f"  {what}: {time.monotonic() - began:.1f} s")
        began = time.monotonic()

    crawl = slow_begin(t)
    refused = Refused(t)
    refused.begin()
    bodies(t, refused, t.scratch / "new")
    volumes(t, refused)
    targets(t, refused)
    wire(t, refused)
    refused.end("REST")
    took("REST")
    refused.begin()
    command_line(t, refused, t.scratch / "new")
    refused.end("the command line")
    took("command line")
    configuration(t)
    took("configuration")
    directories(t, refused)
    took("directories")
    descriptor(t)
    took("descriptor")
    missing_files(t)
    strangers(t)
    no_tools(t)
    took("the machine")
    slow_end(t, *crawl)
    t.log(f"{t.checks} checks")
