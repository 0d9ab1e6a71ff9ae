#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Make the daemon's route table, daemon/api/routes.inc, from api/openapi.yaml.

    gen-routes.py           write it
    gen-routes.py --check   fail when it is not what it would be written as

The file is committed, so that building needs no Python.
"""

import pathlib
import re
import sys

import yaml

TOP = pathlib.Path(__file__).resolve().parent.parent
SPEC = TOP / "api/openapi.yaml"
OUT = TOP / "daemon/api/routes.inc"
METHODS = ("get", "post", "patch", "delete")

HEAD = """/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Made by api/gen-routes.py from api/openapi.yaml; do not edit.
 *
 * TM_ROUTE(method, path, operation id, permission, handler, takes a body, query parameters)
 */
"""


def resolve(spec, node):
    """Follow a local reference."""
    while "$ref" in node:
        target = spec
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def routes(spec):
    for path, item in spec["paths"].items():
        if not re.fullmatch(r"(/([a-z0-9_-]+|\{[a-z]+\}))+", path):
            raise SystemExit(f"{path}: not a path the router can take")
        unknown = set(item) - set(METHODS) - {"parameters"}
        if unknown:
            raise SystemExit(f"{path}: the router does not know {', '.join(sorted(unknown))}")
        shared = item.get("parameters", [])
        in_path = {p["name"] for p in (resolve(spec, p) for p in shared) if p["in"] == "path"}
        if in_path != set(re.findall(r"\{([a-z]+)\}", path)):
            raise SystemExit(f"{path}: its parameters are not those declared")
        for method in METHODS:
            if method not in item:
                continue
            operation = item[method]
            where = f"{method.upper()} {path}"
            handler = operation["x-thinmgr-handler"]
            permission = operation["x-thinmgr-permission"]
            if permission not in ("view", "admin"):
                raise SystemExit(f"{where}: permission {permission}")
            if not re.fullmatch(r"tm_handle_[a-z_]+", handler):
                raise SystemExit(f"{where}: handler {handler}")
            parameters = [resolve(spec, p) for p in shared + operation.get("parameters", [])]
            query = [p["name"] for p in parameters if p["in"] == "query"]
            body = "true" if "requestBody" in operation else "false"
            yield (
                f'TM_ROUTE({method.upper()}, "{path}", "{operation["operationId"]}",\n'
                f"\t {permission.upper()}, {handler}, {body},\n"
                f'\t "{" ".join(query)}")\n'
            )


def overlap(a, b):
    """Is there a path that both templates fit?"""
    pairs = list(zip(a.split("/"), b.split("/")))
    return a.count("/") == b.count("/") and all(x == y or "{" in x + y for x, y in pairs)


def check_overlaps(spec):
    paths = list(spec["paths"])
    for i, a in enumerate(paths):
        for b in paths[i + 1 :]:
            shared = set(spec["paths"][a]) & set(spec["paths"][b]) & set(METHODS)
            if shared and overlap(a, b):
                raise SystemExit(f"{a} and {b} both take {', '.join(shared)} for one path")


def main():
    spec = yaml.safe_load(SPEC.read_text())
    check_overlaps(spec)
    text = HEAD + "".join(routes(spec))
    if sys.argv[1:] == ["--check"]:
        if not OUT.exists() or OUT.read_text() != text:
            raise SystemExit("daemon/api/routes.inc is not what api/openapi.yaml says: run api/gen-routes.py")
    elif sys.argv[1:]:
        raise SystemExit(__doc__)
    else:
        OUT.write_text(text)


if __name__ == "__main__":
    main()
