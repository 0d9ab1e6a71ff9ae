#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Hold api/openapi.yaml against itself, the daemon's sources, and the daemon's answers.

    check.py            references, examples, lists that sources have too, the route table
    check.py DIRECTORY  besides, every answer recorded there: files of the lines
                        "METHOD PATH", "STATUS MEDIA-TYPE", and the body

tests/unit/test-http-server.c records what it is answered in the directory $TM_ANSWERS.
"""

import json
import pathlib
import re
import subprocess
import sys

import jsonschema
import yaml

TOP = pathlib.Path(__file__).resolve().parent.parent
SPEC = yaml.safe_load((TOP / "api/openapi.yaml").read_text())
faults = []


def fault(text):
    faults.append(text)


def lookup(pointer):
    node = SPEC
    for part in pointer.removeprefix("#/").split("/"):
        node = node[part]
    return node


def resolve(node):
    while "$ref" in node:
        node = lookup(node["$ref"])
    return node


def validator(schema):
    # The whole document goes along, for the references in the schema.
    return jsonschema.Draft202012Validator(
        {**schema, "components": SPEC["components"]},
        format_checker=jsonschema.FormatChecker(formats=["uuid"]),
    )


def check_value(where, schema, value):
    for error in validator(schema).iter_errors(value):
        path = "/".join(str(p) for p in error.absolute_path)
        fault(f"{where}: at /{path}: {error.message[:200]}")


def walk(where, node):
    """Every reference leads somewhere, every example is what its schema says."""
    if isinstance(node, list):
        for i, item in enumerate(node):
            walk(f"{where}/{i}", item)
    elif isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            try:
                lookup(node["$ref"])
            except KeyError:
                fault(f"{where}: {node['$ref']} leads nowhere")
        if "example" in node:
            check_value(f"{where}/example", node.get("schema", node), node["example"])
        for name, example in node.get("examples", {}).items() if "schema" in node else ():
            check_value(f"{where}/examples/{name}", node["schema"], example["value"])
        for key, value in node.items():
            if key not in ("example", "examples"):
                walk(f"{where}/{key}", value)


def check_lists():
    """Lists that the sources have too."""
    schemas = SPEC["components"]["schemas"]
    events = re.findall(r'^TM_EVENT\(\w+, "([a-z-]+)"', (TOP / "api/events.def").read_text(), re.M)
    if events != schemas["EventType"]["enum"]:
        fault(f"EventType is not what api/events.def has: {set(events) ^ set(schemas['EventType']['enum'])}")
    source = (TOP / "daemon/core/operation.c").read_text()
    kinds = set(re.findall(r'\[TM_CMD_\w+\] = "([a-z-]+)"', source))
    if kinds != set(schemas["Operation"]["properties"]["kind"]["enum"]):
        fault(f"Operation.kind is not what daemon/core/operation.c has: {sorted(kinds)}")
    ids = [o["operationId"] for p in SPEC["paths"].values() for m, o in p.items() if m != "parameters"]
    if len(ids) != len(set(ids)):
        fault("an operationId is there twice")


def find_operation(method, path):
    """As the router does: the method's templates, literal ones first."""
    best = None
    for template, item in SPEC["paths"].items():
        if method.lower() not in item:
            continue
        pattern = re.sub(r"\{[a-z]+\}", "[^/]+", template)
        if re.fullmatch(pattern, path) and (best is None or "{" not in template):
            best = item[method.lower()]
    return best


def check_answer(file):
    asked, answered, body = file.read_text().split("\n", 2)
    method, target = asked.split(" ", 1)
    status, media = answered.split(" ", 1)
    where = f"{asked}: {status}"
    if method == "OPTIONS" and status == "204":
        return
    operation = find_operation(method, target.split("?")[0])
    if operation is None:
        # There is no such path: only a problem may come back.
        responses = {"4XX": {"$ref": "#/components/responses/ClientError"}}
    else:
        responses = operation["responses"]
    response = responses.get(status) or responses.get(status[0] + "XX")
    if response is None:
        fault(f"{where}: not an answer in the contract")
        return
    content = resolve(response).get("content", {})
    if media not in content:
        fault(f"{where}: {media} is not in the contract")
    elif media.endswith("json"):
        check_value(where, content[media]["schema"], json.loads(body))


def main():
    walk("#", SPEC)
    check_lists()
    if subprocess.run([TOP / "api/gen-routes.py", "--check"], check=False).returncode:
        fault("the route table is out of date")
    answers = 0
    if len(sys.argv) > 1:
        for file in sorted(pathlib.Path(sys.argv[1]).iterdir()):
            check_answer(file)
            answers += 1
        if not answers:
            fault("there are no answers to be checked")
    for text in faults:
        print(text)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
