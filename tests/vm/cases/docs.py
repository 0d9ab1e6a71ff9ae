# SPDX-License-Identifier: GPL-2.0-or-later
"""Every example in the README's tour and in the guide is run, in order, as it is written there."""

import re
import shutil
from pathlib import Path

import tm

HOST = True
LIMIT = 400
TOP = Path(__file__).resolve().parents[3]
# What follows events never ends by itself: it is cut off, and has done well until then.
ENDLESS = re.compile(r"\bevent watch\b")
SECONDS = 3


def examples(path, after="", before=None):
    """The indented lines between two headings that are commands of a running system."""
    text = path.read_text().split(after, 1)[1].split(before, 1)[0] if after else path.read_text()
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    return [line for line in lines if re.match(r"(thinmgr|mkfs|curl) ?", line)]


# ---- in the machine ------------------------------------------------------------------------------

def run_line(line, endless):
    """A line as a user's shell runs it: its status, and what it printed."""
    limit = ["timeout", "--signal=INT", str(SECONDS)] if endless else []
    done = tm.sh([*limit, "bash", "-o", "pipefail", "-c", line], check=False, limit=120)
    good = (0, 124, 130) if endless else (0,)
    if done.status not in good:
        raise tm.Failed(f"$ {line}\nexit status {done.status}\n{done.out}{done.err}")
    return done.out


def lose_database():
    """What the chapter on a lost database begins with."""
    tm.sh(["thinmgr", "pool", "deactivate", "web"])
    tm.sh(["systemctl", "stop", "thinmgrd"])
    shutil.rmtree("/var/lib/thinmgr")
    tm.sh(["systemctl", "start", "thinmgrd"])
    tm.wait_ready()
    return tm.items(tm.api("GET", "/v1/pools", expect=200).body)


def clean():
    tm.sh(["thinmgr", "pool", "delete", "web", "--with-volumes", "--yes"])
    tm.assert_clean()
    return True


# ---- on the host ---------------------------------------------------------------------------------

def run(t):
    count = 0
    for where in (examples(TOP / "README.md", "## A tour in five lines", "## Install"),
                  examples(TOP / "docs/guide.md")):
        t.check(len(where) >= 5, f"examples found: {where}")
        for line in where:
            if line.startswith("thinmgr pool import"):
                t.equal(t.call("lose_database"), [], "pools known with an empty database")
            t.call("run_line", line, bool(ENDLESS.search(line)))
            count += 1
        t.call("clean")
    t.log(f"{count} examples run")
