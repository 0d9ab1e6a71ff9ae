# SPDX-License-Identifier: GPL-2.0-or-later
"""A thinmgrd that only talks: serves canned documents on a Unix socket.

Its documents are the examples of api/openapi.yaml, and every request it gets is held against
that file: path, method, parameters and body. So neither the command line nor these
documents can drift from the contract.
"""

import copy
import http.server
import json
import os
import re
import socketserver
import sys
import threading
import urllib.parse

import jsonschema
import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OPERATION = "0b0c7a3e-5d0e-4f7b-8a51-3a3f5a0f7c11"


class Contract:
    """api/openapi.yaml, to look up examples and to check requests."""

    def __init__(self):
        with open(os.path.join(ROOT, "api", "openapi.yaml"), encoding="utf-8") as f:
            self.document = yaml.safe_load(f)
        self.routes = []
        for template, item in self.document["paths"].items():
            pattern = re.compile("^" + re.sub(r"\{[^}]+\}", "([^/]+)", template) + "$")
            self.routes.append((template.count("{"), pattern, item))
        self.routes.sort(key=lambda route: route[0])  # /pools/import before /pools/{pool}

    def example(self, name):
        return copy.deepcopy(self.document["components"]["schemas"][name]["example"])

    def resolve(self, node):
        while "$ref" in node:
            ref = node["$ref"]
            node = self.document
            for part in ref[2:].split("/"):
                node = node[part]
        return node

    def check(self, schema, value):
        whole = dict(self.document, **{"$ref": schema})
        jsonschema.Draft202012Validator(whole).validate(value)

    def faults(self, method, path, query, body):
        """What is wrong with a request, as a list of sentences."""
        item = next((item for _, pattern, item in self.routes if pattern.match(path)), None)
        if item is None or method.lower() not in item:
            return [f"{method} {path} is not in the contract"]
        operation = item[method.lower()]
        parameters = [self.resolve(p) for p in item.get("parameters", []) + operation.get("parameters", [])]
        known = {p["name"]: p for p in parameters if p["in"] == "query"}
        faults = []
        for name, value in query:
            if name not in known:
                faults.append(f"{method} {path} has no parameter {name}")
                continue
            schema = self.resolve(known[name]["schema"])
            typed = value
            if schema.get("type") == "integer" and value.isdigit():
                typed = int(value)
            elif schema.get("type") == "boolean" and value in ("true", "false"):
                typed = value == "true"
            try:
                jsonschema.Draft202012Validator(dict(self.document, **schema)).validate(typed)
            except jsonschema.ValidationError as fault:
                faults.append(f"{name}={value}: {fault.message}")
        wanted = self.resolve(operation.get("requestBody", {}))
        content = wanted.get("content")
        if content is None:
            if body:
                faults.append(f"{method} {path} takes no body")
        elif not body and not wanted.get("required"):
            pass
        else:
            try:
                self.check(content["application/json"]["schema"]["$ref"], json.loads(body))
            except (jsonschema.ValidationError, ValueError) as fault:
                faults.append(f"body of {method} {path}: {fault}")
        return faults


def odd(document):
    """JSON as nobody would write it, so that passing it on unchanged is seen to be just that."""
    return json.dumps(document, indent=3, separators=(" ,", " :  "), ensure_ascii=False).encode()


def problem(slug, status, detail, **more):
    return dict(type=f"urn:thinmgr:error:{slug}", title="A title", status=status, detail=detail,
                instance="/v1/somewhere", **more)


