#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the tables of docs/errors.md and docs/events.md from api/errors.def and api/events.def.

    docs/gen-tables.py            write them
    docs/gen-tables.py --check    say which are not what they should be; status 1 then
"""

import os
import re
import sys

DOCS = os.path.dirname(os.path.abspath(__file__))
API = os.path.join(os.path.dirname(DOCS), "api")
BEGIN, END = "<!-- table: made by docs/gen-tables.py -->", "<!-- end of the table -->"


def entries(name, pattern, count):
    with open(os.path.join(API, name), encoding="utf-8") as f:
        text = f.read()
    found = re.findall(pattern, text, re.M)
    if len(found) != len(re.findall(r"^TM_", text, re.M)) or any(len(e) != count for e in found):
        sys.exit(f"{name} has a line that this script does not understand")
    return found


def camel_case(symbol):
    return "".join(word.capitalize() for word in symbol.split("_"))


def errors_table():
    lines = ["| type | HTTP | exit | D-Bus | meaning |", "| --- | --- | --- | --- | --- |"]
    for symbol, slug, http, status, title in entries(
            "errors.def", r'^TM_ERROR\((\w+), "([^"]+)", (\d+), (\d+), "([^"]+)"\)$', 5):
        lines.append(f"| `{slug}` | {http} | {status} | `{camel_case(symbol)}` | {title} |")
    return "\n".join(lines)


def events_table():
    lines = ["| type | severity | meaning |", "| --- | --- | --- |"]
    for slug, severity, text in entries(
            "events.def", r'^TM_EVENT\(\w+, "([^"]+)", (\w+), "([^"]+)"\)$', 3):
        lines.append(f"| `{slug}` | {severity.lower()} | {text} |")
    return "\n".join(lines)


def main():
    check = sys.argv[1:] == ["--check"]
    stale = []
    for name, table in (("errors.md", errors_table()), ("events.md", events_table())):
        path = os.path.join(DOCS, name)
        with open(path, encoding="utf-8") as f:
            text = f.read()
        head, rest = text.split(BEGIN, 1)
        tail = rest.split(END, 1)[1]
        fresh = f"{head}{BEGIN}\n{table}\n{END}{tail}"
        if fresh == text:
            continue
        if check:
            stale.append(name)
        else:
            with open(path, "w", encoding="utf-8") as f:
                f.write(fresh)
    for name in stale:
        print(f"docs/{name} is not what docs/gen-tables.py makes of api/")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
