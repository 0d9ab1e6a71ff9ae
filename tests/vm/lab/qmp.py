# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's control socket: just enough to reset a machine, to see it reset, and to learn its forwarded ports."""

from __future__ import annotations

import json
import socket
from pathlib import Path

from .util import LabError


class Qmp:
    def __init__(self, path: Path, limit: float = 30) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(limit)
        self.sock.connect(str(path))
        self.file = self.sock.makefile("rw")
        self.resets = 0  # told so far; what QEMU has to tell comes with the answer to a command
        self._read()
        self.command("qmp_capabilities")

    def _read(self) -> dict:
        line = self.file.readline()
        if not line:
            raise LabError("QEMU closed its control socket")
        return json.loads(line)

    def command(self, name: str, **arguments: object) -> object:
        self.file.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.file.flush()
        while True:
            answer = self._read()
            if answer.get("event") == "RESET":
                self.resets += 1
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise LabError(f"QEMU: {name}: {answer['error'].get('desc')}")

    def human(self, line: str) -> str:
        return str(self.command("human-monitor-command", **{"command-line": line}))

    def close(self) -> None:
        self.file.close()
        self.sock.close()