class Answer:
    def __init__(self, document, status=200, raw=None, content_type=None, chunks=None, cut=False):
        self.status = status
        self.body = raw if raw is not None else odd(document)
        self.content_type = content_type or (
            "application/problem+json" if status >= 400 else "application/json")
        self.chunks = chunks  # for a stream: byte strings, or callables run in between
        self.cut = cut        # close without any answer


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_any(self):
        fake = self.server.fake
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        url = urllib.parse.urlsplit(self.path)
        query = urllib.parse.parse_qsl(url.query, keep_blank_values=True)
        path = urllib.parse.unquote(url.path)
        fake.note(self.command, path, query, body, self.headers)
        answer = fake.answer(self.command, path, query, body, self.headers)
        if answer.cut:
            self.close_connection = True
            return
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.content_type)
        if answer.chunks is None:
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)
            return
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        for chunk in answer.chunks:
            if callable(chunk):
                chunk()
                continue
            try:
                self.wfile.write(chunk)
                self.wfile.flush()
            except OSError:
                return

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = do_HEAD = handle_any

    def log_message(self, *args):
        pass

    def address_string(self):
        return "unix"


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 32

    def handle_error(self, request, client_address):
        """A client that went away is what some tests are about."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class Fake:
    """The daemon. `answers` overrides what a request gets: (method, path) to an Answer or a list of them,
    taken one after the other, the last one for ever."""

    def __init__(self, path, contract):
        self.path = path
        self.contract = contract
        self.requests = []
        self.faults = []
        self.answers = {}
        self.lock = threading.Lock()
        self.server = None
        self.documents = self.make_documents()
        self.start()

    def start(self):
        self.server = Server(self.path, Handler)
        self.server.fake = self
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
        if os.path.exists(self.path):
            os.unlink(self.path)

    def reset(self):
        with self.lock:
            self.requests.clear()
            self.faults.clear()
            self.answers.clear()

    def make_documents(self):
        example = self.contract.example
        pool, volume, operation = example("Pool"), example("Volume"), example("Operation")
        snapshot = dict(volume, id="1" * 8 + "-1111-4111-8111-" + "1" * 12, name="monday", origin="home",
                        origin_id=volume["id"], active=False, device=None, mapped=None, read_only=True,
                        suspect={"reason": "no_space", "since": "2026-03-01T10:00:00.000Z"})
        pool["suspect_volumes"] = 1
        events = [dict(example("Event"), seq=n) for n in (40, 41, 42)]
        events[0].update(type="low-space", severity="notice", message="tank: 60 MiB are free")
        events[1].update(type="out-of-space", severity="critical", message="tank: no space")
        policy = dict(pool["policy"], when_full="queue")
        done = dict(operation, status="done", step=5, step_name=None, finished=operation["started"])
        def items(*list_items):
            return {"items": list(list_items), "next": None}
        return {
            "/v1/system": example("System"),
            "/v1/pools": items(pool),
            "/v1/pools/tank": pool,
            "/v1/pools/tank/policy": policy,
            "/v1/pools/tank/copies": items(example("Copy")),
            "/v1/pools/tank/history": items(example("Sample")),
            "/v1/pools/tank/volumes": items(volume, snapshot),
            "/v1/pools/tank/volumes/home": volume,
            "/v1/pools/tank/snapshots": items(snapshot),
            f"/v1/pools/{pool['id']}/volumes": items(volume, snapshot),
            f"/v1/pools/{pool['id']}/snapshots": items(snapshot),
            "/v1/events": items(*events),
            "/v1/operations": items(done, operation),
            f"/v1/operations/{OPERATION}": done,
        }

    def note(self, method, path, query, body, headers):
        with self.lock:
            self.requests.append((method, path, dict(query), body, headers))
            self.faults.extend(self.contract.faults(method, path, query, body))

    def answer(self, method, path, query, body, headers):
        with self.lock:
            special = self.answers.get((method, path))
            if isinstance(special, list):
                special = special.pop(0) if len(special) > 1 else special[0]
        if callable(special):
            special = special(query, body, headers)
        if special is not None:
            return special
        if method == "GET":
            if path in self.documents:
                return Answer(self.documents[path])
            return Answer(problem("not-found", 404, f"there is no {path}",
                                  hint="look at the list"), 404)
        kinds = {"DELETE": "delete", "PATCH": "resize"}
        verb = kinds.get(method, path.rsplit("/", 1)[1].rstrip("s"))
        noun = "volume" if "/volumes" in path else "pool"
        kind = {"pool-pool": "pool-create", "volume-volume": "volume-create",
                "pool-snapshot": "snapshot-create", "pool-resize": "pool-policy",
                "pool-restore-metadata": "pool-restore"}.get(
                    f"{noun}-{verb}", f"{noun}-{verb}")
        running = dict(self.contract.example("Operation"), kind=kind)
        if "/volumes" not in path:
            running["volume"] = None
        if ("dry_run", "true") in query:
            return Answer(dict(running, id=None, status="queued"))
        with self.lock:
            self.documents[f"/v1/operations/{OPERATION}"] = dict(
                running, status="done", step=5, step_name=None, finished=running["started"])
        return Answer(running, 202)
