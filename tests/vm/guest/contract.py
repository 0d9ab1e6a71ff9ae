# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests whose answers are held against api/openapi.yaml, as the package installed it.

`api` is tm.api with every answer checked: the path, method and status are in the contract, the
media type fits, the body matches its schema, the headers promised are there.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema
import tm
import yaml

CONTRACT = Path("/usr/share/thinmgr/openapi.yaml")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
METHODS = ("get", "post", "patch", "put", "delete")

formats = jsonschema.FormatChecker(formats=["uuid"])
formats.checks("date-time")(lambda text: not isinstance(text, str) or bool(TIME.fullmatch(text)))


@functools.cache
def document() -> dict:
    return yaml.load(CONTRACT.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def resolved(node: dict) -> dict:
    """The object itself where there is only a reference to it."""
    while "$ref" in node:
        at: object = document()
        for key in node["$ref"].removeprefix("#/").split("/"):
            at = at[key]  # type: ignore[index]
        node = at  # type: ignore[assignment]
    return node


@functools.cache
def patterns() -> list[tuple[re.Pattern[str], str]]:
    """Paths of the contract as patterns; those without parameters first, as they win."""
    found = [(re.compile("/".join("[^/]+" if part.startswith("{") else re.escape(part)
                                  for part in path.split("/"))), path) for path in document()["paths"]]
    return sorted(found, key=lambda item: item[1].count("{"))


def template(path: str) -> str | None:
    """The contract's path for a request's, None when there is none."""
    return next((path_template for pattern, path_template in patterns() if pattern.fullmatch(path)),
                None)


@functools.lru_cache(maxsize=200)
def validator(key: str) -> jsonschema.Draft202012Validator:
    """The validator of a schema, named by a reference."""
    return jsonschema.Draft202012Validator(
        {"$ref": key, "components": document()["components"]}, format_checker=formats)


def against(document_: object, schema: dict, what: str) -> None:
    """Fail unless a document matches a schema of the contract."""
    if set(schema) == {"$ref"}:
        check = validator(schema["$ref"])
    else:
        check = jsonschema.Draft202012Validator(
            {**schema, "components": document()["components"]}, format_checker=formats)
    wrong = sorted(check.iter_errors(document_), key=lambda e: list(map(str, e.path)))
    if wrong:
        at = "/".join(str(p) for p in wrong[0].path)
        raise tm.Failed(f"{what} is not as the contract says, at /{at}: {wrong[0].message}")


def described(method: str, path: str, status: int) -> dict | None:
    """What the contract says about this answer; None when it leaves the case to its preface."""
    name = template(path)
    if name is None or method.lower() not in METHODS:
        return None
    operation = document()["paths"][name].get(method.lower())
    if operation is None:
        return None
    for key in (str(status), f"{status // 100}XX"):
        if key in operation["responses"]:
            return resolved(operation["responses"][key])
    raise tm.Failed(f"{method} {path} answered {status}, which the contract does not know")


def check(method: str, target: str, reply: tm.Reply) -> None:
    """Fail unless an answer is one that the contract allows."""
    path, what = urlsplit(target).path, f"the answer {reply.status} to {method} {target}"
    media = reply.headers.get("content-type", "").split(";")[0]
    if method == "HEAD":
        if reply.raw:
            raise tm.Failed(f"{what} has a body")
        return
    said = described(method, path, reply.status)
    if said is None:
        # No such path or method there: 204 for OPTIONS, else a problem.
        if method == "OPTIONS" and reply.status == 204:
            return
        if reply.status not in (400, 403, 404, 405) or media != "application/problem+json":
            raise tm.Failed(f"{what}: {media}, though the contract has no such request")
        against(reply.body, {"$ref": "#/components/schemas/Problem"}, what)
        if reply.status == 405 and "allow" not in reply.headers:
            raise tm.Failed(f"{what} has no Allow")
        return
    for header in said.get("headers", {}):
        if header.lower() not in reply.headers:
            raise tm.Failed(f"{what} has no {header}")
    if media not in said.get("content", {}):
        raise tm.Failed(f"{what} is {media or 'without a type'}, which the contract does not know")
    if media.endswith("json"):
        against(reply.body, said["content"][media]["schema"], what)
    if reply.status >= 400 and media == "application/problem+json" and \
            reply.body["status"] != reply.status:
        raise tm.Failed(f"{what} says status {reply.body['status']} in its body")


def api(method: str, target: str, body: object = None, headers: dict[str, str] | None = None,
        limit: float = 60, expect: int | Sequence[int] | None = None,
        raw: bytes | None = None) -> tm.Reply:
    """tm.api, its answer checked against the contract."""
    reply = tm.api(method, target, body, headers, limit, None, raw)
    check(method, target, reply)
    wanted = [expect] if isinstance(expect, int) else list(expect or [])
    if wanted and reply.status not in wanted:
        raise tm.Failed(f"{method} {target}: status {reply.status}, expected {wanted}: "
                        f"{reply.raw.decode(errors='replace')}")
    return reply
